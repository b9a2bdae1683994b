"""Usage over time, as the API tells it for plots."""

from __future__ import annotations

from datetime import datetime

import pytest

from tests.control.conftest import Start
from tests.control.metered import SPAN, filled
from tests.metering.support import NOON, record


async def test_the_largest_are_told_over_time_and_what_is_left_as_one(start: Start) -> None:
    some = [
        record(NOON - day * 86400, user=f"u{n}", usage={"input_tokens": 10 * n}) for n in range(12) for day in (0, 1)
    ]
    aimux = await filled(start, some)
    usage = await aimux.get(f"/usage?by=user&{SPAN}&bucket=day&rank=tokens")
    names = [line["name"] for line in usage["series"]["series"]]
    assert names == ["u11", "u10", "u9", "u8", "u7", "u6", "u5", "other"]
    for measure in ("requests", "input_tokens", "cost_usd"):
        told = sum(sum(line[measure]) for line in usage["series"]["series"])
        assert told == pytest.approx(usage["total"][measure])
    (others,) = [line for line in usage["series"]["series"] if line["name"] == "other"]
    assert (others["requests"], others["input_tokens"]) == ([5, 5], [100, 100])
    few = await aimux.get(f"/usage?by=group&{SPAN}&bucket=day")
    assert [(line["name"], sum(line["requests"])) for line in few["series"]["series"]] == [("team", 24)]


@pytest.mark.parametrize("by", ["user", "group", "model"])
async def test_a_plot_is_the_same_beside_a_page_of_the_table_and_the_kinds(start: Start, by: str) -> None:
    some = [record(NOON - n * 3600, user=f"u{n}", usage={"model": f"model-{n}"}) for n in range(9)]
    aimux = await filled(start, some)
    whole = await aimux.get(f"/usage?by={by}&{SPAN}&bucket=day")
    kinds = await aimux.get(f"/usage?by={by}&{SPAN}&bucket=day&kinds=true&limit=1")
    assert kinds["series"] == whole["series"]
    assert kinds["items"] == whole["items"][:1]


async def test_a_plot_has_no_gaps(start: Start) -> None:
    records = [record(NOON - hours * 3600, user=user) for hours in (0, 0, 3) for user in ("ann", "bob", "eve")]
    aimux = await filled(start, records)
    found = await aimux.get("/usage/series?since=2026-11-26T00:00:00Z&until=2026-11-26T13:00:00Z&by=user&limit=2")
    assert found["bucket"] == "hour"
    times = [datetime.fromisoformat(time) for time in found["times"]]
    assert [time.hour for time in times] == [9, 10, 11, 12]
    assert [one["name"] for one in found["series"]] == ["ann", "bob", "other"]
    assert {tuple(one["requests"]) for one in found["series"]} == {(1, 0, 0, 2)}
    assert found["series"][0]["cost_usd"] == [0.000105, 0, 0, 0.00021]
    assert found["series"][0]["seconds"] == [1.5, 0, 0, 3]
    (whole,) = (await aimux.get(f"/usage/series?{SPAN}&bucket=day"))["series"]
    assert (whole["name"], whole["requests"]) == ("", [9])
    assert (await aimux.get("/usage/series?since=2000-01-01&bucket=hour&user=nobody"))["times"] == []


async def test_days_of_a_plot_are_those_of_the_zone(start: Start) -> None:
    aimux = await filled(start, [record()], limits={"time_zone": "Europe/Berlin"})
    found = await aimux.get(f"/usage/series?{SPAN}&bucket=day")
    assert found["times"][0] == "2026-11-26T00:00:00+01:00"
    hours = await aimux.get("/usage/series?since=2026-11-26&until=2026-11-27&bucket=hour")
    assert hours["times"][0] == "2026-11-26T12:00:00Z"


async def test_points_are_as_long_as_fits_the_span(start: Start) -> None:
    aimux = await start()
    for until, whole, split in (
        ("2024-01-04", "hour", "hour"),
        ("2024-01-05", "day", "day"),
        ("2024-04-10", "day", "day"),
        ("2024-04-11", "day", "month"),
        ("2026-03-11", "day", "month"),
        ("2026-03-12", "month", "month"),
    ):
        series = f"/usage/series?since=2024-01-01&until={until}"
        assert (await aimux.get(series))["bucket"] == whole
        assert (await aimux.get(f"{series}&by=user"))["bucket"] == split
