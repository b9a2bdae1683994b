"""What the simulated model says, and what it pretends to have consumed: both follow from the request alone."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aimux.simulator.scenarios import Scenario

FILLER = " Nothing here was thought, only counted – naïve déjà-vu, 漢字 and 🙂 make bytes and characters differ."
CACHE_FROM = 1024
"""Prompts shorter than this many tokens are not cached, as with the real ones."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    name: str
    arguments: dict[str, Any]

    def json(self) -> str:
        return json.dumps(self.arguments, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer's content: a text in the pieces in which it is streamed, or a tool call; and the tokens by kind."""

    text: str
    pieces: tuple[str, ...]
    tool: ToolCall | None
    fresh: int
    cache_read: int
    cache_write: int
    output: int

    @property
    def total_input(self) -> int:
        return self.fresh + self.cache_read + self.cache_write


def input_tokens(body: bytes) -> int:
    """The prompt's tokens: a quarter of its bytes."""
    return max(1, len(body) // 4)


def reply(vendor: str, asked: str, body: bytes, scenario: Scenario, tool: ToolCall | None, frame: int) -> Reply:
    """The reply to a request. `frame` is how many events the protocol needs around the text's."""
    text = spoken(vendor, asked)
    pieces = None
    if scenario.events is not None:
        count = max(1, scenario.events - frame)
        text = _fit(text, scenario.size if scenario.size is not None else max(len(text.encode()), 16 * count))
        pieces = _evenly(text, count)
    elif scenario.size is not None:
        text = _fit(text, scenario.size)
    if pieces is None:
        pieces = _evenly(text, max(1, len(text) // 24))
    total = input_tokens(body)
    cache_read = total * 3 // 4 // 128 * 128 if total >= CACHE_FROM else 0
    cache_write = total // 8 if total >= CACHE_FROM else 0
    said = tool.json() if tool else text
    return Reply(
        text, pieces, tool, total - cache_read - cache_write, cache_read, cache_write, max(1, len(said.encode()) // 4)
    )


def spoken(vendor: str, asked: str) -> str:
    asked = " ".join(asked.split())
    quoted = f"You said: “{asked[:80]}{'…' if len(asked) > 80 else ''}”." if asked else "You said nothing."
    return (
        f"Hello from aimux’s simulator – no model is behind it, and nothing left your machine. {quoted} "
        f"A simulated {vendor} account answered. ✓"
    )


def _fit(text: str, size: int) -> str:
    """A text of exactly `size` bytes."""
    missing = size - len(text.encode())
    text += FILLER * (missing // len(FILLER.encode()) + 1)
    short = text.encode()[:size].decode("utf-8", "ignore")
    return short + "." * (size - len(short.encode()))


def _evenly(text: str, count: int) -> tuple[str, ...]:
    """The text in `count` pieces; some are empty if it has fewer characters."""
    return tuple(text[len(text) * at // count : len(text) * (at + 1) // count] for at in range(count))


def call_tool(tools: Sequence[object], wanted: str, schema_key: str) -> ToolCall | None:
    """A call of the tool `wanted` (the first one, if empty) that fits its schema; None if it isn't offered."""
    for tool in tools:
        if isinstance(tool, dict) and isinstance(tool.get("function"), dict):
            tool = tool["function"]  # Chat Completions nests it
        if not isinstance(tool, dict) or not isinstance(tool.get(schema_key), dict):
            continue
        if wanted in {"", tool.get("name")}:
            return ToolCall(str(tool.get("name")), example(tool[schema_key]))
    return None


def example(schema: dict[str, Any], depth: int = 0) -> Any:
    """A small value that a JSON schema allows; strings are a harmless shell command, in case one is run, and addresses
    nobody's."""
    if "enum" in schema:
        return schema["enum"][0]
    kind = schema.get("type", "object" if "properties" in schema else "string")
    if isinstance(kind, list):
        kind = kind[0]
    if kind == "object":
        properties = schema.get("properties", {})
        return {name: example(properties.get(name, {}), depth + 1) for name in schema.get("required", [])}
    if schema.get("format") == "uri":
        return "https://simulator.invalid/"
    if kind == "array":
        return [] if depth > 4 or not schema.get("minItems") else [example(schema.get("items", {}), depth + 1)]
    simple: dict[str, Any] = {"integer": 1, "number": 1, "boolean": False, "null": None}
    return simple.get(kind, "echo simulator")
