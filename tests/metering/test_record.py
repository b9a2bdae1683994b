"""The record of a request, and its way to the sinks."""

from __future__ import annotations

import logging

import pytest

from aimux.metering.record import RecordSinks, RequestRecord, new_id


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


def test_ids_are_in_the_order_of_time_and_unique() -> None:
    ids = [new_id(1_800_000_000 + number / 1000) for number in range(1000)]
    assert ids == sorted(ids)
    assert len({new_id(1.0) for _ in range(1000)}) == 1000
    assert {len(one) for one in ids} == {28}
