"""How a request ended, and whether its answer is what the simulator said to it and to nobody else."""

from __future__ import annotations

import json
import re

from aimux.simulator.replies import FILLER, spoken

from .endpoint import Answer, prompt
from .ledger import Entry, Ledger

VENDORS = {"claude": "Claude", "chatgpt": "ChatGPT", "socket": "ChatGPT"}
ENDED = re.compile(rb"event: (message_stop|response\.completed)\r?\n")
FAILED = re.compile(rb"event: (error|response\.failed)\r?\n")
HIDDEN = frozenset({"set-cookie", "keep-alive", "proxy-authenticate", "proxy-connection", "alt-svc", "x-hop"})
"""What the simulator's `leaky` tells, and no client may hear."""


def judge(ledger: Ledger, entry: Entry, answer: Answer, *, whole: bool, stream: bool) -> None:
    """Write down how a request ended."""
    entry.status = answer.status
    head = "\r\n".join(f"{name}: {value}" for name, value in answer.headers.items()).encode()
    ledger.received(entry, head + b"\r\n" + answer.body)
    wrong = HIDDEN & answer.headers.keys()
    if wrong:
        ledger.violations.append(f"{entry.tag} was shown {sorted(wrong)}")
    if answer.status and answer.headers.get("x-request-id") != entry.tag:
        ledger.violations.append(f"{entry.tag} got the answer to {answer.headers.get('x-request-id')}")
    if answer.status != 200:
        entry.end = "failed" if whole else "broken"
        entry.detail = answer.body.decode("utf-8", "replace")[:300]
        return
    failed = stream and FAILED.search(answer.body) is not None
    ends = len(ENDED.findall(answer.body))
    if not whole:
        entry.end = "told" if failed else "broken"
        entry.detail = answer.body[-200:].decode("utf-8", "replace")
    elif failed:
        entry.end, entry.detail = "failed", "an error event"
    elif not stream and not is_json(answer.body):
        entry.end, entry.detail = "torn", answer.body[-200:].decode("utf-8", "replace")
    else:
        entry.end = "whole"
        if stream and ends != 1:
            ledger.violations.append(f"{entry.kind} {entry.tag} ended cleanly before its time: {answer.body[-200:]!r}")
    if failed and ends:
        ledger.violations.append(f"{entry.kind} {entry.tag} both failed and was complete: {answer.body[-300:]!r}")
    said(ledger, entry, words(answer.body), whole=entry.end == "whole")


def said(ledger: Ledger, entry: Entry, text: str, *, whole: bool) -> None:
    """The text that an answer brought: the simulator's reply to this request, from its start on, nothing in between."""
    reply = spoken(VENDORS[entry.provider], prompt(entry.tag))
    endless = reply + FILLER * (len(text) // len(FILLER) + 1)
    if not endless.startswith(text.rstrip(".")):  # a size is met with dots
        ledger.violations.append(f"{entry.kind} {entry.tag} was told other words: {text[:400]!r}")
    elif whole and len(text) < len(reply):
        ledger.violations.append(f"{entry.kind} {entry.tag} was not told everything: {text!r}")


def is_json(body: bytes) -> bool:
    try:
        json.loads(body)
    except ValueError:
        return False
    return True


def words(body: bytes) -> str:
    """The text that a body's whole events add up to, or that of the one message that it is."""
    if not body.startswith((b"event:", b"data:", b":")):
        return text_of(body)
    events = re.split(rb"\r?\n\r?\n", body)[:-1]  # what follows the last empty line is half an event
    return "".join(text_of(event.partition(b"data:")[2]) for event in events)


def text_of(raw: bytes) -> str:
    """The text in one event, or in a whole message; "" in what is neither."""
    try:
        event = json.loads(raw)
    except ValueError:
        return ""
    match event:
        case {"type": "content_block_delta", "delta": {"text": str(text)}}:
            return text
        case {"type": "response.output_text.delta", "delta": str(text)}:
            return text
        case {"type": "message", "content": [{"text": str(text)}, *_]}:
            return text
    return ""
