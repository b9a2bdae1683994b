"""How usage is asked for: pages of it, as JSON or CSV, and what is asked wrongly."""

from __future__ import annotations

import csv
import io
import json
from base64 import urlsafe_b64encode

import aiohttp
import pytest

from tests.control.conftest import Aimux, Start
from tests.control.metered import SPAN, filled
from tests.metering.support import record


async def test_pages_follow_each_other(start: Start) -> None:
    aimux = await filled(start, [record(user=f"u{number}", conversation=f"c{number}") for number in range(7)])
    for by in ("user", "conversation", "hour"):
        pages = await aimux.pages(f"/usage?by={by}&{SPAN}&limit=3")
        found = [item[by] for page in pages for item in page["items"]]
        assert {page["total"]["requests"] for page in pages} == {7}
        assert len(found) == len(set(found)) == (1 if by == "hour" else 7)
    listed = [item["user"] for page in await aimux.pages(f"/requests?{SPAN}&limit=3") for item in page["items"]]
    assert sorted(listed) == [f"u{number}" for number in range(7)]


async def test_a_page_ends_with_any_name_that_there_can_be(start: Start) -> None:
    long = [record(user="\N{FOX FACE}" * 99 + end, conversation="\N{FOX FACE}" * 127 + end) for end in "ab"]
    aimux = await filled(start, long)
    query = f"/usage?by=conversation&{SPAN}&limit=1"
    first = await aimux.get(query)
    second = await aimux.get(f"{query}&after={first['next']}")
    assert [page["items"][0]["user"] for page in (first, second)] == [one.user for one in long]
    assert second["next"] is None


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


async def test_csv_is_for_who_accepts_it(start: Start) -> None:
    formulas = ["=cmd|' /C calc'!A0", " @SUM(1)", "\N{FULLWIDTH EQUALS SIGN}1"]
    talks = [record(conversation=formula) for formula in formulas]
    aimux = await filled(start, [*talks, record(user="bob, the second")])
    status, headers, text = await aimux.send("GET", f"/usage?{SPAN}", headers={"accept": "text/csv"})
    assert (status, headers["content-type"]) == (200, "text/csv; charset=utf-8")
    names, *rows = csv.reader(io.StringIO(text))
    assert names[:3] == ["user", "requests", "input_tokens"]
    assert sorted(row[0] for row in rows) == ["ann", "bob, the second"]
    _, _, text = await aimux.send("GET", f"/usage?by=conversation&{SPAN}", headers={"accept": "text/csv"})
    cells = [row[0] for row in csv.reader(io.StringIO(text))]
    assert {f"'{formula}" for formula in formulas} <= set(cells), "no spreadsheet runs them"
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


@pytest.mark.parametrize("path", ["/usage?by=conversation", "/usage?by=user", "/requests?failed=false"])
async def test_a_page_of_csv_leads_to_the_next_one(start: Start, path: str) -> None:
    aimux = await filled(start, [record(user=name, conversation=name) for name in ("ann", "b&b <c>", "d")])
    query, seen = f"{path}&{SPAN}&limit=2".partition("?")[2], []
    while query:
        url = f"{path.partition('?')[0]}?{query}"
        status, headers, text = await aimux.send("GET", url, headers={"accept": "text/csv"})
        assert status == 200, text
        seen += [len(list(csv.DictReader(io.StringIO(text))))]
        link = headers.get("link", "")
        query = link.removeprefix("<?").removesuffix('>; rel="next"')
    assert seen == [2, 1]


async def test_the_dashboard_s_csv_has_all_of_the_table(start: Start) -> None:
    aimux = await filled(start, [record(user=f"user-{number}") for number in range(1001)])
    code = (await aimux.post("/sign-in-links", {}, expect=201))["path"].partition("code=")[2]
    page = f"{aimux.url}/dashboard"
    async with aiohttp.ClientSession() as browser:
        async with browser.post(f"{page}/sign-in", data={"code": code}, allow_redirects=False) as signed_in:
            cookie = signed_in.headers["set-cookie"].partition(";")[0]
        async with browser.get(f"{page}/usage.csv?since=2026-11-20", headers={"cookie": cookie}) as answer:
            rows = list(csv.DictReader(io.StringIO(await answer.text())))
    assert len({row["user"] for row in rows}) == 1001


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
