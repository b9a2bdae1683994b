"""aimux's own limits through a whole aimux: what is refused, what is counted, and what clients are told of it."""

from __future__ import annotations

import asyncio
import json
import re
import time
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from multidict import CIMultiDict

from aimux.gateway.epoch import Admitted
from aimux.gateway.limiting import Limiting, refused
from aimux.limits import Limits, Policy, Who
from aimux.limits.fair_share import FairShare
from aimux.limits.history import History, Use
from aimux.limits.leases import Refusal, Standing
from aimux.limits.rules import EVERYBODY, Owner, Rule
from aimux.metering.prices import Prices
from aimux.metering.record import RequestRecord
from aimux.plugin import RequestHead
from aimux.plugin.errors import LimitReached, RateLimited
from tests.gateway.answers import answer, json_of, status_of
from tests.gateway.conftest import TOKEN, Aimux, Start, Upstream, request
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable

ANN = Who("ann")


def standings(aimux: Aimux) -> dict[str, float]:
    """What is used of each limit of ann's."""
    return {one.limit: one.used for one in aimux.app.gateway.limiting.limits.standings(ANN, time.time())}


async def test_a_budget_is_used_up_and_the_next_request_does_not_go_up(start: Start, upstream: Upstream) -> None:
    aimux = await start(limits={"users": {"ann": {"tokens_per_day": 1000}}})
    upstream.answer = answer(900)
    assert [status_of(await aimux.send(request())) for _ in range(2)] == [200, 200]
    refused = await aimux.send(request())
    assert status_of(refused) == 429
    assert re.fullmatch(
        r"You have used 1,800 of 1,000 tokens today; there is room again (on \w+, \d+ \w+, )?at 00:00 UTC, "
        r"in \d+ \w+\. Ask whoever runs aimux if you need more\.",
        json_of(refused)["plain"],
    )
    assert b"x-should-retry: false" in refused
    assert 0 < int(re.search(rb"retry-after: (\d+)", refused)[1]) <= 86400  # type: ignore[index]
    assert len(upstream.requests) == 2
    assert " status=429 " in aimux.log
    assert "error=rate_limited" in aimux.log


@pytest.mark.parametrize(("method", "code"), [("PUT", 429), ("QUERY", 429), ("GET", 200), ("DELETE", 200)])
async def test_what_may_consume_is_refused_whatever_its_method(
    start: Start, upstream: Upstream, method: str, code: int
) -> None:
    aimux = await start(limits={"users": {"ann": {"tokens_per_day": 0}}})
    assert status_of(await aimux.send(request(method=method))) == code
    assert len(upstream.requests) == (code == 200)


def test_a_body_that_comes_over_midnight_is_of_the_day_that_the_ledger_knows() -> None:
    """It is the first request of ann's since a limit was set, and she has used it up this morning."""
    midnight = 1_795_305_600.0
    limits = Limits(Policy(), UTC)
    past = History({midnight: [Use("ann", "", (), "claude", "m", 1200, 0)]})
    limits.adopt(Policy((Rule(EVERYBODY, "tokens_per_day", 1000),)), UTC, midnight + 5, past)
    limiting = Limiting(limits, FairShare(), Prices(), lambda: False)
    admitted = Admitted.__new__(Admitted)
    admitted.who, admitted.terms, admitted.head = ANN, None, RequestHead("POST", "/", CIMultiDict())
    admitted.form = False
    slow = RequestRecord("own", midnight - 5, "POST", "/", provider="claude", model="m")
    with pytest.raises(LimitReached, match="1,200 of 1,000 tokens today"):
        limiting.admit(slow, admitted, b"{}", midnight + 6)


def test_an_upload_of_sound_is_not_taken_for_text() -> None:
    limits = Limits(Policy((Rule(EVERYBODY, "tokens_per_day", 10_000),)), UTC)
    limiting = Limiting(limits, FairShare(), Prices(), lambda: False)
    admitted = Admitted.__new__(Admitted)
    admitted.who, admitted.terms, admitted.head = ANN, None, RequestHead("POST", "/", CIMultiDict())
    sound = bytes(range(256)) * 4_000
    for form in (False, True, True):
        admitted.form = form
        record = RequestRecord("own", 1_795_305_600.0, "POST", "/", provider="chatgpt", model="whisper-1")
        limiting.admit(record, admitted, sound if form else b"{}", record.time)
    assert len(limits) == 3, "all are under way"


async def test_a_body_that_comes_slowly_takes_nothing_out_of_the_minute(start: Start, upstream: Upstream) -> None:
    aimux = await start(limits={"default": {"requests_per_minute": 2}})
    whole = request()
    reader, writer = await aimux.connect()
    writer.write(whole[:-1])
    await until(lambda: aimux.app.gateway.open)
    assert [status_of(await aimux.send(request())) for _ in range(2)] == [200, 200]
    writer.write(whole[-1:])
    assert status_of(await reader.readuntil(b"\r\n\r\n")) == 429
    assert status_of(await aimux.send(request())) == 429
    writer.close()


async def test_one_who_has_no_limit_is_not_counted(start: Start, upstream: Upstream) -> None:
    users = [{"name": "ann", "token": TOKEN}, {"name": "bob", "token": TOKEN + "2"}]
    aimux = await start(users=users, limits={"users": {"ann": {"tokens_per_day": 0}}})
    assert status_of(await aimux.send(request())) == 429
    assert status_of(await aimux.send(request(token=TOKEN + "2"))) == 200
    assert len(aimux.app.gateway.limiting.limits) == 0


@pytest.mark.parametrize(
    ("limit", "amount", "words"),
    [
        ("requests_per_minute", 1, "1 request a minute"),
        ("requests_per_minute", 2, "2 requests a minute"),
        ("tokens_per_minute", 50_000, "50,000 tokens a minute"),
    ],
)
def test_a_rate_in_words(limit: str, amount: float, words: str) -> None:
    standing = Standing(limit, Owner("user", "ann"), "", amount, amount, None)
    error = refused(Refusal(standing, 1012.5), 1000.0, UTC, RequestHead("POST", "/v1/messages", CIMultiDict()))
    assert error.message == f"You may use {words}; try again in 13 s."


def test_a_piece_that_is_too_small_in_words() -> None:
    standing = Standing("cost_per_day", Owner("group", "dev"), "", 20.0, 4.5, 5000.0)
    error = refused(Refusal(standing, 1001.0), 1000.0, UTC, RequestHead("POST", "/v1/messages", CIMultiDict()))
    assert isinstance(error, RateLimited)
    assert error.message == (
        "Your group dev has used $4.50 of $20.00 today. Several nodes have parts of what is left, and this one's is "
        "too small; try again in 1 s."
    )


async def test_what_consumes_nothing_is_not_refused(start: Start, upstream: Upstream) -> None:
    aimux = await start(limits={"default": {"requests_per_minute": 0}})
    assert status_of(await aimux.send(request(method="GET", body=b""))) == 200
    assert status_of(await aimux.send(request())) == 429


async def test_too_many_at_once_wait_and_are_told_so(start: Start, upstream: Upstream) -> None:
    release = asyncio.Event()

    async def slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await upstream.read(reader)
        await release.wait()
        writer.write(answer(5))

    upstream.script = slowly
    aimux = await start(limits={"default": {"concurrent_requests": 1}})
    first = asyncio.create_task(aimux.send(request()))
    await upstream.until(lambda: len(upstream.requests) == 1)
    second = await aimux.send(request())
    assert status_of(second) == 429
    assert b"retry-after: 1" in second
    assert "x-should-retry" not in second.decode()
    assert json_of(second)["plain"].startswith("You have 1 request open, and may have 1 at once")
    release.set()
    assert status_of(await first) == 200
    assert status_of(await aimux.send(request())) == 200


async def test_what_is_over_and_waits_to_be_settled_is_in_nobodys_way(start: Start, upstream: Upstream) -> None:
    aimux = await start(limits={"default": {"concurrent_requests": 1}})
    upstream.answer = answer(5)
    rounds: list[Callable[[], object]] = []
    aimux.app.records.soon = rounds.append  # the round of the event loop does not end
    assert status_of(await aimux.send(request())) == 200
    assert len(aimux.app.gateway.limiting.limits) == 1
    assert status_of(await aimux.send(request())) == 200
    assert len(rounds) == 2


async def test_a_refusals_length_is_in_the_log(start: Start, upstream: Upstream) -> None:
    aimux = await start(limits={"default": {"requests_per_minute": 0}})
    _, _, told = (await aimux.send(request())).partition(b"\r\n\r\n")
    assert told
    assert f" out={len(told)} " in aimux.log


@pytest.mark.parametrize(
    ("reply", "used"),
    [
        (b"HTTP/1.1 400 Bad Request\r\ncontent-length: 2\r\n\r\n{}", 0),
        (b"HTTP/1.1 500 Oops\r\ncontent-length: 2\r\n\r\n{}", 0),
        (answer(70), 70),
    ],
)
async def test_a_failure_costs_no_tokens(start: Start, upstream: Upstream, reply: bytes, used: int) -> None:
    upstream.answer = reply
    aimux = await start(limits={"default": {"tokens_per_day": 5000, "requests_per_minute": 50}})
    await aimux.send(request())
    assert standings(aimux) == {"tokens_per_day": used, "requests_per_minute": 1}
    assert len(aimux.app.gateway.limiting.limits) == 0


async def test_what_never_went_up_is_given_back(start: Start, upstream: Upstream) -> None:
    aimux = await start(accounts=(), limits={"default": {"tokens_per_day": 5000, "requests_per_minute": 50}})
    assert status_of(await aimux.send(request())) == 503
    assert standings(aimux) == {"tokens_per_day": 0, "requests_per_minute": 0}


async def test_an_answer_that_nobody_can_read_counts_as_usual(start: Start, upstream: Upstream) -> None:
    async def broken(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await upstream.read(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 90\r\n\r\n{")
        await writer.drain()

    upstream.script = broken
    aimux = await start(limits={"default": {"tokens_per_day": 5000}})
    await aimux.send(request())
    assert standings(aimux) == {"tokens_per_day": 503}, "13 bytes, and an answer as long as nobody knows better"


async def test_a_client_that_leaves_is_settled(start: Start, upstream: Upstream) -> None:
    async def forever(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await upstream.read(reader)
        writer.write(b'HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: {"tokens": 40}\n\n')
        await reader.read()

    upstream.script = forever
    aimux = await start(limits={"default": {"tokens_per_day": 5000, "concurrent_requests": 1}})
    reader, writer = await aimux.connect()
    writer.write(request())
    await reader.readuntil(b"40}\n\n")
    writer.transport.abort()
    await upstream.until(lambda: upstream.open == 0)
    await until(lambda: len(aimux.app.gateway.limiting.limits) == 0)
    assert standings(aimux) == {"tokens_per_day": 40, "concurrent_requests": 0}


async def test_to_hang_up_before_the_end_is_not_free(start: Start, upstream: Upstream) -> None:
    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await upstream.read(reader)
        event = b'data: {"words": "%b"}\n\n' % (b"x" * 60)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + 50 * event)
        await writer.drain()
        writer.close()

    upstream.script = cut
    aimux = await start(limits={"default": {"tokens_per_day": 5000}})
    await aimux.send(request())
    used = standings(aimux)["tokens_per_day"]
    assert 750 <= used <= 760, "3,000 characters of a stream whose end would have told what it took"


async def test_a_reload_changes_limits_and_keeps_what_is_used(start: Start, upstream: Upstream) -> None:
    upstream.answer = answer(900)
    aimux = await start(limits={"default": {"tokens_per_day": 5000}})
    reader, writer = await aimux.connect()
    writer.write(request(close=False))
    await reader.readuntil(b"900}")
    file: Path = aimux.folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"limits": {"default": {"tokens_per_day": 800}}}))
    assert await aimux.app.reload()
    writer.write(request())
    refused = await reader.read()
    assert status_of(refused) == 429
    assert "900 of 800 tokens" in json_of(refused)["plain"]


@pytest.mark.parametrize("before", [{}, {"tokens_per_week": 10_000}], ids=["free", "limited"])
async def test_a_limit_counts_what_was_under_way_when_it_came(
    start: Start, upstream: Upstream, before: dict[str, int]
) -> None:
    release = asyncio.Event()

    async def slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await upstream.read(reader):
            await release.wait()
            writer.write(answer(900))

    upstream.script = slowly
    aimux = await start(limits={"users": {"ann": before}})
    first = asyncio.create_task(aimux.send(request()))
    await upstream.until(lambda: len(upstream.requests) == 1)
    file: Path = aimux.folder / "config.json"
    limits = {"users": {"ann": {"tokens_per_day": 10_000, **before}}}
    file.write_text(json.dumps(json.loads(file.read_text()) | {"limits": limits}))
    assert await aimux.app.reload()
    release.set()
    assert status_of(await first) == 200
    assert standings(aimux) == dict.fromkeys(["tokens_per_day", *before], 900)
    assert status_of(await aimux.send(request())) == 200
    assert standings(aimux) == dict.fromkeys(["tokens_per_day", *before], 1800)


async def test_limits_of_a_model_hold_for_the_model_that_the_upstream_reads(start: Start, upstream: Upstream) -> None:
    aimux = await start(limits={"default": {"models": {"big*": {"requests_per_minute": 0}}}})
    assert status_of(await aimux.send(request(body=b'{"model":"small"}'))) == 200
    assert status_of(await aimux.send(request(body=b'{"model":"big-1"}'))) == 429
    assert status_of(await aimux.send(request(body=b'{"model":"small","x":1,"model":"big-1"}'))) == 400
    assert len(upstream.requests) == 1


LONG = b"x" * 200_000


@pytest.mark.parametrize(
    ("target", "body", "code"),
    [
        ("", b'{"model":"big-1","x":"%b","model":"small"}', 400),
        ("", b'{"x":"%b","model":"big-1","model":"small"}', 400),
        ("", b'{"model":"small","x":"%b","Model":"big-1"}', 400),
        ("", b'{"x":"%b","Model":"big-1"}', 400),
        ("", b'{"mod\\u0065l":"big-1","x":"%b","model":"small"}', 400),
        ("?model=big-1", b'{"model":"small","x":"%b"}', 400),
        ("?model=small", b'{"model":"big-1","x":"%b"}', 400),
        ("?model=big-1", b'{"x":"%b"}', 429),
        ("?model=tiny", b'{"model":"small","x":"%b","model":"less","tools":[{"model":"big-1"}]}', 200),
        ("?model=small", b'{"x":"%b"}', 200),
    ],
)
@pytest.mark.parametrize("padding", [b"x", LONG], ids=["small", "large"])
async def test_nor_does_another_name_evade_a_limit_of_a_model(
    start: Start, upstream: Upstream, target: str, body: bytes, code: int, padding: bytes
) -> None:
    """Servers differ in which one they read; where the same limits hold, it does not matter."""
    aimux = await start(limits={"default": {"tokens_per_day": 1000, "models": {"big*": {"requests_per_minute": 0}}}})
    said = await aimux.send(request(f"/plain/v1/chat{target}", body=body % padding))
    assert status_of(said) == code
    assert len(upstream.requests) == (code == 200)
    assert ("'big-1'" in json_of(said).get("plain", "")) == (code == 400)


async def test_a_budget_of_costs_is_not_in_the_way_of_what_costs_nothing(start: Start, upstream: Upstream) -> None:
    """The other limits hold for it: nothing of it is wrong but that it is no money's."""
    aimux = await start(
        limits={"users": {"ann": {"cost_per_day": 0, "tokens_per_day": 1000}}},
        prices={"ours": {"input": 0, "output": 0}, "half": {"input": 0}},
    )
    upstream.answer = answer(1000)
    asked = {
        model: status_of(await aimux.send(request(body=b'{"model":"%b"}' % model)))
        for model in (b"unknown", b"half", b"ours")
    }
    assert asked == {b"unknown": 429, b"half": 429, b"ours": 200}
    refused = await aimux.send(request(body=b'{"model":"ours"}'))
    assert "You have used 1,000 of 1,000 tokens today" in json_of(refused)["plain"]


async def test_an_image_counts_as_an_image(start: Start, upstream: Upstream) -> None:
    aimux = await start(limits={"default": {"tokens_per_day": 2000}})
    image = json.dumps({"model": "m", "source": {"type": "base64", "data": "iVBORw0KGgo" * 20_000}}).encode()
    one, two = await asyncio.gather(aimux.send(request(body=image)), aimux.send(request(body=image)))
    assert (status_of(one), status_of(two)) == (200, 200)
