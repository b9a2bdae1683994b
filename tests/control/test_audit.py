"""The audit log by the API."""

from __future__ import annotations

from aimux.people.tokens import SHOWN
from tests.control.conftest import Aimux, Start
from tests.control.people import ADMIN, USERS, bearer


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


async def test_times_are_written_as_everywhere_else(aimux: Aimux) -> None:
    await aimux.post("/users", {"name": "ann"}, expect=201)
    token = await aimux.post("/tokens", {"user": "ann", "ttl": "1h"}, expect=201)
    await aimux.send("DELETE", f"/tokens/{token['id']}")
    revoked, issued, _ = (await aimux.get("/audit"))["items"]
    assert issued["after"]["expires_at"] == token["expires_at"]
    assert revoked["before"]["revoked_at"] is None
    assert revoked["after"]["revoked_at"].startswith(revoked["at"][:10])
    assert (await aimux.get("/audit/verdict"))["whole"]


async def test_changes_are_found_by_time_and_by_who_made_them(start: Start) -> None:
    aimux = await start(users=USERS)
    await aimux.post("/users", {"name": "ann"}, expect=201)
    await aimux.send("PATCH", "/users/ann", json={"role": "viewer"}, headers=bearer(ADMIN))
    await aimux.post("/users", {"name": "bob"}, expect=201)

    async def listed(query: str) -> list[str]:
        return [f"{entry['actor']} {entry['target']}" for entry in (await aimux.get(f"/audit?{query}"))["items"]]

    assert await listed("actor=ada") == ["ada user:ann"]
    assert await listed("actor=admin-key&target=user:ann&since=1h") == ["admin-key user:ann"]
    assert await listed("actor=admin-key&limit=1") == ["admin-key user:bob"]
    assert await listed("actor=nobody") == await listed("until=1h") == await listed("since=2999-01-01") == []
    last = (await aimux.get("/audit?limit=1"))["items"][0]["at"]
    assert len(await listed(f"since={last}")) + len(await listed(f"until={last}")) == 3
    status, _, problem = await aimux.send("GET", "/audit?since=yesterday")
    assert (status, problem["errors"][0]["where"]) == (422, "since")


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
