"""Limits through the API: what scripts rely on, who may not, and that a change holds from the next request on."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from aimux.plugin import LimitWindow
from tests.control.conftest import Aimux, Start

TOKEN = "alice-token-0123456789abcdef"
USERS = [{"name": "alice", "token": TOKEN, "groups": ["research"]}, {"name": "bob", "token": TOKEN + "b"}]
SOON = (datetime.now(UTC) + timedelta(days=2)).isoformat(timespec="seconds")


@pytest.fixture
async def aimux(start: Start) -> Aimux:
    return await start(
        users=USERS, limits={"default": {"tokens_per_day": 10**9}, "users": {"bob": {"cost_per_day": 3}}}
    )


async def put(aimux: Aimux, path: str, body: object, expect: int = 200) -> Any:
    status, _, answer = await aimux.send("PUT", path, json=body)
    assert status == expect, answer
    return answer


async def asks(aimux: Aimux) -> int:
    return (await aimux.message(authorization=f"Bearer {TOKEN}"))[0]


async def test_what_is_set_is_what_is_shown_and_holds_at_once(aimux: Aimux) -> None:
    assert await asks(aimux) == 200
    limits = {"requests_per_minute": 1, "cost_per_week": 2.5, "concurrent_requests": 4}
    assert await put(aimux, "/limits/user/alice", limits) == limits
    assert await aimux.get("/limits/user/alice") == limits
    assert [await asks(aimux) for _ in range(2)] == [200, 429]
    assert await put(aimux, "/limits/user/alice", {"tokens_per_month": 5}) == {"tokens_per_month": 5}
    assert await asks(aimux) == 429
    assert (await aimux.send("DELETE", "/limits/user/alice"))[0] == 204
    assert (await aimux.send("DELETE", "/limits/user/alice"))[0] == 404
    assert await aimux.get("/limits/user/alice") == {}
    assert await asks(aimux) == 200


async def test_an_empty_body_takes_no_limit_away(aimux: Aimux) -> None:
    """It is what a script sends whose variable is not set."""
    limits = await put(aimux, "/limits/user/alice", {"cost_per_day": 5})
    status, _, told = await aimux.send("PUT", "/limits/user/alice")
    assert (status, told["remedy"]) == (422, "send {} if nothing of it is to be left")
    assert await aimux.get("/limits/user/alice") == limits


async def test_changes_at_the_same_time_are_all_kept(aimux: Aimux) -> None:
    held = {"models": {"claude-*": {"cost_per_day": 5}}, "weight": 3, "overage": "forbid", "tokens_per_day": 9}
    await put(aimux, "/limits/user/alice", held)
    changes: list[dict[str, Any]] = [
        {"tokens_per_day": None, "overage": "allow"},
        {"cost_per_week": 20},
        {"requests_per_minute": 7},
        {"models": {"claude-*": {"cost_per_day": None}, "gpt-*": {"tokens_per_day": 3}}},
        {"providers": {"claude": {"cost_per_day": 4}}},
        {"providers": {"chatgpt": None}},
    ]
    answers = await asyncio.gather(*[aimux.send("PATCH", "/limits/user/alice", json=one) for one in changes])
    assert {status for status, _, _ in answers} == {200}
    assert await aimux.get("/limits/user/alice") == {
        "cost_per_week": 20,
        "requests_per_minute": 7,
        "models": {"gpt-*": {"tokens_per_day": 3}},
        "providers": {"claude": {"cost_per_day": 4}},
        "weight": 3,
    }
    for body, status in (({"each": {"tokens_per_day": 1}}, 422), ({"overage": None}, 422), ({"tokens": 1}, 422)):
        assert (await aimux.send("PATCH", "/limits/user/alice", json=body))[0] == status
    assert (await aimux.send("PATCH", "/limits/user/bob", json={"cost_per_day": 1}))[0] == 409


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
async def test_a_provider_that_is_not_there_has_no_limits(aimux: Aimux, method: str) -> None:
    for amounts in ({"cost_per_day": 5}, {"overage": "forbid"}):
        status, _, told = await aimux.send(method, "/limits/user/alice", json={"providers": {"cloud": amounts}})
        assert status == 422
        assert told["detail"].startswith("There is no provider 'cloud'; there are: ")
    assert await aimux.get("/limits/user/alice") == {}
    status, _, _ = await aimux.send(
        "PATCH", "/limits/user/alice", json={"providers": {"cloud": {"cost_per_day": None}}}
    )
    assert status == 200


async def test_a_kind_that_there_is_not_is_told_which_there_are(aimux: Aimux) -> None:
    status, _, told = await aimux.send("GET", "/limits/users/alice")
    assert (status, told["detail"]) == (404, "The kind in this path can be 'user', 'group' or 'token'.")


async def test_a_model_that_can_be_no_pattern_is_refused_with_what_to_write(aimux: Aimux) -> None:
    body = {"models": {"*opus*": {"cost_per_day": 1}, "/(/": {"cost_per_day": 1}}}
    status, _, told = await aimux.send("PUT", "/limits/user/alice", json=body)
    assert (status, told["remedy"]) == (
        422,
        "write a regular expression between slashes: /…/; write it as Python's `re` does",
    )
    assert told["errors"][0] == {"where": "body.models.*opus*", "message": "has a `*` before its end"}


async def test_it_outlives_a_restart(start: Start, aimux: Aimux) -> None:
    await put(aimux, "/limits/group/research", {"requests_per_minute": 0, "each": {"cost_per_day": 5}, "weight": 2})
    again = await start(users=USERS)
    assert await asks(again) == 429
    assert await again.get("/limits/group/research") == {
        "requests_per_minute": 0,
        "each": {"cost_per_day": 5},
        "weight": 2,
    }


async def test_a_grant_is_on_top_of_a_limit(aimux: Aimux) -> None:
    await put(aimux, "/limits/user/alice", {"tokens_per_day": 0})
    assert await asks(aimux) == 429
    path = "/limits/user/alice/grants"
    grant = await aimux.post(path, {"limit": "tokens_per_day", "amount": 100_000, "until": SOON}, expect=201)
    assert (grant["limit"], grant["amount"], grant["kind"], grant["name"]) == (
        "tokens_per_day",
        100_000,
        "user",
        "alice",
    )
    assert datetime.fromisoformat(grant["until"]) == datetime.fromisoformat(SOON)
    assert await asks(aimux) == 200
    assert (await aimux.get(path))["items"] == [grant]
    (noted,) = [one for one in (await aimux.get("/audit"))["items"] if one["action"] == "limits.grant"]
    assert noted["after"]["until"] == datetime.fromisoformat(SOON).isoformat()
    refused = await aimux.post(path, {"limit": "cost_per_day", "amount": 1, "until": SOON}, expect=409)
    assert refused["type"] == "urn:aimux:no-limit"
    part = {"tokens_per_day": 0, "providers": {"claude": {"cost_per_day": 1}}}
    await put(aimux, "/limits/user/alice", part)
    refused = await aimux.post(path, {"limit": "cost_per_day", "amount": 1, "until": SOON}, expect=409)
    assert refused["detail"].startswith("The user 'alice' has no total limit cost_per_day")
    await aimux.post(path, {"limit": "tokens_per_day", "amount": 1, "until": "2020-01-01T00:00:00Z"}, expect=422)
    await aimux.post(path, {"limit": "tokens_per_day", "amount": 0, "until": SOON}, expect=422)
    await aimux.post(path, {"limit": "tokens_per_day", "amount": 0.5, "until": SOON}, expect=422)
    refused = await aimux.post(path, {"limit": "tokens_per_day", "amount": 1, "until": "soon"}, expect=422)
    assert "write 3d, 12h, friday" in refused["detail"]


async def test_whoever_is_granted_something_sees_when_it_ends(aimux: Aimux) -> None:
    """Only what holds now, and with the amount that it is a part of."""
    await put(aimux, "/limits/user/alice", {"cost_per_week": 1, "models": {"claude-*": {"cost_per_week": 9}}})
    later = (datetime.now(UTC) + timedelta(days=9)).isoformat(timespec="seconds")
    for amount, until in ((20, later), (0.5, SOON)):
        grant = {"limit": "cost_per_week", "amount": amount, "until": until}
        await aimux.post("/limits/user/alice/grants", grant, expect=201)
    _, _, told = await aimux.send("GET", "/me/limits", headers={"authorization": f"Bearer {TOKEN}"})
    found = {(one["scope"], one["limit"]): one for one in told["items"]}
    mine = found["", "cost_per_week"]
    assert mine["amount"] == 21.5
    assert [one["amount"] for one in mine["granted"]] == [0.5, 20]
    ends = [datetime.fromisoformat(one["until"]) for one in mine["granted"]]
    assert ends == [datetime.fromisoformat(SOON), datetime.fromisoformat(later)]
    assert found["claude-*", "cost_per_week"]["granted"] == found["", "tokens_per_day"]["granted"] == []


async def test_a_grant_until_a_day_ends_with_it_in_the_zone_of_the_limits(start: Start) -> None:
    zone = ZoneInfo("Pacific/Kiritimati")
    aimux = await start(users=USERS, limits={"default": {"tokens_per_day": 10**9}, "time_zone": zone.key})
    day = (datetime.now(zone) + timedelta(days=3)).date()
    grant = {"limit": "tokens_per_day", "amount": 5, "until": f"{day}"}
    told = await aimux.post("/limits/user/alice/grants", grant, expect=201)
    assert told["until"] == f"{day + timedelta(days=1)}T00:00:00+14:00"
    by_name = await aimux.post("/limits/user/alice/grants", grant | {"until": f"{day:%A}"}, expect=201)
    assert by_name["until"] == told["until"]


@pytest.mark.parametrize(
    ("limit", "amount", "why"),
    [
        ("cost_per_day", 1e15, "A grant of cost_per_day is at most 1,000,000,000 dollars."),
        ("concurrent_requests", 1.5, "A grant of concurrent_requests is a whole number."),
    ],
)
async def test_a_grant_is_an_amount_that_the_limit_could_be(aimux: Aimux, limit: str, amount: float, why: str) -> None:
    await put(aimux, "/limits/user/alice", {limit: 5})
    grant = {"limit": limit, "amount": amount, "until": SOON}
    assert (await aimux.post("/limits/user/alice/grants", grant, expect=422))["detail"] == why


async def test_less_than_is_counted_is_refused_with_words(aimux: Aimux) -> None:
    refused = await put(aimux, "/limits/user/alice", {"cost_per_week": 1e-10}, 422)
    assert "billionths of a dollar" in str(refused)
    grant = {"limit": "cost_per_day", "amount": 1e-10, "until": SOON}
    told = await aimux.post("/limits/user/bob/grants", grant, expect=422)
    assert told["detail"] == "A grant of cost_per_day is at least a billionth of a dollar (0.000000001)."


async def test_a_list_tells_who_has_which_and_what_is_used(aimux: Aimux) -> None:
    assert await asks(aimux) == 200
    await put(aimux, "/limits/user/alice", {"tokens_per_day": 1000, "models": {"claude-*": {"cost_per_day": 9}}})
    assert await asks(aimux) == 200
    items = {(item["kind"], item["name"]): item for item in (await aimux.get("/limits"))["items"]}
    assert items["default", ""]["limits"] == {"tokens_per_day": 10**9}
    assert items["default", ""]["configured"] is items["user", "bob"]["configured"] is True
    alice = items["user", "alice"]
    assert alice["configured"] is False
    used = {(one["scope"], one["limit"]): one for one in alice["usage"]}
    assert used["", "tokens_per_day"]["used"] > 0
    assert used["claude-*", "cost_per_day"]["amount"] == 9
    assert used["", "tokens_per_day"]["resets_at"].endswith("T00:00:00Z")


async def test_what_stands_in_the_configuration_is_changed_there(aimux: Aimux) -> None:
    answer = await put(aimux, "/limits/user/bob", {"cost_per_day": 4}, expect=409)
    assert answer["type"] == "urn:aimux:configured"
    assert "limits.users.bob" in answer["remedy"]
    assert (await aimux.send("DELETE", "/limits/user/bob"))[0] == 409
    assert await aimux.get("/limits/user/bob") == {"cost_per_day": 3}


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/limits/user/nobody", {"tokens_per_day": 1}, 404),
        ("/limits/group/nobody", {"tokens_per_day": 1}, 404),
        ("/limits/token/nobody", {"tokens_per_day": 1}, 404),
        ("/limits/account/x", {"tokens_per_day": 1}, 404),
        ("/limits/user/alice", {"tokens_per_hour": 1}, 422),
        ("/limits/user/alice", {"tokens_per_day": -1}, 422),
        ("/limits/user/alice", {"tokens_per_day": "5"}, 422),
        ("/limits/user/alice", {"tokens_per_day": 1.5}, 422),
        ("/limits/user/alice", {"each": {"tokens_per_day": 1}}, 422),
        ("/limits/user/alice", {"models": {"/(/": {}}}, 422),
        ("/limits/user/alice", {"models": {"": {"tokens_per_day": 1}}}, 422),
        ("/limits/user/alice", {"requests_per_minute": True}, 422),
    ],
)
async def test_what_does_not_fit_changes_nothing(aimux: Aimux, path: str, body: object, status: int) -> None:
    await put(aimux, path, body, expect=status)
    assert len((await aimux.get("/limits"))["items"]) == 2


async def test_a_refused_request_says_which_limit_it_was_and_who_set_it(start: Start, aimux: Aimux) -> None:
    sent = {"authorization": f"Bearer {TOKEN}"}
    for kind, name, limits, owner, set_by in (
        ("group", "research", {"each": {"tokens_per_day": 0}}, "user:alice", "member:research"),
        ("user", "alice", {"tokens_per_day": 0}, "user:alice", "user:alice"),
        ("group", "research", {"cost_per_day": 0}, "group:research", "group:research"),
    ):
        await put(aimux, f"/limits/{kind}/{name}", limits)
        status, headers = await aimux.message(**sent)
        assert status == 429
        told = await aimux.get(f"/requests/{headers['x-request-id']}")
        limit = told["limit"]
        assert (limit["owner"], limit["set_by"]) == (owner, set_by)
        assert (limit["used"], limit["amount"], limit["scope"]) == (0, 0, "")
        assert datetime.fromisoformat(limit["free_at"]) > datetime.now(UTC)
        await aimux.send("DELETE", f"/limits/{kind}/{name}")
    await aimux.get("/requests")  # which waits for the ledger
    again = await start(users=USERS, limits={"default": {"tokens_per_day": 0}})
    assert (await again.get(f"/requests/{told['id']}"))["limit"] == limit
    status, headers = await again.message(**sent)
    limit = (await again.get(f"/requests/{headers['x-request-id']}"))["limit"]
    assert (status, limit["limit"], limit["set_by"], limit["amount"]) == (429, "tokens_per_day", "default", 0)
    assert (await again.get("/limits/group/research/usage"))["items"] == []
    (holds,) = (await again.get("/limits/user/alice/usage"))["items"]
    assert (holds["limit"], holds["owner"], holds["set_by"]) == ("tokens_per_day", "user:alice", "default")
    own = (await again.send("GET", "/me/limits", headers=sent))[2]["items"]
    assert [(one["owner"], one["set_by"]) for one in own] == [("user:alice", "default")]


async def test_a_member_sees_the_own_requests_alone_and_no_accounts(aimux: Aimux) -> None:
    await put(aimux, "/limits/user/alice", {"tokens_per_day": 0})
    alices, bobs = ({"authorization": f"Bearer {token}"} for token in (TOKEN, TOKEN + "b"))
    refused = (await aimux.message(**alices))[1]["x-request-id"]
    served = (await aimux.message(**bobs))[1]["x-request-id"]
    status, _, told = await aimux.send("GET", f"/me/requests/{refused}", headers=alices)
    assert (status, told["status"], told["limit"]["set_by"]) == (200, 429, "user:alice")
    assert (await aimux.send("GET", f"/me/requests/{served}", headers=alices))[0] == 404
    assert (await aimux.send("GET", f"/me/requests/{served}"))[0] == 404, "the key of the installation is nobody's"
    assert (await aimux.send("GET", f"/requests/{refused}", headers=alices))[0] == 403
    for found in (
        (await aimux.send("GET", "/me/requests", headers=bobs))[2]["items"][0],
        (await aimux.send("GET", f"/me/requests/{served}", headers=bobs))[2],
    ):
        assert (found["id"], found["status"], found["limit"]) == (served, 200, None)
        assert (found["account"], found["steps"], found["choices"]) == ("", [], [])
    assert (await aimux.get("/me/requests"))["items"] == []
    status, _, refusal = await aimux.send("GET", "/me/requests?until=tomorrow")
    assert (status, refusal["type"]) == (422, "urn:aimux:invalid"), "whoever asks"


async def test_a_tokens_limits_are_its_own(aimux: Aimux) -> None:
    assert await asks(aimux) == 200
    token = next(iter(aimux.app.people.directory.configured.hashes.values())).id
    await put(aimux, f"/limits/token/{token}", {"requests_per_minute": 0})
    assert await asks(aimux) == 429


async def test_notices_are_listed_newest_first(aimux: Aimux) -> None:
    assert (await aimux.get("/notices"))["items"] == []
    await put(aimux, "/limits/user/alice", {"tokens_per_day": 1})
    assert await asks(aimux) == 200
    [notice] = (await aimux.get("/notices"))["items"]
    assert (notice["event"], notice["about"]) == ("limit", "user:alice")
    assert notice["details"]["limit"] == "tokens_per_day"


def told(aimux: Aimux, name: str, *windows: LimitWindow) -> None:
    """An answer of the account tells its windows."""
    aimux.app.pools["claude"].accounts[name].observe(windows, time.time())


async def test_a_person_sees_what_is_forbidden_and_what_is_refused_because_of_it(start: Start) -> None:
    limits = {
        "default": {"providers": {"claude": {"overage": "forbid"}}},
        "groups": {"research": {"each": {"long_context": "forbid"}}},
    }
    aimux = await start(users=USERS, limits=limits)
    sent = {"authorization": f"Bearer {TOKEN}"}
    sent_bob = {"authorization": f"Bearer {TOKEN}b"}

    async def own(**headers: str) -> tuple[list[dict[str, Any]], str]:
        forbidden = (await aimux.send("GET", "/me/limits", headers=headers))[2]["forbidden"]
        serving = (await aimux.send("GET", "/me/providers", headers=headers))[2]["items"]
        return forbidden, next(one["status"] for one in serving if one["provider"] == "claude")

    overage = {"what": "overage", "set_by": "default", "scope": "claude", "refused": []}
    long = {"what": "long_context", "set_by": "member:research", "scope": "", "refused": []}
    assert await own(**sent) == ([long, overage], "serving")
    assert await own(**sent_bob) == ([overage], "serving")
    assert (await aimux.get("/limits/user/alice/usage"))["forbidden"] == [long, overage]
    assert (await aimux.get("/limits/group/research/usage"))["forbidden"] == [long]

    now = time.time()
    soon, later = round(now) + 3600.0, round(now) + 90_000.0
    some = LimitWindow("7d_oi", 1.0, later, scope="oi")
    told(aimux, "default", LimitWindow("5h", 0.9, soon), some)
    aimux.app.pools["claude"].accounts["default"].quota.note_paid("claude-opus-5", now)
    [refused] = (await own(**sent_bob))[0][0]["refused"]
    assert (refused["provider"], refused["model"]) == ("claude", "claude-opus-5")
    assert datetime.fromisoformat(refused["until"]).timestamp() == later
    assert datetime.fromisoformat(refused["since"]).timestamp() == pytest.approx(now, abs=1e-3)

    before = time.time()
    told(aimux, "default", LimitWindow("5h", 1.0, soon))
    ((forbidden,), status) = await own(**sent_bob)
    [refused] = forbidden["refused"]
    assert (refused["provider"], refused["model"], status) == ("claude", "", "limited")
    assert datetime.fromisoformat(refused["until"]).timestamp() == soon
    assert before - 1e-3 <= datetime.fromisoformat(refused["since"]).timestamp() <= time.time()
    assert await asks(aimux) == 429
    told(aimux, "default", LimitWindow("5h", 0.0, soon))
    assert (await own(**sent_bob))[1] == "serving"


async def test_a_group_and_a_token_are_shown_what_is_refused_to_them_now(start: Start) -> None:
    aimux = await start(users=USERS)
    for name, scopes in (("papers", ["provider:chatgpt"]), ("everybody", [])):
        await aimux.post("/groups", {"name": name, "scopes": scopes}, expect=201)
    token = await aimux.post("/tokens", {"user": "bob"}, expect=201)
    for path in ("/limits/group/papers", "/limits/group/everybody", f"/limits/token/{token['id']}"):
        await put(aimux, path, {"overage": "forbid"})
    now = time.time()
    told(aimux, "default", LimitWindow("5h", 1.0, now + 3600))

    async def refused(path: str) -> list[tuple[str, str]]:
        [forbidden] = (await aimux.get(f"{path}/usage"))["forbidden"]
        assert all(datetime.fromisoformat(one["since"]).timestamp() >= now - 1e-3 for one in forbidden["refused"])
        return [(one["provider"], one["model"]) for one in forbidden["refused"]]

    assert await refused("/limits/group/everybody") == [("claude", "")]
    assert await refused("/limits/group/papers") == [], "its members may not use that provider anyway"
    assert await refused(f"/limits/token/{token['id']}") == [("claude", "")]
