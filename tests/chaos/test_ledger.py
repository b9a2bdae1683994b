"""The judges of the chaos run: what they must see, and what they must let pass."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from aimux.simulator.replies import FILLER, spoken

from .endpoint import Answer
from .judge import judge, words
from .ledger import Entry, Ledger, leaks

NONE: Mapping[str, str] = MappingProxyType({})
SECRET = "sk-ant-oat01-simulator-0123456789abcdef0123456789abcdef"


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "spool", random.Random(1))


def event(kind: str, **data: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), json.dumps({"type": kind, **data}).encode())


def delta(text: str) -> bytes:
    return event("content_block_delta", delta={"text": text})


def reply(entry: Entry) -> str:
    return spoken("Claude", f"{entry.tag} says hello")


def judged(
    ledger: Ledger,
    body: bytes,
    *,
    whole: bool = True,
    stream: bool = True,
    more: Mapping[str, str] = NONE,
) -> Entry:
    """A request that was answered with this; TAG and REPLY in the body are its own."""
    with ledger.request("claude", "stream") as entry:
        body = body.replace(b"TAG", entry.tag.encode()).replace(b"REPLY", json.dumps(reply(entry)).encode()[1:-1])
        headers = {"x-request-id": entry.tag, **more}
        judge(ledger, entry, Answer(200, headers, body), whole=whole, stream=stream)
    return entry


STOP = event("message_stop")
ERROR = event("error", error={"message": "it broke"})
WHOLE = event("message_start") + delta("REPLY") + STOP


@pytest.mark.parametrize(
    ("body", "whole", "end"),
    [
        (WHOLE, True, "whole"),
        (delta("REPLY" + FILLER + FILLER[:9] + "...") + STOP, True, "whole"),
        (delta("REPLY") + ERROR, True, "failed"),
        (delta("Hello from") + ERROR, False, "told"),
        (delta("Hello from"), False, "broken"),
        (delta("Hello from") + delta(" aimux")[:-9], False, "broken"),
    ],
)
def test_how_a_stream_ends(ledger: Ledger, body: bytes, whole: bool, end: str) -> None:
    assert judged(ledger, body, whole=whole).end == end
    assert ledger.violations == []


def test_half_a_message_in_whole_framing_is_torn(ledger: Ledger) -> None:
    assert judged(ledger, b'{"type": "message", "content": [{"text": "REPLY"', stream=False).end == "torn"
    assert judged(ledger, b'{"type": "message", "content": [{"text": "REPLY"}]}', stream=False).end == "whole"
    assert ledger.violations == []


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (delta("REPLY"), "ended cleanly before its time"),
        (delta("Hello from") + STOP, "not told everything"),
        (delta("REPLY") + ERROR + STOP, "both failed and was complete"),
        (delta("REPLY") + delta("REPLY") + STOP, "told other words"),
        (delta("Hello from aimx’s simulator") + STOP, "told other words"),
        (WHOLE + event("ping", of="tag-999999-0a1b2c3d"), "received bytes of"),
    ],
)
def test_what_no_answer_may_be(ledger: Ledger, body: bytes, says: str) -> None:
    judged(ledger, body)
    assert any(says in violation for violation in ledger.violations)


def test_whose_answer_it_is(ledger: Ledger) -> None:
    judged(ledger, WHOLE, more={"x-request-id": "tag-000009-00000000"})
    assert any("got the answer to tag-000009" in violation for violation in ledger.violations)


def test_headers_that_stay_inside(ledger: Ledger) -> None:
    judged(ledger, WHOLE, more={"set-cookie": "session=1"})
    assert any("was shown ['set-cookie']" in violation for violation in ledger.violations)


def test_a_request_without_an_end(ledger: Ledger) -> None:
    with ledger.request("claude", "stream") as entry:
        pass
    assert ledger.violations == [f"stream {entry.tag} has no end"]


# --- excuses ----------------------------------------------------------------------------------------------------------


def ended(ledger: Ledger, end: str, provider: str = "claude", status: int = 0) -> Entry:
    with ledger.request(provider, "stream") as entry:
        entry.end, entry.status = end, status
    return entry


def test_what_ended_well_needs_no_excuse(ledger: Ledger) -> None:
    for end in ("whole", "left", "as asked"):
        ended(ledger, end)
    assert ledger.unexcused() == []


def test_an_excuse_serves_as_often_as_it_says(ledger: Ledger) -> None:
    ledger.excuse("broken", why="it was killed", count=2, seconds=9)
    entries = [ended(ledger, "broken") for _ in range(3)]
    assert ledger.unexcused() == entries[2:]
    assert ledger.unexcused() == entries[2:], "and asking twice changes nothing"


@pytest.mark.parametrize(
    "excuse",
    [{"ends": ("told",)}, {"provider": "chatgpt"}, {"kind": "asker"}, {"status": 500}, {"seconds": -1.0}],
    ids=["another end", "another provider", "another kind", "another status", "too late"],
)
def test_an_excuse_for_something_else(ledger: Ledger, excuse: dict[str, Any]) -> None:
    ledger.excuse(*excuse.pop("ends", ("failed",)), why="a fault", **{"seconds": 9.0, **excuse})
    entry = ended(ledger, "failed", status=503)
    assert ledger.unexcused() == [entry]


def test_each_excuse_goes_where_it_is_needed_most(ledger: Ledger) -> None:
    ledger.excuse("failed", "broken", why="of anybody", seconds=9)
    ledger.excuse("failed", why="of claude", provider="claude", seconds=9)
    ended(ledger, "failed", "claude")  # would take the first one, which alone helps the next request
    ended(ledger, "broken", "chatgpt")
    assert ledger.unexcused() == []


def test_an_excuse_for_as_long_as_something_lasts(ledger: Ledger) -> None:
    with ledger.excusing("broken", why="it is killed", count=3):
        ended(ledger, "broken")
        with ledger.request("claude", "stream") as entry:
            entry.end = "broken"
    after = ended(ledger, "broken")
    assert ledger.unexcused() == [after]


def test_who_began_while_it_lasted_may_end_later(ledger: Ledger) -> None:
    with ExitStack() as request, ledger.excusing("broken", why="it is killed"):
        request.enter_context(ledger.request("claude", "stream")).end = "broken"
    assert ledger.unexcused() == []


def test_it_begins_after_what_it_excuses_has_ended(ledger: Ledger) -> None:
    entry = ended(ledger, "broken")
    ledger.excuse("broken", why="a fault that came later")
    assert ledger.unexcused() == [entry]


# --- secrets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("said", [SECRET, SECRET[6:30], SECRET[-20:], SECRET[20:50], SECRET[9:25], SECRET[-16:]])
def test_a_leak(said: str) -> None:
    [leak] = leaks({"log": f'WARNING token="{said}"'.encode()}, {SECRET})
    assert leak.startswith("log holds a piece of sk-ant-o…, behind 'WARNING token=\"")


def test_a_beginning_may_be_shown() -> None:
    assert leaks({"log": f"token={SECRET[:8]}… was refused; simulator, simulator-0123".encode()}, {SECRET}) == []


def test_words_of_half_an_event_do_not_count() -> None:
    assert words(delta("one") + delta("two") + delta("three")[:-1]) == "onetwo"
    assert words(b"no event and no JSON") == ""
