"""What each role may do, and what members may for themselves."""

from __future__ import annotations

from typing import Any

import pytest

from tests.control.conftest import Start
from tests.control.people import ADMIN, MEMBER, USERS, VIEWER, bearer

ELSEWHERE = {"x-forwarded-for": "203.0.113.9"}


READING = ["/users", "/groups", "/tokens", "/audit", "/accounts", "/users/mia", "/audit/verdict"]


CHANGING = [
    ("POST", "/users", {"name": "eve", "role": "admin"}),
    ("PATCH", "/users/mia", {"role": "admin"}),
    ("DELETE", "/users/mia", None),
    ("POST", "/groups", {"name": "g"}),
    ("POST", "/tokens", {"user": "ada"}),
    ("DELETE", "/tokens/tok_x", None),
    ("POST", "/tokens/tok_x/rotate", {}),
    ("POST", "/tokens/import", {"tokens": [{"sha256": "a" * 64, "user": "mia"}]}),
    ("POST", "/accounts/claude/default/disable", None),
    ("POST", "/reload", None),
]


async def test_roles_by_users_own_tokens(start: Start) -> None:
    aimux = await start(users=USERS)
    for path in READING:
        for token, status in ((MEMBER, 403), (VIEWER, 200), (ADMIN, 200)):
            assert (await aimux.send("GET", path, headers=bearer(token)))[0] == status, path
    for method, path, body in CHANGING:
        for token in (MEMBER, VIEWER):
            status, _, problem = await aimux.send(method, path, json=body, headers=bearer(token))
            assert (status, problem["type"]) == (403, "urn:aimux:role"), path
    status, _, user = await aimux.send("POST", "/users", json={"name": "eve"}, headers=bearer(ADMIN))
    assert (status, user["name"]) == (201, "eve")
    assert (await aimux.get("/audit"))["items"][0]["actor"] == "ada"


async def test_a_users_token_works_from_elsewhere_and_the_made_key_does_not(start: Start) -> None:
    aimux = await start(users=USERS, trusted_proxies=["127.0.0.0/8"])
    assert (await aimux.send("GET", "/users", headers=ELSEWHERE | bearer(VIEWER)))[0] == 200
    assert (await aimux.send("GET", "/users", headers=ELSEWHERE))[0] == 403
    assert (await aimux.send("GET", "/users", headers=ELSEWHERE | bearer("nothing-that-is-known")))[0] == 401
    status, _, problem = await aimux.send("GET", "/users", headers=ELSEWHERE | {"authorization": ""})
    assert status == 401
    assert str(aimux.state_dir) not in str(problem)
    _, _, problem = await aimux.send("GET", "/users", headers={"authorization": ""})
    assert str(aimux.state_dir / "admin.key") in problem["remedy"]


async def test_a_token_with_scopes_is_for_nothing_here(start: Start) -> None:
    aimux = await start(users=USERS, self_service=True)
    narrow = (await aimux.post("/tokens", {"user": "ada", "scopes": ["claude"]}, expect=201))["token"]
    assert (await aimux.message(**bearer(narrow)))[0] == 200
    assert (await aimux.send("GET", "/users", headers=bearer(narrow)))[0] == 403
    status, _, problem = await aimux.send("POST", "/me/tokens", json={}, headers=bearer(narrow))
    assert (status, problem["type"]) == (403, "urn:aimux:narrow")
    assert (await aimux.send("GET", "/me", headers=bearer(narrow)))[2]["role"] == "member"


async def test_a_member_sees_the_own_user_alone(start: Start) -> None:
    aimux = await start(users=USERS)
    status, _, me = await aimux.send("GET", "/me", headers=bearer(MEMBER))
    assert status == 200
    assert (me["name"], me["role"], me["self_service"]) == ("mia", "member", False)
    assert [group["name"] for group in me["groups"]] == ["dev"]
    assert [token["user"] for token in me["tokens"]] == ["mia"]
    status, _, problem = await aimux.send("POST", "/me/tokens", json={}, headers=bearer(MEMBER))
    assert (status, problem["type"]) == (403, "urn:aimux:self-service")
    assert (await aimux.get("/me"))["user"] is None


async def test_members_serve_themselves_where_they_may(start: Start) -> None:
    aimux = await start(users=USERS, self_service=True)
    theirs = (await aimux.post("/tokens", {"user": "vic"}, expect=201))["id"]

    async def own(method: str, path: str, body: Any = None, token: str = MEMBER) -> tuple[int, Any]:
        status, _, answer = await aimux.send(method, path, json=body, headers=bearer(token))
        return status, answer

    status, issued = await own("POST", "/me/tokens", {"label": "phone", "ttl": "1h"})
    assert (status, issued["user"]) == (201, "mia")
    status, rotated = await own("POST", f"/me/tokens/{issued['id']}/rotate", {})
    assert status == 201
    assert (await own("DELETE", f"/me/tokens/{rotated['id']}"))[0] == 204
    assert (await own("DELETE", f"/me/tokens/{theirs}"))[0] == 404
    assert (await own("POST", f"/me/tokens/{theirs}/rotate", {}))[0] == 404
    short = (await own("POST", "/me/tokens", {"ttl": "1h"}))[1]["token"]
    assert (await own("POST", "/me/tokens", {}, short))[1]["type"] == "urn:aimux:outlives"
    assert (await own("POST", "/me/tokens", {"ttl": "2h"}, short))[0] == 403
    assert (await own("POST", "/me/tokens", {"ttl": "10m"}, short))[0] == 201


@pytest.mark.parametrize("limits", [{"requests_per_minute": 5}, {"models": {"claude-opus-*": {"overage": "forbid"}}}])
async def test_a_token_with_limits_gets_hold_of_none_without_them(start: Start, limits: dict[str, Any]) -> None:
    aimux = await start(users=USERS, self_service=True)
    limited = await aimux.post("/tokens", {"user": "mia"}, expect=201)
    other = await aimux.post("/tokens", {"user": "mia"}, expect=201)
    assert (await aimux.send("PUT", f"/limits/token/{limited['id']}", json=limits))[0] == 200

    async def own(path: str, body: Any, token: str) -> tuple[int, Any]:
        status, _, answer = await aimux.send("POST", f"/me/tokens{path}", json=body, headers=bearer(token))
        return status, answer

    async def refused(token: str) -> None:
        for path in ("", f"/{other['id']}/rotate"):
            status, problem = await own(path, {"ttl": "1m"}, token)
            assert (status, problem["type"]) == (403, "urn:aimux:limited"), path

    await refused(limited["token"])
    status, instead = await own(f"/{limited['id']}/rotate", {"overlap": "1h"}, limited["token"])
    assert status == 201, "it has the same limits"
    await refused(limited["token"])
    await refused(instead["token"])
    assert (await own("", {}, other["token"]))[0] == 201
