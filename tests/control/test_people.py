"""Users, groups, tokens, roles and the audit log by the API."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from aimux.people.tokens import SHOWN, form
from tests.control.conftest import Aimux, Start

MEMBER = "members-token-0123456789"
VIEWER = "viewers-token-0123456789"
ADMIN = "admins-token-0123456789"
USERS = [
    {"name": "mia", "token": MEMBER, "groups": ["dev"]},
    {"name": "vic", "token": VIEWER, "role": "viewer"},
    {"name": "ada", "token": ADMIN, "role": "admin", "email": "ada@example.com"},
]
ELSEWHERE = {"x-forwarded-for": "203.0.113.9"}


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


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


async def test_a_token_is_rotated(aimux: Aimux) -> None:
    await aimux.post("/users", {"name": "ann"}, expect=201)
    first = await aimux.post("/tokens", {"user": "ann", "label": "ci", "ttl": 3600}, expect=201)
    second = await aimux.post(f"/tokens/{first['id']}/rotate", {"overlap": "1h"}, expect=201)
    assert (second["label"], second["id"] != first["id"]) == ("ci", True)
    for token in (first, second):
        assert (await aimux.message(**bearer(token["token"])))[0] == 200
    third = await aimux.post(f"/tokens/{second['id']}/rotate", {}, expect=201)
    assert (await aimux.message(**bearer(second["token"])))[0] == 401
    assert (await aimux.message(**bearer(third["token"])))[0] == 200


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


async def test_tokens_are_found_by_a_part_of_user_label_or_beginning(start: Start) -> None:
    aimux = await start(users=USERS)
    await aimux.post("/users", {"name": "ann"}, expect=201)
    first = await aimux.post("/tokens", {"user": "ann", "label": "100 % Laptop"}, expect=201)
    second = await aimux.post("/tokens", {"user": "ann", "label": "100 x"}, expect=201)

    async def found(q: str) -> list[str]:
        return [token["id"] for token in (await aimux.get(f"/tokens?q={q}"))["items"]]

    assert await found("AN") == [first["id"], second["id"]]
    assert await found("laptop") == [first["id"]]
    assert await found("0+%25") == [first["id"]]
    assert await found(second["token"][:SHOWN]) == [second["id"]]
    assert [token["user"] for token in (await aimux.get("/tokens?q=MIA"))["items"]] == ["mia"]
    assert await found("nosuch") == []


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


async def test_pages_of_tokens(start: Start) -> None:
    aimux = await start(users=USERS)
    issued = [(await aimux.post("/tokens", {"user": "mia"}, expect=201))["id"] for _ in range(5)]
    seen: list[str] = []
    after = ""
    while True:
        page = await aimux.get(f"/tokens?limit=2{after}")
        assert len(page["items"]) <= 2
        seen += [token["id"] for token in page["items"]]
        if page["next"] is None:
            break
        after = f"&after={page['next']}"
    assert len(seen) == len(set(seen)) == 8
    assert set(issued) <= set(seen)


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


async def test_the_audit_log_says_who_did_what_from_where(start: Start) -> None:
    aimux = await start(users=USERS)
    await aimux.post("/users", {"name": "ann"}, expect=201)
    await aimux.send("PATCH", "/users/ann", json={"role": "viewer"}, headers=bearer(ADMIN))
    token = await aimux.post("/tokens", {"user": "ann"}, expect=201)
    await aimux.post("/accounts/claude/default/disable")
    page = await aimux.get("/audit?limit=3")
    assert [entry["action"] for entry in page["items"]] == ["account.disable", "token.issue", "user.change"]
    change = page["items"][2]
    assert (change["actor"], change["address"], change["target"]) == ("ada", "127.0.0.1", "user:ann")
    assert (change["before"]["role"], change["after"]["role"]) == ("member", "viewer")
    [first] = (await aimux.get(f"/audit?after={page['next']}"))["items"]
    assert (first["actor"], first["action"]) == ("admin-key", "user.add")
    assert len((await aimux.get("/audit?target=user:ann"))["items"]) == 2
    assert token["token"][SHOWN:] not in str(await aimux.get("/audit"))
    verdict = await aimux.get("/audit/verdict")
    assert (verdict["whole"], verdict["entries"], verdict["hash"]) == (True, 4, page["items"][0]["hash"])


async def test_a_change_of_the_log_is_found(aimux: Aimux) -> None:
    from aimux.storage.schema.audit import audit
    from aimux.storage.schema.base import meta

    for name in ("a", "b", "c"):
        await aimux.post("/users", {"name": name}, expect=201)
    database = aimux.app.database
    for change, problem in (
        (audit.update().where(audit.c.id == 2).values(actor="nobody"), "entry 2 was changed"),
        (audit.update().where(audit.c.id == 2).values(actor="admin-key"), ""),
        (audit.delete().where(audit.c.id == 3), "the last 1 entries are missing"),
        (audit.delete().where(audit.c.id == 1), "entry 1 is missing"),
    ):
        async with database.write() as connection:
            await connection.execute(change)
        verdict = await aimux.get("/audit/verdict")
        assert (verdict["whole"], verdict["problem"]) == (not problem, problem)
    async with database.read() as connection:
        assert (await connection.execute(meta.select())).first() is not None


async def test_tokens_are_taken_over_by_their_hash(aimux: Aimux) -> None:
    await aimux.post("/users", {"name": "ann"}, expect=201)
    old = "a-token-of-another-gateway"
    body = {"tokens": [{"sha256": hashlib.sha256(old.encode()).hexdigest(), "user": "ann", "label": "old"}]}
    added = await aimux.post("/tokens/import", body, expect=201)
    assert [token["label"] for token in added["items"]] == ["old"]
    assert (await aimux.message(**bearer(old)))[0] == 200
    assert (await aimux.post("/tokens/import", body, expect=201))["items"] == []


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


async def test_signed_tokens_are_issued_and_revoked_by_their_subject(start: Start) -> None:
    aimux = await start()
    status, _, problem = await aimux.send("POST", "/tokens/signed", json={"ttl": "1d"})
    assert (status, problem["type"]) == (409, "urn:aimux:no-secret")
    aimux = await start(auth={"jwt": {"secret": "the-secret-of-the-old-gateway-0123", "prefix": "la_sk_"}})
    signed = await aimux.post("/tokens/signed", {"ttl": "1d", "label": "ann"}, expect=201)
    assert signed["token"].startswith("la_sk_")
    assert (await aimux.message(**bearer(signed["token"])))[0] == 200
    status, _, me = await aimux.send("GET", "/me", headers=bearer(signed["token"]))
    assert (status, me["name"], me["role"], me["tokens"]) == (200, signed["subject"], "member", [])
    assert (await aimux.get("/audit?limit=1"))["items"][0]["target"] == f"subject:{signed['subject']}"
    revoked = await aimux.post("/revocations", {"subject": signed["subject"], "reason": "left"}, expect=201)
    assert revoked["reason"] == "left"
    assert (await aimux.message(**bearer(signed["token"])))[0] == 403
    assert (await aimux.send("GET", "/me", headers=bearer(signed["token"])))[0] == 403
    assert [one["subject"] for one in (await aimux.get("/revocations"))["items"]] == [signed["subject"]]
    gone = f"/revocations?subject={signed['subject']}"
    assert (await aimux.send("DELETE", gone))[0] == 204
    assert (await aimux.send("DELETE", gone))[0] == 404
    assert (await aimux.get("/revocations"))["items"] == []
    assert (await aimux.message(**bearer(signed["token"])))[0] == 200


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("/users", {"name": "Jürgen Müller"}, "body.name: A name has at most 100 letters"),
        ("/users", {"name": "a/b"}, "begins with a letter or digit"),
        ("/users", {"name": "x" * 101}, "at most 100"),
        ("/groups", {"name": ".."}, "begins with a letter or digit"),
        ("/tokens", {"user": "ann", "ttl": "0d"}, "body.ttl: Write it like 30d"),
        ("/tokens", {"user": "ann", "ttl": "soon"}, "body.ttl: Write it like 30d"),
    ],
)
async def test_what_is_written_wrongly_is_told_in_words(aimux: Aimux, path: str, body: object, words: str) -> None:
    status, _, problem = await aimux.send("POST", path, json=body)
    assert status == 422
    assert words in problem["detail"]
    assert "pattern" not in problem["detail"]
