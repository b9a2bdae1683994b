"""The wire formats as a client speaks them: the requests that `aimux doctor --live` makes, and how answers look."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

CHEAP = ("haiku", "nano", "mini", "luna")
"""Words in the names of cheap models."""
_COUNT = "Count from 1 to 40, in words."


@dataclass(frozen=True, slots=True)
class Format:
    """`models` is a GET that costs nothing. `last`: what the last event of a good stream holds. `limits`: how the names
    of headers begin that tell what is left. `foreign`: a token of the form of the vendor's own, and nobody's."""

    headers: Mapping[str, str]
    models: str
    generate: str
    body: Mapping[str, Any]
    last: tuple[str, ...]
    limits: tuple[str, ...]
    foreign: str
    fallback: str
    socket: str | None = None

    def request(self, model: str) -> bytes:
        """A streamed request of some 100 tokens."""
        return json.dumps({"model": model, **self.body}).encode()

    def message(self, body: bytes) -> str | None:
        """The message of an error in this format; None if it is not one."""
        try:
            error = json.loads(body)["error"]
            return str(error["message"])
        except (ValueError, KeyError, TypeError, RecursionError):
            return None

    def model(self, body: bytes) -> str:
        """The cheapest of the listed models, as far as names show."""
        try:
            listed = json.loads(body)
            names = [str(one.get("id") or one.get("slug")) for one in listed.get("data") or listed.get("models")]
        except (ValueError, AttributeError, TypeError, RecursionError):
            names = []
        usual = [name for name in names if name.startswith(self.fallback.partition("-")[0])]
        return next((name for word in CHEAP for name in usual if word in name), usual[0] if usual else self.fallback)


FORMATS = {
    "anthropic": Format(
        headers={"anthropic-version": "2023-06-01"},
        models="/v1/models?limit=1000",
        generate="/v1/messages",
        body={"max_tokens": 150, "stream": True, "messages": [{"role": "user", "content": _COUNT}]},
        last=("message_stop",),
        limits=("anthropic-ratelimit-",),
        foreign="sk-ant-oat01-this-is-nobodys-login-0123456789",
        fallback="claude-haiku-4-5",
    ),
    "openai": Format(
        headers={},
        models="/v1/models?client_version=0.171.0",  # the ChatGPT backend asks for one
        generate="/v1/responses",
        body={
            "instructions": "Answer with nothing but what is asked for.",
            "input": [{"role": "user", "content": [{"type": "input_text", "text": _COUNT}]}],
            "stream": True,
            "store": False,
        },
        last=("response.completed", "response.incomplete"),
        limits=("x-codex-", "x-ratelimit-"),
        foreign="sk-proj-this-is-nobodys-key-0123456789",
        fallback="gpt-5.5",
        socket="/v1/responses",
    ),
}
