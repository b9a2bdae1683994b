"""What people do with OpenAI's Python SDK, any major version. Prints what came of all steps, or of those named."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from openai import OpenAI

BASE, TOKEN = os.environ["BASE"], os.environ["TOKEN"]
HELLO: list[Any] = [{"role": "user", "content": "say hi"}]
PARAMETERS = {"type": "object", "properties": {"c": {"type": "string"}}, "required": ["c"]}
TOOLS: list[Any] = [{"type": "function", "name": "shell", "parameters": PARAMETERS, "strict": False}]


def client(step: str, simulator: str = "ok", **options: Any) -> OpenAI:
    headers = {"x-step": step, "x-simulator": simulator}
    return OpenAI(**{"base_url": BASE, "api_key": TOKEN, "default_headers": headers, **options})


def say(sdk: OpenAI, messages: list[Any] = HELLO, **more: Any) -> str:
    answer: Any = sdk.responses.create(**{"model": "gpt-5.5", "input": messages, **more})
    return str(answer.output_text)


def stream(sdk: OpenAI) -> str:
    """All of the text; a failure that is an event is raised, as applications do."""
    text = ""
    events: Any = sdk.responses.create(model="gpt-5.5", input=HELLO, stream=True)
    for event in events:
        if event.type == "response.failed":
            raise RuntimeError(event.response.error.message)
        text += event.delta if event.type == "response.output_text.delta" else ""
    return text


def chat(sdk: OpenAI) -> str:
    return str(sdk.chat.completions.create(model="gpt-5.5", messages=HELLO).choices[0].message.content)


def chat_stream(sdk: OpenAI) -> str:
    chunks = sdk.chat.completions.create(model="gpt-5.5", messages=HELLO, stream=True)
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def tool() -> Any:
    sdk = client("tool", "tool:shell")
    call: Any = sdk.responses.create(model="gpt-5.5", input=HELLO, tools=TOOLS).output[0]
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "done"}
    return [call.type, say(sdk, [*HELLO, call.to_dict(), result], tools=TOOLS)]


def twice() -> list[str]:
    sdk = client("twice")
    return [say(sdk), stream(sdk), say(sdk)]


STEPS: dict[str, Callable[[], Any]] = {
    "hello": lambda: say(client("hello")),
    "stream": lambda: stream(client("stream")),
    "chat": lambda: chat(client("chat")),
    "chat stream": lambda: chat_stream(client("chat stream")),
    "tool": tool,
    "twice": twice,
    "big": lambda: say(client("big"), [{"role": "user", "content": "word " * 600_000}]),
    "models": lambda: [model.id for model in client("models").models.list()],
    "slash": lambda: say(client("slash", base_url=f"{BASE}/")),
    "no v1": lambda: say(client("no v1", base_url=BASE.removesuffix("/v1"))),
    "compressed": lambda: stream(client("compressed", "encode")),
    "wrong": lambda: say(client("wrong", api_key="wrong-wrong-wrong-wrong")),
    "vendor": lambda: say(client("vendor", api_key=os.environ["VENDOR_KEY"])),
    "no such model": lambda: say(client("no such model"), model="claude"),
    "500": lambda: say(client("500", "500")),
    "500, no retry": lambda: say(client("500, no retry", "500,no-retry")),
    "503:2": lambda: say(client("503:2", "503:2", max_retries=1)),
    "end": lambda: stream(client("end", "end:5")),
    "cut": lambda: stream(client("cut", "cut:5")),
    "reset": lambda: stream(client("reset", "reset:5")),
    "chat end": lambda: chat_stream(client("chat end", "end:3")),
    "overload": lambda: stream(client("overload", "overload:3")),
}


def main() -> None:
    report: dict[str, Any] = {}
    for name in sys.argv[1:] or STEPS:
        started = time.monotonic()
        try:
            report[name] = STEPS[name]()
        except Exception as error:
            seconds = time.monotonic() - started
            report[name] = {"error": type(error).__name__, "message": str(error), "seconds": seconds}
    json.dump(report, sys.stdout)


main()
