"""A credential of the vendor's that a user brings along, beside the aimux token."""

from __future__ import annotations

import json
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from aimux.people import Group, User, groups, issuing, users
from aimux.plugin import Credential, CredentialError, RequestHead, RequestRefused
from aimux.plugin import Upstream as Target
from aimux.plugin.types import Headers
from tests.gateway.answers import json_of
from tests.gateway.conftest import SECRET, TOKEN, Aimux, Plain, Start, Upstream, request
from tests.gateway.people import ADMIN
from tests.gateway.websockets.conftest import Begin, Far, begin, far, socket

__all__ = ["begin", "far"]

THEIRS = "vendors-own-login-0123456789"
USERS = [{"name": "ann", "token": TOKEN, "own_login": True, "pin_accounts": True}]


def own(credential: str = THEIRS, token: str = TOKEN) -> bytes:
    return request(token=credential, headers=f"X-Aimux-Token: {token}\r\n")


async def test_it_is_relayed_with_that_and_no_account_is_touched(start: Start, upstream: Upstream) -> None:
    aimux = await start(users=USERS)
    answer = await aimux.send(own())
    assert answer.startswith(b"HTTP/1.1 200 ")
    (sent,) = upstream.requests
    assert f"authorization: Bearer {THEIRS}\r\n".encode().lower() in sent.lower()
    assert SECRET.encode() not in sent
    assert TOKEN.encode() not in sent
    assert b"x-aimux-token" not in sent.lower()
    (account,) = aimux.app.accounts()
    assert account.last_used is None
    assert "user=ann provider=plain account=(own-login)" in aimux.log
    assert THEIRS not in aimux.log


@pytest.mark.parametrize("status", [401, 403, 429, 500, 529])
async def test_whatever_the_vendor_says_is_for_its_owner(start: Start, upstream: Upstream, status: int) -> None:
    upstream.answer = (
        f"HTTP/1.1 {status} No\r\ncontent-type: application/json\r\nretry-after: 600\r\ncontent-length: 2\r\n\r\n{{}}"
    ).encode()
    aimux = await start(users=USERS)
    answer = await aimux.send(own())
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert answer.endswith(b"{}")
    assert b"x-should-retry" not in answer.lower()
    assert len(upstream.requests) == 1
    (account,) = aimux.app.accounts()
    assert account.state(0.0).status == "healthy"


async def test_an_account_of_the_pool_is_not_needed(start: Start, upstream: Upstream) -> None:
    aimux = await start(users=USERS, accounts=())
    assert (await aimux.send(own())).startswith(b"HTTP/1.1 200 ")
    assert (await aimux.send(request())).startswith(b"HTTP/1.1 503 ")


async def test_who_may_not_is_told_and_nothing_is_sent(start: Start, upstream: Upstream) -> None:
    aimux = await start(users=[{"name": "ann", "token": TOKEN}])
    answer = await aimux.send(own())
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert b"x-should-retry: false" in answer.lower()
    assert "login of your own" in json_of(answer)["plain"]
    assert upstream.requests == []
    people = aimux.app.people
    await groups.add(people, ADMIN, Group("brings", own_login=True))
    await users.add(people, ADMIN, User("bob", groups=("brings",)))
    bob = (await issuing.issue(people, ADMIN, "bob")).secret
    assert (await aimux.send(own(token=bob))).startswith(b"HTTP/1.1 200 ")
    await groups.change_group(people, ADMIN, "brings", {"own_login": False})
    assert (await aimux.send(own(token=bob))).startswith(b"HTTP/1.1 403 ")


async def test_the_token_in_its_own_header_is_enough(start: Start, upstream: Upstream) -> None:
    aimux = await start(users=USERS)
    bare = request(token=None, headers=f"X-Aimux-Token: {TOKEN}\r\n")
    assert (await aimux.send(bare)).startswith(b"HTTP/1.1 200 ")
    assert SECRET.encode() in upstream.requests[0]
    assert (await aimux.send(own(token="nobodys-token-0123456789"))).startswith(b"HTTP/1.1 401 ")


async def test_an_aimux_token_is_never_sent_to_the_vendor(start: Start, upstream: Upstream) -> None:
    aimux = await start(users=USERS)
    await users.add(aimux.app.people, ADMIN, User("bob"))
    bob = (await issuing.issue(aimux.app.people, ADMIN, "bob")).secret
    for shown in (TOKEN, bob, bob[:-1]):
        assert (await aimux.send(own(shown))).startswith(b"HTTP/1.1 200 ")
        assert shown.encode() not in upstream.requests[-1]
        assert SECRET.encode() in upstream.requests[-1]


@pytest.mark.parametrize("told", [f"Bearer {THEIRS}", THEIRS])
async def test_another_vendors_is_refused_and_not_repeated(
    start: Start, upstream: Upstream, monkeypatch: pytest.MonkeyPatch, told: str
) -> None:
    """Whatever a plugin says of it."""

    def own_credential(_self: Plain, _headers: Headers) -> Credential | None:
        raise CredentialError(f"is another vendor's: {told}")

    monkeypatch.setattr(Plain, "own_credential", own_credential)
    aimux = await start(users=USERS)
    answer = await aimux.send(own())
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"x-should-retry: false" in answer.lower()
    assert "`x-aimux-token` can't be used with plain: it is another vendor's" in json_of(answer)["plain"]
    assert THEIRS not in answer.decode() + aimux.log
    assert upstream.requests == []


async def test_what_a_plugin_refuses_of_it_is_told_without_it(
    start: Start, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    def prepare(_self: Plain, _request: RequestHead, credential: Credential) -> Target:
        raise RequestRefused(f"That is not for {credential.secret}.")

    monkeypatch.setattr(Plain, "prepare", prepare)
    aimux = await start(users=USERS)
    answer = await aimux.send(own())
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert "That is not for vendors-" in json_of(answer)["plain"]
    assert THEIRS not in answer.decode() + aimux.log
    assert upstream.requests == []


async def test_bounds_hold_all_the_same(start: Start, upstream: Upstream) -> None:
    aimux = await start(users=[{**USERS[0], "scopes": ["model:small*"]}])
    assert (await aimux.send(own())).startswith(b"HTTP/1.1 400 ")
    assert upstream.requests == []


async def test_a_socket(begin: Begin, far: Far) -> None:
    async def serve(server: Any) -> None:
        await server.send("hello")
        await server.recv()
        await server.send(json.dumps({"limited": 600, "done": 1}))
        await server.wait_closed()

    far.serve = serve
    aimux = await begin(users=USERS)
    async with socket(aimux, token=THEIRS, headers={"X-Aimux-Token": TOKEN}) as client:
        assert await client.recv() == "hello"
        assert far.requests[0].headers["authorization"] == f"Bearer {THEIRS}"
        await client.send("question")
        assert "limited" in str(await client.recv())
        await users_gone(aimux)
        assert "error" in str(await client.recv())
        with pytest.raises(ConnectionClosed):
            await client.recv()


async def users_gone(aimux: Aimux) -> None:
    file = aimux.folder / "config.json"
    settings = json.loads(file.read_text())
    file.write_text(json.dumps(settings | {"users": [{"name": "other", "token": "another-token-0123456789"}]}))
    assert await aimux.app.reload()
