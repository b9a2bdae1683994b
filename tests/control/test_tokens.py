"""Tokens by the API."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta

import pytest

from aimux.people.tokens import SHOWN
from tests.control.conftest import Aimux, Start
from tests.control.people import USERS, bearer


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


@pytest.mark.parametrize("own", [False, True], ids=["an administrator", "a member"])
async def test_a_token_that_takes_anothers_place_has_its_limits(start: Start, own: bool) -> None:
    aimux = await start(self_service=True)
    await aimux.post("/users", {"name": "ann"}, expect=201)
    first = await aimux.post("/tokens", {"user": "ann"}, expect=201)
    status, _, _ = await aimux.send("PUT", f"/limits/token/{first['id']}", json={"cost_per_day": 0})
    assert status == 200
    until = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    grant = {"limit": "cost_per_day", "amount": 5, "until": until}
    await aimux.post(f"/limits/token/{first['id']}/grants", grant, expect=201)
    if own:
        path, headers = f"/me/tokens/{first['id']}/rotate", bearer(first["token"])
        status, _, second = await aimux.send("POST", path, json={}, headers=headers)
        assert status == 201
    else:
        second = await aimux.post(f"/tokens/{first['id']}/rotate", {}, expect=201)
    assert (await aimux.get(f"/limits/token/{second['id']}"))["cost_per_day"] == 0
    (given,) = (await aimux.get(f"/limits/token/{second['id']}/grants"))["items"]
    assert given["amount"] == 5
    standing = (await aimux.get(f"/limits/token/{second['id']}/usage"))["items"]
    assert [one["amount"] for one in standing] == [5], "at once"


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
    shown = second["token"][:SHOWN]  # two of its characters are random: one time in a thousand both tokens begin alike
    alike = [one["id"] for one in (first, second) if one["token"][:SHOWN].lower() == shown.lower()]
    assert await found(shown) == alike
    assert [token["user"] for token in (await aimux.get("/tokens?q=MIA"))["items"]] == ["mia"]
    assert await found("nosuch") == []


async def test_pages_of_tokens(start: Start) -> None:
    aimux = await start(users=USERS)
    issued = [(await aimux.post("/tokens", {"user": "mia"}, expect=201))["id"] for _ in range(5)]
    pages = await aimux.pages("/tokens?limit=2")
    assert all(len(page["items"]) <= 2 for page in pages)
    seen = [token["id"] for page in pages for token in page["items"]]
    assert len(seen) == len(set(seen)) == 8
    assert set(seen[3:]) == set(issued), "the configuration's are the first"
    made = [token["created_at"] or "" for page in pages for token in page["items"]]
    assert made == sorted(made)


async def test_tokens_are_taken_over_by_their_hash(aimux: Aimux) -> None:
    await aimux.post("/users", {"name": "ann"}, expect=201)
    old = "a-token-of-another-gateway"
    body = {"tokens": [{"sha256": hashlib.sha256(old.encode()).hexdigest(), "user": "ann", "label": "old"}]}
    added = await aimux.post("/tokens/import", body, expect=201)
    assert [token["label"] for token in added["items"]] == ["old"]
    await aimux.post("/tokens", {"user": "ann", "label": "new"}, expect=201)
    found = await aimux.get(f"/tokens?sha256={body['tokens'][0]['sha256']}")
    assert [token["label"] for token in found["items"]] == ["old"]
    assert (await aimux.message(**bearer(old)))[0] == 200
    assert (await aimux.post("/tokens/import", body, expect=201))["items"] == []


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
