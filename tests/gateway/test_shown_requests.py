"""What an answer took may be in its request alone: a meter is shown it before the answer begins."""

from __future__ import annotations

import gzip

import pytest

from aimux.gateway.meter_feed import MOST_SHOWN
from aimux.metering.record import RequestRecord
from aimux.plugin import Headers, JSONMeter, Meter, RequestHead

from .answers import status_of
from .conftest import BOTH_WAYS, Plain, Start, request

pytestmark = BOTH_WAYS


class Spoken(JSONMeter):
    reads_request = True

    def asked(self, message: bytes) -> None:
        self.usage.characters = message.count(b"x")
        if b"faulty" in message:
            raise ValueError("no such text")


@pytest.fixture(autouse=True)
def _meter(monkeypatch: pytest.MonkeyPatch) -> None:
    def meter(_self: Plain, _head: RequestHead, _status: int, _headers: Headers) -> Meter | None:
        return Spoken()

    monkeypatch.setattr(Plain, "meter", meter)


@pytest.mark.parametrize(
    ("body", "coding", "characters"),
    [
        (b'{"model":"m","input":"xxx"}', "", 3),
        (gzip.compress(b'{"model":"m","input":"xxx"}'), "Content-Encoding: gzip\r\n", 3),
        (b'{"model":"m","input":"%b"}' % (b"x" * MOST_SHOWN), "", 0),
        (b'{"model":"m","input":"faulty x"}', "", 1),
    ],
    ids=["plain", "packed", "too large", "a meter at fault"],
)
async def test_a_meter_is_shown_what_was_asked(start: Start, body: bytes, coding: str, characters: int) -> None:
    aimux, records = await start(), list[RequestRecord]()
    aimux.app.records.add(records.append)
    assert status_of(await aimux.send(request(body=body, headers=coding))) == 200
    (record,) = records
    assert record.usage is not None
    assert record.usage.characters == characters
