"""What is used when the request that asked for it is over: counted once, as its maker's, whoever reads of it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from typing import Any

import pytest

from aimux.gateway.deferred_usage import claim, due, is_open
from aimux.gateway.deposits import Deposits
from aimux.limits import Who
from aimux.metering.record import LATER, RequestRecord, Sender
from aimux.plugin import Headers, Meter, Over, RequestHead, ResultsMeter, StoredAnswer, Usage
from tests.waiting import until

from .answers import body_of, status_of
from .conftest import BOTH_WAYS, TOKEN, Aimux, Plain, Start, Upstream, request

BOB = "test-token-of-bob-0123456789"
USERS: list[Mapping[str, Any]] = [{"name": "ann", "token": TOKEN, "groups": ["team"]}, {"name": "bob", "token": BOB}]
BATCH = "batch_0001"


class Results(ResultsMeter):
    def read(self, result: dict[str, Any]) -> Usage | None:
        return Usage(result["model"], result.get("in", 0), result["tokens"]) if "tokens" in result else None


class Job(StoredAnswer):
    """`{"id": …}` begins something; `{"id": …, "took": N}` says that it is over."""

    def read(self, answer: dict[str, Any]) -> None:
        super().read(answer)
        if "took" in answer:
            self.over = (Over(answer["id"], (Usage("m", output_tokens=answer["took"]),)),)
        elif self.stored:
            self.begun = self.stored[0]


@pytest.fixture(autouse=True)
def _meters(monkeypatch: pytest.MonkeyPatch) -> None:
    def meter(_self: Plain, head: RequestHead, status: int, _headers: Headers) -> Meter | None:
        if head.path.endswith("/results"):
            return Results(head.path.split("/")[-2])
        return Job() if status == 200 else None

    monkeypatch.setattr(Plain, "meter", meter)


class Vendor:
    """Answers a GET with `told`, in pieces, and everything else with a new batch."""

    def __init__(self, upstream: Upstream) -> None:
        self.told: list[bytes] = []
        self.length: int | None = None
        self.stop = asyncio.Event()
        self.stop.set()
        self._upstream = upstream
        upstream.script = self.run

    async def run(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while sent := await self._upstream.read(reader):
            told = self.told if sent.startswith(b"GET") else [json.dumps({"id": BATCH}).encode()]
            size = self.length if self.length is not None else sum(map(len, told))
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % size)
            for at, piece in enumerate(told):
                writer.write(piece)
                await writer.drain()
                if not at:
                    await self.stop.wait()
            if self.length is not None:
                return


@pytest.fixture
def vendor(upstream: Upstream) -> Vendor:
    return Vendor(upstream)


def line(tokens: int, model: str = "m") -> bytes:
    return json.dumps({"model": model, "tokens": tokens}).encode() + b"\n"


class Seen:
    """Records of what came later."""

    def __init__(self, aimux: Aimux) -> None:
        self.records: list[RequestRecord] = []
        self._changed = asyncio.Event()
        aimux.app.records.add(self._take)

    def _take(self, record: RequestRecord) -> None:
        if record.method == LATER:
            self.records.append(record)
            self._changed.set()

    async def tokens(self, count: int) -> list[int]:
        """Of each record, once there are so many."""
        async with asyncio.timeout(10):
            while len(self.records) < count:
                self._changed.clear()
                await self._changed.wait()
        return [record.usage.output_tokens for record in self.records if record.usage is not None]


async def get(aimux: Aimux, path: str, token: str = TOKEN) -> bytes:
    return await aimux.send(request(f"/plain/v1/{path}", method="GET", body=b"", token=token))


async def begin(aimux: Aimux, token: str = TOKEN) -> None:
    assert status_of(await aimux.send(request("/plain/v1/batches", token=token))) == 200


async def settled(aimux: Aimux) -> None:
    """Until nothing waits to be counted."""
    deposits = aimux.app.gateway.storage.deposits
    await until(lambda: not deposits.claims and not deposits.fresh)


@BOTH_WAYS
async def test_it_counts_once_as_its_makers(start: Start, vendor: Vendor) -> None:
    aimux = await start(users=USERS, shared_storage=True)
    seen = Seen(aimux)
    await begin(aimux)
    vendor.told = [line(5), line(7), b'{"failed":true}\n', b"no JSON\n", line(11, "other")]
    assert body_of(await get(aimux, f"batches/{BATCH}/results", BOB)) == b"".join(vendor.told)
    assert await seen.tokens(2) == [12, 11]
    one = seen.records[0]
    assert (one.user, one.sender.groups, one.sender.mount, one.account) == ("ann", ("team",), "/plain", "default")
    assert (one.model, one.usage and one.usage.requests, one.usage and one.usage.tier) == ("m", 2, "batch")
    assert one.sender.token
    await get(aimux, f"batches/{BATCH}/results")
    await aimux.app.stop()
    again = await start(users=USERS)
    after = Seen(again)
    await get(again, f"batches/{BATCH}/results")
    await settled(again)
    assert len(seen.records) == 2
    assert not after.records


async def test_what_is_told_by_an_object_counts_once_too(start: Start, vendor: Vendor) -> None:
    aimux = await start(users=USERS)
    seen = Seen(aimux)
    await begin(aimux)
    vendor.told = [json.dumps({"id": BATCH}).encode()]
    await get(aimux, f"batches/{BATCH}")
    vendor.told = [json.dumps({"id": BATCH, "took": 9}).encode()]
    await asyncio.gather(*(get(aimux, f"batches/{BATCH}") for _ in range(5)))
    assert await seen.tokens(1) == [9]
    await settled(aimux)
    assert len(seen.records) == 1


async def test_what_a_list_tells_counts_once_too(start: Start, vendor: Vendor, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what came of it is its owner's."""
    aimux = await start(users=USERS)
    seen = Seen(aimux)
    await begin(aimux)
    vendor.told = [json.dumps({"data": [{"id": BATCH, "took": 9}], "has_more": False}).encode()]
    monkeypatch.setattr(Plain, "lists", lambda _self, head: "own" if head.path.endswith("/batches") else "nothing")
    for _ in range(2):
        assert status_of(await get(aimux, "batches")) == 200
    assert await seen.tokens(1) == [9]
    await settled(aimux)
    assert len(seen.records) == 1


async def test_what_was_made_beside_aimux_is_nobodys(start: Start, vendor: Vendor) -> None:
    aimux = await start(users=USERS)
    seen = Seen(aimux)
    await begin(aimux)
    vendor.told = [line(5)]
    await get(aimux, "batches/batch_0002/results")
    await settled(aimux)
    assert not seen.records


async def test_who_leaves_in_the_middle_has_read_so_much(start: Start, vendor: Vendor) -> None:
    """And what is read later counts without it."""
    aimux = await start(users=USERS)
    seen = Seen(aimux)
    await begin(aimux)
    vendor.told = [line(5) + line(7), line(11), line(1, "other")]
    vendor.stop.clear()
    reader, writer = await aimux.connect()
    writer.write(request(f"/plain/v1/batches/{BATCH}/results", method="GET", body=b""))
    await reader.readuntil(line(7))
    writer.transport.abort()
    assert await seen.tokens(1) == [12]
    vendor.stop.set()
    await get(aimux, f"batches/{BATCH}/results")
    assert await seen.tokens(3) == [12, 11, 1]
    await get(aimux, f"batches/{BATCH}/results")
    await settled(aimux)
    assert len(seen.records) == 3


async def test_results_that_broke_off_are_not_all(start: Start, vendor: Vendor) -> None:
    aimux = await start(users=USERS)
    seen = Seen(aimux)
    await begin(aimux)
    vendor.told, vendor.length = [line(5), line(7)], 1000
    await get(aimux, f"batches/{BATCH}/results")
    assert await seen.tokens(1) == [12]
    vendor.told, vendor.length = [line(5), line(7), line(9)], None
    await get(aimux, f"batches/{BATCH}/results")
    assert await seen.tokens(2) == [12, 9]


async def test_it_uses_up_budgets_and_what_began_it_none(start: Start, vendor: Vendor) -> None:
    def used(aimux: Aimux) -> float:
        standings = aimux.app.gateway.limiting.limits.standings
        who = Who("ann", "", ("team",))
        return next(one.used for one in standings(who, time.time()) if one.limit == "tokens_per_day")

    limits = {"users": {"ann": {"tokens_per_day": 1000}}, "groups": {"team": {"tokens_per_day": 5000}}}
    aimux = await start(users=USERS, limits=limits)
    seen = Seen(aimux)
    await begin(aimux)
    assert used(aimux) == 0
    vendor.told = [line(600), line(700)]
    await get(aimux, f"batches/{BATCH}/results")
    assert await seen.tokens(1) == [1300]
    assert used(aimux) == 1300
    assert status_of(await aimux.send(request())) == 429
    await aimux.app.stop()
    again = await start(users=USERS, limits=limits)
    assert used(again) == 1300


def test_what_waits_to_be_counted_is_bounded() -> None:
    deposits = Deposits(most=10, each=100)
    for number in range(9):
        deposits.keep("plain", "default", [f"batch_{number}"], "ann", due="{}")
    for number in range(9):
        for took in range(3):
            over = Over(f"batch_{number}", (Usage("m", output_tokens=took + 1),), whole=False)
            deposits.count("plain", [over], "/")
    assert len(deposits.claims) == 10


def test_what_was_painted_in_the_background_keeps_its_own_price() -> None:
    painted = Usage("m", 100, 20)
    painted.put_beside((Usage("painter", 0, 4_000),))
    sender = Sender(token="t")
    made = claim("plain", "default", "ann", Over("resp_1", (painted,)), due(sender, ""), "/v1/responses/resp_1")
    assert made is not None
    assert made.records[0].usage == painted
    nothing = claim("plain", "default", "ann", Over("video_1", ()), due(sender, ""), "/v1/videos/video_1")
    assert nothing is not None
    assert (nothing.records, is_open(nothing.new)) == ((), False), "it failed: nobody waits to read what it took"


def test_a_sum_counts_once_whatever_model_it_names() -> None:
    """A session's events name none, and its agent may get another model."""
    sums = ((Usage("", 5, 1), [("big", 5)]), (Usage("big", 9, 1), [("big", 4)]), (Usage("small", 9, 3), [("small", 0)]))
    left = due(Sender("/plain"), "", "big")
    for told, counted in sums:
        made = claim("plain", "default", "ann", Over("sesn_1", (told,), whole=False, total=True), left, "/v1/sessions")
        assert made is not None
        records = [(one.model, one.usage.input_tokens) for one in made.records if one.usage is not None]
        assert records == counted
        left = made.new
    assert claim("plain", "default", "ann", Over("sesn_1", (told,), whole=False, total=True), left, "/") is None
