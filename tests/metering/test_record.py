"""The record of a request, and its way to the sinks."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from aimux.metering.record import RecordSinks, RequestRecord, new_id

if TYPE_CHECKING:
    from collections.abc import Callable


def test_a_sink_that_fails_takes_the_record_from_nobody(caplog: pytest.LogCaptureFixture) -> None:
    def broken(record: RequestRecord) -> None:
        raise RuntimeError("a plugin's fault")

    got: list[RequestRecord] = []
    sinks = RecordSinks(got.append, broken)
    sinks.add(got.append)
    record = RequestRecord("own", 0.0, "GET", "/", "its-id")
    with caplog.at_level(logging.ERROR):
        sinks(record)
    assert got == [record, record]
    assert "its-id" in caplog.text


def test_what_ends_in_one_round_goes_to_one_sink_after_the_other_behind_it() -> None:
    got: list[tuple[str, str]] = []
    later: list[Callable[[], object]] = []
    sinks = RecordSinks(lambda record: got.append(("a", record.id)), lambda record: got.append(("b", record.id)))
    sinks.soon = later.append
    for name in ("1", "2"):
        sinks(RequestRecord(name, 0.0, "GET", "/"))
    assert (got, len(later)) == ([], 1)
    later[0]()
    assert got == [("a", "1"), ("a", "2"), ("b", "1"), ("b", "2")]
    assert not sinks.flush()
    sinks(RequestRecord("3", 0.0, "GET", "/"))
    assert len(later) == 2
    assert sinks.flush()
    later[1]()
    assert got[4:] == [("a", "3"), ("b", "3")]


def test_ids_are_in_the_order_of_time_and_unique() -> None:
    ids = [new_id(1_800_000_000 + number / 1000) for number in range(1000)]
    assert ids == sorted(ids)
    assert len({new_id(1.0) for _ in range(1000)}) == 1000
    assert {len(one) for one in ids} == {28}
