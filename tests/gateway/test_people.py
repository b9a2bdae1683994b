"""People who are kept in the database, as their requests meet them."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from aimux.people import Group, User, groups, issuing, users
from aimux.people.tokens import make_token
from tests.gateway.conftest import TOKEN, Start, Upstream
from tests.gateway.people import ADMIN, add, status, stream, streaming
from tests.gateway.websockets.conftest import Begin, Far, begin, far, socket

__all__ = ["begin", "far", "streaming"]


async def test_a_token_of_the_database_is_served_from_the_moment_it_is_there(start: Start) -> None:
    aimux = await start()
    ann = await add(aimux, "ann2")
    assert (await status(aimux, ann))[0] == 200
    assert (await status(aimux, TOKEN))[0] == 200
    assert "user=ann2" in aimux.log


async def test_the_first_user_closes_an_aimux_that_served_anybody(start: Start) -> None:
    aimux = await start(users=[], allow_anonymous=True)
    assert (await status(aimux, "anything-at-all"))[0] == 200
    ann = await add(aimux, "ann")
    assert (await status(aimux, "anything-at-all"))[0] == 401
    assert (await status(aimux, ann))[0] == 200


@pytest.mark.usefixtures("streaming")
async def test_a_revoked_token_ends_where_it_is_in_use(start: Start, upstream: Upstream) -> None:
    aimux = await start()
    ann = await add(aimux, "ann2")
    other = await issuing.issue(aimux.app.people, ADMIN, "ann2")
    revoked, kept = await stream(aimux, ann), await stream(aimux, other.secret)
    name = next(t.id for t in aimux.app.people.directory.stored.tokens.values() if t.id != other.token.id)
    await issuing.revoke(aimux.app.people, ADMIN, name)
    async with asyncio.timeout(1):
        told = await revoked.read()
    assert b"event: error\ndata: " in told
    assert b"This token was revoked" in told
    await upstream.until(lambda: upstream.open == 1)
    assert (await status(aimux, ann))[1].startswith("This token was revoked")
    assert not kept.at_eof()


@pytest.mark.usefixtures("streaming")
async def test_so_does_one_that_expires_and_one_whose_user_is_disabled_or_removed(start: Start) -> None:
    aimux = await start()
    people = aimux.app.people
    for name in ("disabled", "removed", "expiring"):
        await users.add(people, ADMIN, User(name))
    ttls = {"disabled": None, "removed": None, "expiring": 2.0}
    open_ = {
        name: await stream(aimux, (await issuing.issue(people, ADMIN, name, ttl=ttl)).secret)
        for name, ttl in ttls.items()
    }
    await users.change_user(people, ADMIN, "disabled", {"enabled": False})
    await users.remove(people, ADMIN, "removed")
    for name, word in (("disabled", b"disabled"), ("removed", b"revoked"), ("expiring", b"expired")):
        async with asyncio.timeout(4):
            assert word in await open_[name].read()


async def test_a_revoked_tokens_socket_is_closed(begin: Begin, far: Far) -> None:
    async def serve(server: Any) -> None:
        await server.send("hello")
        await server.wait_closed()

    far.serve = serve
    aimux = await begin()
    ann = await add(aimux, "ann2")
    async with socket(aimux, token=ann) as client, asyncio.timeout(10):
        assert await client.recv() == "hello"
        await users.change_user(aimux.app.people, ADMIN, "ann2", {"enabled": False})
        assert "disabled" in json.loads(await client.recv())["error"]
        with pytest.raises(ConnectionClosed):
            await client.recv()


async def test_what_a_token_that_is_not_valid_hears(start: Start) -> None:
    aimux = await start()
    ann = await add(aimux, "ann2")
    assert "typing error" in (await status(aimux, ann[:-1]))[1]
    other = "x" if ann[20] != "x" else "y"
    assert "typing error" in (await status(aimux, ann[:20] + other + ann[21:]))[1]
    assert "not known" in (await status(aimux, make_token()))[1]


async def test_providers_that_are_not_in_scope(start: Start) -> None:
    aimux = await start()
    bound = await add(aimux, "bound", "provider:elsewhere")
    code, said = await status(aimux, bound)
    assert (code, said) == (403, "You may not use plain here; ask whoever runs aimux.")
    fine = await add(aimux, "fine", token_scopes=("provider:plain",))
    assert (await status(aimux, fine))[0] == 200


@pytest.mark.parametrize(
    ("target", "code"),
    [
        ("/v1/chat/completions?model=large-1", 400),
        ("/v1/chat/completions?x=1&mod%65l=large-1", 400),
        ("/v1/chat/completions?model=small-2&api-version=1", 200),
        ("/engines/large-1/chat/completions", 400),
        ("/engines/vendor/large-1/completions", 400),
        ("/openai/deployments/large-1/embeddings/?api-version=1", 400),
        ("/openai/deployments/small-1/chat/completions", 200),
        ("/v1beta/models/large-1:generateContent", 400),
        ("/v1beta/models/small-1:generateContent", 200),
        ("/v1/models", 200),
    ],
)
async def test_nor_may_the_address_name_one(start: Start, upstream: Upstream, target: str, code: int) -> None:
    """Some servers take that one, whatever the body says."""
    aimux = await start()
    bound = await add(aimux, "bound", "model:small-*")
    got, said = await status(aimux, bound, body=b'{"model":"small-1"}', target=f"/plain{target}")
    assert got == code
    assert len(upstream.requests) == (code == 200)
    assert ("in the request's address" in said) == (code == 400)
    free = await add(aimux, "free")
    assert (await status(aimux, free, body=b'{"model":"small-1"}', target=f"/plain{target}"))[0] == 200


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b'{"model":"small-1"}', 200),
        (b'{"model":"large-1"}', 400),
        (b'{"model":"small-1","model":"large-1"}', 400),
        (b'{"model":"large-1","model":"small-1"}', 400),
        (b'{"requests":[{"model":"large-1"}]}', 400),
        (b"not json", 400),
        (b"", 200),
    ],
)
async def test_models_that_are_not_in_scope(start: Start, upstream: Upstream, body: bytes, code: int) -> None:
    aimux = await start()
    bound = await add(aimux, "bound", "model:small-*")
    got, said = await status(aimux, bound, body=body, method="POST" if body else "GET")
    assert got == code
    assert len(upstream.requests) == (code == 200)
    assert bool(said) == (code != 200)


LONG = "x" * 200_000
MANY = ['"small-2"'] * 8


@pytest.mark.parametrize("name", ["fallbacks", "model\\u0073"])
@pytest.mark.parametrize("padding", ["x", LONG])
@pytest.mark.parametrize(
    ("listed", "code"),
    [
        ('[{"model": "small-2"}, "small-3"]', 200),
        ('["small-2", {"model": "large-1"}]', 400),
        ('[{"small-1": ["large-1"]}]', 400),
        ('["small-2", {"model": "small-3", "messages": [{"model": "large-1"}]}]', 200),
        (f'["small-{LONG[:300]}"]', 400),
        (f'["small-2", {", ".join(MANY)}, "large-1"]', 400),
        (f"[{', '.join(MANY)}]", 200),
        (f'[{{"model": "large-1", "more": "{LONG}"}}]', 400),
        (f'["small-2", {{"model": "small-3", "more": "{LONG[:2_000]}"}}, "large-1"]', 400),
        (f'["small-2", {{"model": "small-3", "more": "{LONG[:2_000]}"}}, "small-4"]', 200),
        (f'["small-2", {" " * 70_000} "large-1"]', 400),
    ],
)
async def test_nor_may_one_that_is_not_take_its_place(
    start: Start, upstream: Upstream, name: str, padding: str, listed: str, code: int
) -> None:
    aimux = await start()
    body = f'{{"model": "small-1", "padding": "{padding}", "{name}": {listed}}}'.encode()
    bound = await add(aimux, "bound", "model:small-*")
    assert (await status(aimux, bound, body=body))[0] == code
    assert len(upstream.requests) == (code == 200)
    assert (await status(aimux, await add(aimux, "free", "provider:plain"), body=body))[0] == 200


async def test_who_is_bound_to_models_gets_no_socket_and_is_told_to_use_http(begin: Begin) -> None:
    aimux = await begin()
    bound = await add(aimux, "bound", "model:small-*")
    with pytest.raises(InvalidStatus) as caught:
        await socket(aimux, token=bound)
    assert caught.value.response.status_code == 426


async def test_a_reserved_account_serves_members_alone(start: Start, upstream: Upstream) -> None:
    providers = {"plain": {"base_url": f"http://127.0.0.1:{upstream.port}", "accounts": {"paid": {"groups": ["ci"]}}}}
    aimux = await start(accounts=("paid",), providers=providers)
    people = aimux.app.people
    assert (await status(aimux, TOKEN))[0] == 200
    await groups.add(people, ADMIN, Group("ci", reserved=True))
    code, said = await status(aimux, TOKEN)
    assert code == 503
    assert "paid" not in said
    assert (await status(aimux, await add(aimux, "ci-bot", groups=("ci",))))[0] == 200


async def test_a_reload_keeps_who_is_in_the_database(start: Start) -> None:
    aimux = await start()
    ann = await add(aimux, "ann2")
    assert await aimux.app.reload()
    assert (await status(aimux, ann))[0] == 200
    assert (await status(aimux, TOKEN))[0] == 200
