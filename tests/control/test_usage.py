"""Usage as the API tells it: exact, and in the form that scripts rely on."""

from __future__ import annotations

import contextlib
import csv
import io
import json
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from datetime import datetime
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest

from aimux.metering.record import RequestRecord
from aimux.metering.windows import Sampler
from aimux.plugin.types import LimitWindow
from aimux.simulator import Simulator
from tests.control.conftest import MESSAGE, Aimux, Start
from tests.metering.support import NOON, record

ANN, BOB = "a-users-own-token-123", "another-users-token-45"
USERS = [{"name": "ann", "token": ANN, "groups": ["red"]}, {"name": "bob", "token": BOB}]
CODEX = {
    "model": "gpt-5.5",
    "instructions": "You help.",
    "input": [{"role": "user", "content": "word " * 200}],
    "store": False,
}
SPAN = "since=2026-11-20&until=2026-11-27"


PRICES = {"input": 3, "output": 15, "cache_read": 0.3, "cache_write": 3, "cache_write_1h": 6, "reasoning": 20}


async def filled(start: Start, records: Sequence[RequestRecord], **settings: Any) -> Aimux:
    aimux = await start(users=USERS, prices={"sonnet": PRICES}, **settings)
    for one in records:
        aimux.app.metering.ledger.record(one)
    await aimux.app.metering.ledger.catch_up(30)  # a reader waits 3 s, and opening the database may take longer
    return aimux


async def test_the_form_is_fixed(start: Start) -> None:
    usage = {"cache_read_tokens": 1000, "cache_write_tokens": 7, "reasoning_tokens": 2}
    aimux = await filled(start, [record(usage=usage), record(usage={"model": "no-such-model"}), record(user="bob")])
    assert await aimux.get(f"/usage?by=user&{SPAN}") == {
        "by": "user",
        "items": [
            {
                "user": "ann",
                "requests": 2,
                "input_tokens": 20,
                "output_tokens": 10,
                "cache_read_tokens": 1000,
                "cache_write_tokens": 7,
                "reasoning_tokens": 2,
                "cost_usd": 0.000436,
                "unpriced_requests": 1,
            },
            {
                "user": "bob",
                "requests": 1,
                "input_tokens": 10,
                "output_tokens": 5,
                "cache_read_tokens": 0,
                "cache_write_tokens": 0,
                "reasoning_tokens": 0,
                "cost_usd": 0.000105,
                "unpriced_requests": 0,
            },
        ],
        "total": {
            "requests": 3,
            "input_tokens": 30,
            "output_tokens": 15,
            "cache_read_tokens": 1000,
            "cache_write_tokens": 7,
            "reasoning_tokens": 2,
            "cost_usd": 0.000541,
            "unpriced_requests": 1,
        },
        "series": None,
        "kinds": None,
        "unread": 0,
        "next": None,
    }


async def test_a_real_request_is_there_at_once(start: Start) -> None:
    aimux = await start(users=USERS)
    assert (await aimux.message(authorization=f"Bearer {ANN}"))[0] == 200
    for by, name in {"user": "ann", "group": "red", "account": "claude/default", "provider": "claude"}.items():
        (item,) = (await aimux.get(f"/usage?by={by}&since=1h"))["items"]
        assert (item[by], item["requests"]) == (name, 1)
        assert item["output_tokens"] > 0
    (listed,) = (await aimux.get("/requests?since=1h"))["items"]
    assert (listed["user"], listed["status"], listed["account"]) == ("ann", 200, "default")
    assert listed["tokens"]["output"] == item["output_tokens"]
    assert listed["client"]


async def test_what_was_begun_and_nobody_has_read_is_told(start: Start) -> None:
    aimux = await start(users=USERS)
    deposits, batches = aimux.app.deposits, f"{aimux.url}/claude/v1/messages/batches"
    headers = {"authorization": f"Bearer {ANN}", "anthropic-version": "2023-06-01"}
    wanted = {"requests": [{"custom_id": "q", "params": MESSAGE}]}

    async def unread(query: str = "") -> int | None:
        while deposits.deposits.fresh or deposits.deposits.claims:
            await deposits.flush()
        return (await aimux.get(f"/usage?since=1h{query}"))["unread"]  # type: ignore[no-any-return]

    async with aiohttp.ClientSession(headers=headers) as session:
        async with session.post(batches, json=wanted) as answer:
            one = (await answer.json())["id"]
        assert [await unread(query) for query in ("", "&user=ann&by=day", "&user=bob", "&model=m", "&provider=x")] == [
            1,
            1,
            0,
            None,
            0,
        ]
        own = {"authorization": f"Bearer {ANN}"}
        async with session.get(f"{aimux.url}/api/v1/me/usage", headers=own) as answer:
            assert (await answer.json())["unread"] == 1
        async with session.get(f"{batches}/{one}") as answer:
            await answer.read()
        async with session.get(f"{batches}/{one}/results") as answer:
            await answer.read()
        assert await unread() == 0


@pytest.mark.parametrize(
    ("path", "account", "body"),
    [
        ("/claude/v1/messages", "claude", {**MESSAGE, "messages": CODEX["input"]}),
        ("/chatgpt/v1/responses", "chatgpt", CODEX),
    ],
)
@pytest.mark.parametrize(("scenario", "error"), [("cut:8", "upstream_lost"), ("overload:8", "upstream_failed")])
async def test_what_fails_in_the_middle_counts_with_an_estimate(
    start: Start, sim: Simulator, path: str, account: str, body: Mapping[str, Any], scenario: str, error: str
) -> None:
    aimux = await start(users=USERS)
    async with aiohttp.ClientSession() as session:
        for one in (scenario, "ok"):
            sim.accounts[account].script(one)
            headers = {"authorization": f"Bearer {ANN}", "x-request-id": one, "anthropic-version": "2023-06-01"}
            with contextlib.suppress(aiohttp.ClientError):
                async with session.post(f"{aimux.url}{path}", json={**body, "stream": True}, headers=headers) as answer:
                    await answer.read()
    failed, whole = [await aimux.get(f"/requests/{one}") for one in (scenario, "ok")]
    assert (failed["status"], failed["error"], failed["estimated"]) == (200, error, True)
    assert (whole["error"], whole["estimated"]) == ("", False)
    assert failed["tokens"]["input"] > 0
    assert 0 < failed["tokens"]["output"] < whole["tokens"]["output"]


@pytest.mark.parametrize(
    ("by", "names"),
    [
        ("model", ["opus", "sonnet"]),
        ("token", ["t1"]),
        ("class", ["main"]),
        ("conversation", ["talk"]),
        ("day", ["2026-11-25", "2026-11-26"]),
        ("hour", ["2026-11-25T12:00:00Z", "2026-11-26T12:00:00Z"]),
    ],
)
async def test_the_key_is_named_after_what_was_asked(start: Start, by: str, names: list[str]) -> None:
    sender = {"request_class": "main"}
    some = [record(sender=sender), record(NOON - 86400, sender=sender, usage={"model": "opus"})]
    aimux = await filled(start, some)
    items = (await aimux.get(f"/usage?by={by}&{SPAN}"))["items"]
    assert sorted(item[by] for item in items) == names


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


async def test_cost_by_kind_and_what_the_cache_saved(start: Start) -> None:
    """At 3 $ a million tokens of input and 0.30 $ out of the cache, and 6 $ into it for an hour; thinking is 20 $ of
    15 $ of output."""
    tokens = {"input_tokens": 10**6, "output_tokens": 10**6, "cache_read_tokens": 10**7}
    tokens |= {"cache_write_tokens": 3 * 10**6, "cache_write_1h_tokens": 10**6, "reasoning_tokens": 4 * 10**5}
    aimux = await filled(start, [record(usage=tokens), record(usage={**tokens, "model": "no-such-model"})])
    usage = await aimux.get(f"/usage?by=user&{SPAN}&kinds=true")
    assert usage["kinds"] == {"input": 3, "output": 17, "cache_read": 3, "cache_write": 12, "saved": 24}
    assert usage["total"]["cost_usd"] == 35
    assert usage["items"] == (await aimux.get(f"/usage?by=user&{SPAN}"))["items"]


async def test_pages_follow_each_other(start: Start) -> None:
    aimux = await filled(start, [record(user=f"u{number}", conversation=f"c{number}") for number in range(7)])
    for by in ("user", "conversation", "hour"):
        found, after = [], ""
        while True:
            page = await aimux.get(f"/usage?by={by}&{SPAN}&limit=3{after}")
            found += [item[by] for item in page["items"]]
            assert page["total"]["requests"] == 7
            if page["next"] is None:
                break
            after = f"&after={page['next']}"
        assert len(found) == len(set(found)) == (1 if by == "hour" else 7)
    listed, after = [], ""
    while True:
        page = await aimux.get(f"/requests?{SPAN}&limit=3{after}")
        listed += [item["user"] for item in page["items"]]
        if page["next"] is None:
            break
        after = f"&after={page['next']}"
    assert sorted(listed) == [f"u{number}" for number in range(7)]


async def test_a_page_ends_with_any_name_that_there_can_be(start: Start) -> None:
    long = [record(user="\N{FOX FACE}" * 99 + end, conversation="\N{FOX FACE}" * 127 + end) for end in "ab"]
    aimux = await filled(start, long)
    query = f"/usage?by=conversation&{SPAN}&limit=1"
    first = await aimux.get(query)
    second = await aimux.get(f"{query}&after={first['next']}")
    assert [page["items"][0]["user"] for page in (first, second)] == [one.user for one in long]
    assert second["next"] is None


async def test_csv_is_for_who_accepts_it(start: Start) -> None:
    aimux = await filled(start, [record(conversation="=cmd|' /C calc'!A0"), record(user="bob, the second")])
    status, headers, text = await aimux.send("GET", f"/usage?{SPAN}", headers={"accept": "text/csv"})
    assert (status, headers["content-type"]) == (200, "text/csv; charset=utf-8")
    names, *rows = csv.reader(io.StringIO(text))
    assert names[:3] == ["user", "requests", "input_tokens"]
    assert sorted(row[0] for row in rows) == ["ann", "bob, the second"]
    _, _, text = await aimux.send("GET", f"/usage?by=conversation&{SPAN}", headers={"accept": "text/csv"})
    cells = [row[0] for row in csv.reader(io.StringIO(text))]
    assert "'=cmd|' /C calc'!A0" in cells, "no spreadsheet runs it"
    for accept, kind in (
        ("application/json, text/csv", "application/json"),
        ("text/csv;q=0.1, application/json", "application/json"),
        ("text/csv; q=0", "application/json"),
        ("*/*", "application/json"),
        ("application/json;q=0.5, Text/CSV; charset=utf-8", "text/csv; charset=utf-8"),
    ):
        _, headers, _ = await aimux.send("GET", f"/usage?{SPAN}", headers={"accept": accept})
        assert headers["content-type"] == kind, accept
    for path in (f"/requests?{SPAN}", f"/usage/series?{SPAN}&bucket=hour"):
        _, headers, text = await aimux.send("GET", path, headers={"accept": "text/csv"})
        first, *_ = csv.DictReader(io.StringIO(text))
        assert first["time"] == "2026-11-26T12:00:00Z"


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("since=yesterday", "write it like 7d"),
        ("by=shoe", "by"),
        ("limit=0", "limit"),
        ("sinse=7d", "sinse"),
        ("since=2026-11-02&until=2026-11-01", "it is before `since`"),
    ],
)
async def test_what_is_asked_wrongly_is_refused(aimux: Aimux, query: str, words: str) -> None:
    status, _, problem = await aimux.send("GET", f"/usage?{query}")
    assert status == 422
    assert words in str(problem)


async def test_times_that_lie_far_away_are_times(aimux: Aimux) -> None:
    for since in ("0001-01-01", "9999-12-31", "9999-12-31T23:59:59-23:59"):
        assert (await aimux.get(f"/usage?since={since}"))["items"] == []
        assert (await aimux.get(f"/usage/series?bucket=month&since={since}"))["times"] == []


async def test_head_is_answered_like_get_without_a_body(aimux: Aimux) -> None:
    status, headers, body = await aimux.send("HEAD", "/usage")
    assert (status, headers["content-type"]) == (200, "application/json")
    assert not body


async def test_there_is_no_page_that_was_not_named(aimux: Aimux) -> None:
    for query in ("after=x", "by=conversation&after=x", "by=conversation&after=WzFd"):
        assert (await aimux.send("GET", f"/usage?{query}"))[0] == 404
    for path in ("/requests?after=x", "/me/requests?after=x", "/usage/series?after=10"):
        assert (await aimux.send("GET", path))[0] == 422, path
    for place in (
        [10**30, "x", "y"],
        [-1, "x", "y"],
        [1e300, "x", "y"],
        [1, "\x00", "y"],
        [1, "\ud800", "y"],
        [1, "x", 2],
    ):
        after = urlsafe_b64encode(json.dumps(place).encode()).decode()
        assert (await aimux.send("GET", f"/usage?by=conversation&after={after}"))[0] == 404, place
    assert (await aimux.get("/usage?after=1000"))["items"] == []
    assert (await aimux.get("/usage?since=2026-11-26&until=2026-11-26"))["items"] == []


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


async def test_one_sees_ones_own_usage_and_no_accounts_name(start: Start) -> None:
    aimux = await filled(start, [record(), record(user="bob"), record(usage={"model": "opus"})])
    aimux.key = ANN
    found = await aimux.get(f"/me/usage?{SPAN}")
    assert [item["model"] for item in found["items"]] == ["sonnet", "opus"]
    assert found["total"]["requests"] == 2
    assert (await aimux.send("GET", f"/me/usage?by=account&{SPAN}"))[0] == 422
    assert (await aimux.send("GET", f"/me/usage?user=bob&{SPAN}"))[0] == 422
    for path in (f"/usage?{SPAN}", f"/usage/series?{SPAN}", f"/requests?{SPAN}"):
        assert (await aimux.send("GET", path))[0] == 403
    assert "default" not in str(found)


async def test_requests_are_found(start: Start) -> None:
    records = [
        record(NOON - 30, status=429, error="", usage={"output_tokens": 0, "input_tokens": 0}),
        record(NOON - 20, user="bob", usage={"model": "opus"}, conversation="other"),
        record(NOON - 10, error="upstream_lost"),
        record(NOON),
    ]
    aimux = await filled(start, records)

    async def ids(query: str) -> list[str]:
        return [item["id"] for item in (await aimux.get(f"/requests?{SPAN}&{query}"))["items"]]

    a, b, c, d = (one.id for one in records)
    assert await ids("") == [d, c, b, a]
    assert await ids("user=bob") == [b]
    assert await ids("model=opus") == [b]
    assert await ids("failed=true") == [c, a]
    assert await ids("failed=false") == [d, b]
    assert await ids("status=429") == [a]
    assert await ids("conversation=other") == [b]
    assert await ids("account=claude/default&user=ann") == [d, c, a]
    assert await ids("class=nothing") == []


async def test_a_request_that_memory_has_forgotten_is_explained_from_the_ledger(start: Start) -> None:
    aimux = await start(users=USERS)
    _, headers = await aimux.message(authorization=f"Bearer {ANN}", **{"x-request-id": "build-7"})
    remembered = await aimux.get("/requests/build-7")
    await aimux.get("/usage")  # which has it written
    kept = await (await start(users=USERS)).get("/requests/build-7")
    for one in (remembered, kept):
        for rounded in ("seconds", "first_byte_seconds", "steps"):
            one.pop(rounded)
    assert kept == remembered
    assert (kept["id"], headers["x-request-id"]) == ("build-7", "build-7")
    assert (await aimux.send("GET", "/requests/build-8"))[0] == 404


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


async def test_accounts_windows_stand_beside_what_was_metered(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth was moved by 30,015 tokens, and a fifth hours later by none."""
    at = int(NOON * 1000)
    for module in ("reports", "windows"):
        monkeypatch.setattr(f"aimux.metering.{module}.now", lambda: at + 10 * 3_600_000)
    aimux = await filled(start, [record(usage={"cache_read_tokens": 30_000}, duration=9.0)])
    state = SimpleNamespace(provider="claude", name="default", limits={})
    sampler = Sampler(aimux.app.metering.database, lambda: [state])
    for hours, used in ((0.0, 0.1), (0.5, 0.2), (4.0, 0.4)):
        still = LimitWindow("7d", 0.5, NOON + 5 * 86400)
        state.limits = {"5h": LimitWindow("5h", used, NOON + 5 * 3600), "7d": still}
        await sampler.sample(at + int(hours * 3_600_000))
    window, unmoved = (await aimux.get(f"/usage/accounts?{SPAN}"))["items"]
    assert (unmoved["moved"], unmoved["tokens"], unmoved["tokens_per_percent"]) == (0, 30_015, None)
    cost = window.pop("cost_usd")
    assert cost == (await aimux.get(f"/usage?by=user&{SPAN}"))["total"]["cost_usd"] > 0
    assert window == {
        "account": "claude/default",
        "window": "5h",
        "used": 0.4,
        "resets_at": "2026-11-26T17:00:00Z",
        "moved": 0.3,
        "unexplained": 0.2,
        "requests": 1,
        "tokens": 30_015,
        "tokens_per_percent": 3001.5,
    }
