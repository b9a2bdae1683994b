"""Users, groups and who reaches what, by the API."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from aimux.people.tokens import SHOWN, form
from tests.control.conftest import Aimux, Start
from tests.control.people import ADMIN, MEMBER, USERS, VIEWER, bearer


async def test_a_user_is_added_given_a_token_and_may_call(aimux: Aimux) -> None:
    await aimux.post("/groups", {"name": "dev"}, expect=201)
    user = await aimux.post(
        "/users", {"name": "ann", "email": "ann@example.com", "role": "viewer", "groups": ["dev"]}, expect=201
    )
    assert (user["name"], user["role"], user["groups"], user["enabled"]) == ("ann", "viewer", ["dev"], True)
    issued = await aimux.post(
        "/tokens", {"user": "ann", "label": "laptop", "ttl": "30d", "scopes": ["claude"]}, expect=201
    )
    assert issued.keys() == {"id", "token", "user", "label", "expires_at"}
    assert form(issued["token"]) == "whole"
    assert (await aimux.message(**bearer(issued["token"])))[0] == 200
    listed = await aimux.get("/tokens?user=ann")
    assert listed["next"] is None
    [token] = listed["items"]
    assert (token["id"], token["state"], token["scopes"]) == (issued["id"], "active", ["provider:claude"])
    assert token["shown"] == issued["token"][:SHOWN]
    assert token["used_from"] == "127.0.0.1"
    assert token["used_at"] is not None
    assert issued["token"] not in str(listed)
    assert (await aimux.send("DELETE", f"/tokens/{issued['id']}"))[0] == 204
    assert (await aimux.message(**bearer(issued["token"])))[0] == 401
    assert (await aimux.get("/tokens?user=ann"))["items"][0]["state"] == "revoked"
    assert issued["token"] not in aimux.log


@pytest.mark.parametrize("ttl", [86_400, "86400", "86400s", "1440m", "24h", "1d"])
async def test_how_long_a_token_lasts_can_be_written_in_several_ways(aimux: Aimux, ttl: object) -> None:
    await aimux.post("/users", {"name": "ann"}, expect=201)
    issued = await aimux.post("/tokens", {"user": "ann", "ttl": ttl}, expect=201)
    left = datetime.fromisoformat(issued["expires_at"]) - datetime.now(UTC)
    assert timedelta(hours=23) < left <= timedelta(days=1)


async def test_a_token_that_only_asks_the_api_has_been_used_too(aimux: Aimux) -> None:
    await aimux.post("/users", {"name": "ann", "role": "viewer"}, expect=201)
    token = (await aimux.post("/tokens", {"user": "ann"}, expect=201))["token"]
    assert (await aimux.send("GET", "/usage", headers=bearer(token)))[0] == 200
    [listed] = (await aimux.get("/tokens?user=ann"))["items"]
    assert listed["used_at"] is not None
    assert listed["used_from"] == "127.0.0.1"


async def test_users_are_changed_and_removed(aimux: Aimux) -> None:
    await aimux.post("/users", {"name": "ann", "email": "a@b.c"}, expect=201)
    token = (await aimux.post("/tokens", {"user": "ann"}, expect=201))["token"]
    status, _, changed = await aimux.send("PATCH", "/users/ann", json={"role": "admin", "email": None})
    assert status == 200
    assert (changed["role"], changed["email"], changed["groups"]) == ("admin", None, [])
    assert (await aimux.send("PATCH", "/users/ann", json={"enabled": False}))[0] == 200
    assert (await aimux.message(**bearer(token)))[0] == 403
    assert (await aimux.send("GET", "/me", headers=bearer(token)))[0] == 403
    assert (await aimux.send("PATCH", "/users/ann", json={"enabled": True}))[0] == 200
    assert (await aimux.message(**bearer(token)))[0] == 200
    assert (await aimux.send("DELETE", "/users/ann"))[0] == 204
    assert (await aimux.message(**bearer(token)))[0] == 401
    assert (await aimux.send("GET", "/users/ann"))[0] == 404


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "word"),
    [
        ("POST", "/users", {"name": "mia"}, 409, "configured"),
        ("PATCH", "/users/mia", {"role": "admin"}, 409, "configured"),
        ("DELETE", "/users/mia", None, 409, "configured"),
        ("POST", "/users", {"name": "new", "groups": ["nosuch"]}, 404, "not-found"),
        ("POST", "/users", {"name": "new", "scopes": ["provider:nosuch"]}, 404, "no-such-scope"),
        ("POST", "/users", {"name": "with space"}, 422, "invalid"),
        ("POST", "/users", {"name": "new", "role": "root"}, 422, "invalid"),
        ("POST", "/users", {"name": "new", "colour": "red"}, 422, "invalid"),
        ("POST", "/tokens", {"user": "nobody"}, 404, "not-found"),
        ("POST", "/tokens", {"user": "mia", "ttl": "0d"}, 422, "invalid"),
        ("POST", "/tokens", {"user": "mia", "ttl": "soon"}, 422, "invalid"),
        ("POST", "/tokens", {"user": "mia", "ttl": "100000d"}, 422, "invalid"),
        ("DELETE", "/tokens/tok_nosuch", None, 404, "not-found"),
        ("GET", "/groups/nosuch", None, 404, "not-found"),
        ("PATCH", "/groups/dev", {"reserved": True}, 404, "not-found"),
        ("GET", "/tokens?after=x", None, 422, "invalid"),
        ("POST", "/me/tokens", {}, 403, "no-user"),
    ],
)
async def test_what_can_not_be(start: Start, method: str, path: str, body: Any, status: int, word: str) -> None:
    aimux = await start(users=USERS)
    got, _, problem = await aimux.send(method, path, json=body)
    assert (got, problem["type"]) == (status, f"urn:aimux:{word}"), problem


async def test_what_is_wrong_is_said_in_words(aimux: Aimux) -> None:
    status, _, problem = await aimux.send(
        "POST", "/users", json={"email": 5, "groups": {}, "enabled": 1, "own_login": "x"}
    )
    assert status == 422
    assert {fault["where"]: fault["message"] for fault in problem["errors"]} == {
        "body.name": "is missing",
        "body.email": "must be text",
        "body.groups": "must be a list",
        "body.enabled": "is not known here",
        "body.own_login": "must be true or false",
    }
    _, _, problem = await aimux.send("GET", "/users?limit=x")
    assert problem["detail"] == "query.limit: must be a whole number"
    _, _, problem = await aimux.send("GET", "/users?limit=0")
    assert problem["detail"] == "query.limit: must be greater than or equal to 1"


async def test_a_body_is_read_in_one_way(aimux: Aimux) -> None:
    for path, body in (
        ("/users", '{"name": "ann", "name": "bob"}'),
        ("/tokens/import", '{"tokens": [{"sha256": "", "user": "ann", "user": "bob", "label": ""}]}'),
    ):
        headers = {"content-type": "application/json"}
        status, _, problem = await aimux.send("POST", path, data=body, headers=headers)
        assert (status, problem["type"]) == (422, "urn:aimux:invalid"), path
    assert (await aimux.get("/users"))["items"] == []


async def test_users_are_found_by_a_part_of_name_or_address(start: Start) -> None:
    aimux = await start(users=USERS)
    await aimux.post("/users", {"name": "a_b", "email": "Ab@Example.com"}, expect=201)

    async def found(query: str) -> list[str]:
        return [user["name"] for user in (await aimux.get(f"/users?{query}"))["items"]]

    assert await found("q=A") == ["a_b", "ada", "mia"]
    assert await found("q=A&limit=1&after=a_b") == ["ada"]
    assert await found("q=example") == ["a_b", "ada"]
    assert await found("q=a_") == ["a_b"]
    assert await found("q=a&group=dev") == ["mia"]
    assert await found("q=nosuch") == []
    assert (await aimux.send("GET", "/users?q=%00"))[0] == 422


async def test_a_list_tells_what_users_have_and_do_where_it_is_asked_to(start: Start) -> None:
    aimux = await start(users=USERS, limits={"users": {"vic": {"tokens_per_day": 10**9, "requests_per_minute": 4}}})
    await aimux.post("/users", {"name": "ann"}, expect=201)
    tokens = [await aimux.post("/tokens", {"user": "ann"}, expect=201) for _ in range(3)]
    await aimux.send("PUT", "/limits/user/ann", json={"requests_per_minute": 2})
    for token in (VIEWER, tokens[0]["token"]):
        assert (await aimux.message(**bearer(token)))[0] == 200
    await aimux.send("DELETE", f"/tokens/{tokens[1]['id']}")

    items = (await aimux.get("/users?details=true"))["items"]
    details = {user["name"]: user["details"] for user in items}
    assert {name: one["tokens"] for name, one in details.items()} == {"ada": 1, "ann": 2, "mia": 1, "vic": 1}
    assert [name for name, one in details.items() if one["used_at"] is not None] == ["ann", "vic"]
    nearest = {name: one["nearest_limit"] for name, one in details.items()}
    assert (nearest["ada"], nearest["mia"]) == (None, None)
    assert (nearest["ann"]["limit"], nearest["ann"]["used"], nearest["ann"]["amount"]) == ("requests_per_minute", 1, 2)
    assert (nearest["vic"]["limit"], nearest["vic"]["used"], nearest["vic"]["amount"]) == ("requests_per_minute", 1, 4)
    await aimux.send("PUT", "/limits/group/dev", json={"requests_per_minute": 0})
    items = (await aimux.get("/users?details=true"))["items"]
    nearest = {user["name"]: user["details"]["nearest_limit"] for user in items}
    assert nearest["ada"] is None
    assert (nearest["mia"]["set_by"], nearest["mia"]["amount"]) == ("group:dev", 0), "what refuses her is not hers"
    await aimux.send("DELETE", f"/tokens/{tokens[0]['id']}")
    [ann] = (await aimux.get("/users?details=true&q=ann"))["items"]
    assert (ann["details"]["tokens"], ann["details"]["used_at"]) == (1, None)
    assert all(user["details"] is None for user in (await aimux.get("/users"))["items"])


async def test_the_configurations_users_and_tokens_are_marked(start: Start) -> None:
    aimux = await start(users=USERS)
    page = await aimux.get("/users?limit=2")
    assert [user["name"] for user in page["items"]] == ["ada", "mia"]
    assert all(user["configured"] for user in page["items"])
    assert [u["name"] for u in (await aimux.get(f"/users?after={page['next']}"))["items"]] == ["vic"]
    [token] = (await aimux.get("/tokens?user=mia"))["items"]
    assert token["configured"]
    status, _, problem = await aimux.send("DELETE", f"/tokens/{token['id']}")
    assert (status, problem["type"]) == (409, "urn:aimux:configured")
    by_hash = hashlib.sha256(MEMBER.encode()).hexdigest()
    assert [t["user"] for t in (await aimux.get(f"/tokens?sha256={by_hash}"))["items"]] == ["mia"]
    [group] = (await aimux.get("/groups"))["items"]
    assert (group["name"], group["members"], group["configured"]) == ("dev", 1, True)
    assert [u["name"] for u in (await aimux.get("/users?group=dev"))["items"]] == ["mia"]


async def test_a_reload_says_what_is_wrong(start: Start) -> None:
    aimux = await start()
    assert await aimux.post("/reload") == {"warnings": [], "after_restart": []}
    broken: dict[str, Any] = {"listen": "nowhere:at:all", "users": [{"name": "x"}]}
    from aimux.config import parse_config

    aimux.app.load = lambda: parse_config(broken, environ={}, providers=aimux.app.plugins.providers)
    status, _, problem = await aimux.send("POST", "/reload")
    assert (status, problem["type"]) == (422, "urn:aimux:configuration")
    assert {fault["where"] for fault in problem["errors"]} == {"listen", "users[0]"}
    assert (await aimux.message())[0] == 200


async def test_who_reaches_which_account(start: Start) -> None:
    providers = {"claude": {"accounts": {"default": {"groups": ["ci"]}}}}
    users = [
        {"name": "ann", "token": MEMBER},
        {"name": "bot", "token": VIEWER, "groups": ["ci"]},
        {"name": "cod", "token": ADMIN, "groups": ["ci"], "scopes": ["provider:chatgpt"]},
    ]
    aimux = await start(providers=providers, users=users)
    account = await aimux.get("/accounts/claude/default")
    assert account["serves"] == "ci, and users in no group"
    assert (await aimux.get("/accounts/claude/default/users"))["items"] == ["ann", "bot"]
    aimux = await start(providers=providers, users=users, groups={"ci": {"reserved": True}})
    account = await aimux.get("/accounts/claude/default")
    assert account["serves"] == "ci alone"
    assert (await aimux.get("/accounts/claude/default/users"))["items"] == ["bot"]
    assert (await aimux.get("/accounts/chatgpt/default"))["serves"] == "everybody"
    assert (await aimux.get("/groups/ci"))["accounts"] == ["claude/default"]


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("/users", {"name": "admin-key"}, "body.name: The audit log calls whoever has the admin key 'admin-key'"),
        ("/users", {"name": "Jürgen Müller"}, "body.name: A name has at most 100 letters"),
        ("/users", {"name": "a/b"}, "begins with a letter or digit"),
        ("/users", {"name": "x" * 101}, "at most 100"),
        ("/groups", {"name": ".."}, "begins with a letter or digit"),
        ("/tokens", {"user": "ann", "ttl": "0d"}, "body.ttl: write it like 30d"),
        ("/tokens", {"user": "ann", "ttl": "soon"}, "body.ttl: write it like 30d"),
    ],
)
async def test_what_is_written_wrongly_is_told_in_words(aimux: Aimux, path: str, body: object, words: str) -> None:
    status, _, problem = await aimux.send("POST", path, json=body)
    assert status == 422
    assert words in problem["detail"]
    assert "pattern" not in problem["detail"]
