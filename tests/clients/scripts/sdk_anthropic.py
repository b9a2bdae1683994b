"""What people do with Anthropic's Python SDK, any major version. Prints what came of all steps, or of those named."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from anthropic import Anthropic, AsyncAnthropic

BASE, TOKEN = os.environ["BASE"], os.environ["TOKEN"]
HELLO: list[Any] = [{"role": "user", "content": "say hi"}]
ASKED: dict[str, Any] = {"model": "claude-sonnet-5", "max_tokens": 100}
TOOLS: list[Any] = [
    {"name": "Bash", "input_schema": {"type": "object", "properties": {"c": {"type": "string"}}, "required": ["c"]}}
]


def client(step: str, simulator: str = "ok", more: dict[str, str] | None = None, **options: Any) -> Anthropic:
    headers = {"x-step": step, "x-simulator": simulator, **(more or {})}
    return Anthropic(**{"base_url": BASE, "auth_token": TOKEN, "default_headers": headers, **options})


def say(sdk: Anthropic, messages: list[Any] = HELLO, **more: Any) -> str:
    answer: Any = sdk.messages.create(**{**ASKED, "messages": messages, **more})
    return str(answer.content[0].text)


def stream(sdk: Anthropic) -> str:
    with sdk.messages.stream(**ASKED, messages=HELLO) as events:
        return "".join(events.text_stream)


def tool() -> Any:
    sdk = client("tool", "tool:Bash")
    call: Any = sdk.messages.create(**ASKED, messages=HELLO, tools=TOOLS).content[0]
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "done"}
    turns = [*HELLO, {"role": "assistant", "content": [call]}, {"role": "user", "content": [result]}]
    return [call.type, say(sdk, turns, tools=TOOLS)]


async def counts() -> list[int]:
    headers = {"x-step": "counts"}
    async with AsyncAnthropic(base_url=BASE, auth_token=TOKEN, default_headers=headers) as sdk:
        asked = [sdk.messages.count_tokens(model="claude-sonnet-5", messages=HELLO) for _ in range(26)]
        return [count.input_tokens for count in await asyncio.gather(*asked)]


def twice() -> list[str]:
    sdk = client("twice")
    return [say(sdk), stream(sdk), say(sdk)]


STEPS: dict[str, Callable[[], Any]] = {
    "hello": lambda: say(client("hello")),
    "stream": lambda: stream(client("stream")),
    "tool": tool,
    "twice": twice,
    "big": lambda: say(client("big"), [{"role": "user", "content": "word " * 600_000}]),
    "counts": lambda: asyncio.run(counts()),
    "models": lambda: [model.id for model in client("models").models.list()],
    "slash": lambda: say(client("slash", base_url=f"{BASE}/")),
    "v1": lambda: say(client("v1", base_url=f"{BASE}/v1")),
    "x-api-key": lambda: say(client("x-api-key", auth_token=None, api_key=TOKEN)),
    "both": lambda: say(client("both", more={"x-api-key": TOKEN})),
    "compressed": lambda: stream(client("compressed", "encode")),
    "wrong": lambda: say(client("wrong", auth_token="wrong-wrong-wrong-wrong")),
    "vendor": lambda: say(client("vendor", auth_token=None, api_key=os.environ["VENDOR_KEY"])),
    "no such model": lambda: say(client("no such model"), model="gpt"),
    "500": lambda: say(client("500", "500")),
    "500, no retry": lambda: say(client("500, no retry", "500,no-retry")),
    "503:2": lambda: say(client("503:2", "503:2", max_retries=1)),
    "end": lambda: stream(client("end", "end:5")),
    "cut": lambda: stream(client("cut", "cut:5")),
    "reset": lambda: stream(client("reset", "reset:5")),
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
