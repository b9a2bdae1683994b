"""What is known of a socket: usage and limits of its turns, and the account that serves them."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence

import pytest
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from aimux.plugin import AccountSettings, Action, Body, RequestHead, Verdict, ids_in_body, members
from tests.gateway.conftest import SECRET, TOKEN, Plain

from .conftest import DONE, Begin, Far, access, ended, socket, turns


async def test_each_turn_of_a_socket_has_a_record_and_the_socket_another_one(begin: Begin, far: Far) -> None:
    far.serve = turns
    aimux = await begin(metrics={"per_user": True})
    async with socket(aimux) as client:
        assert aimux.app.metrics.providers["plain"].open == 1
        assert next(aimux.app.accounts()).in_flight == 1
        for _ in range(3):
            await client.send("question")
            assert (await client.recv(), await client.recv()) == ('{"delta": "…"}', DONE)
    await ended(aimux)
    *each, line = access(aimux)
    assert [turn["tokens"] for turn in each] == ["0+0+0/7"] * 3
    assert [turn["id"] for turn in each] == [f"{line['id']}.{number}" for number in (1, 2, 3)]
    for turn in each:
        assert (turn["status"], turn["method"], turn["user"], turn["account"]) == ("200", "TURN", "ann", "default")
        assert int(turn["in"]) == len("question")
        assert int(turn["out"]) == len('{"delta": "…"}'.encode()) + len(DONE)
        assert 0 <= float(turn["ttfb"]) <= float(turn["duration"])
    assert (line["status"], line["method"], line["user"], line["attempts"]) == ("101", "GET", "ann", "1")
    assert line["tokens"] == "-"
    assert int(line["in"]) > 3 * len("question")
    assert int(line["out"]) > 3 * len(DONE)
    counted = aimux.app.metrics
    assert (counted.users["ann"], counted.user_models["ann", ""].output) == (4, 21)
    assert (counted.providers["plain"].attempts, counted.providers["plain"].bytes_in) == (1, int(line["in"]))
    assert aimux.app.metrics.providers["plain"].open == 0
    assert next(aimux.app.accounts()).in_flight == 0


async def test_limits_that_a_message_tells_are_the_accounts_at_once(begin: Begin, far: Far) -> None:
    far.serve = turns
    aimux = await begin()
    async with socket(aimux) as client:
        for message in ('{"used": 0.5, "done": 1}', '{"limited": 60, "done": 1}'):
            await client.send(message)
            assert [await client.recv(), await client.recv()][1] == message
        account = next(aimux.app.accounts())
        assert account.limits["5h"].used == 0.5
        assert account.in_flight == 1
        assert account.state(time.time()).status == "cooling"


LIMITED = '{"limited": 60, "done": 1}'


async def limited_first(server: ServerConnection) -> None:
    """The first account's answers are refusals, behind what the question asks for."""
    first = server.request is not None and server.request.headers["Authorization"] == f"Bearer {SECRET}"
    async for message in server:
        for event in str(message).split("|"):
            await server.send(event)
        await server.send(LIMITED if first else DONE)


async def test_a_turn_that_meets_a_limit_is_taken_to_another_account(begin: Begin, far: Far) -> None:
    far.serve = limited_first
    aimux = await begin(accounts=("default", "other"))
    aimux.account("other").load(1)
    async with socket(aimux) as client:
        await client.send('{"used": 0.9}')
        assert await client.recv() == '{"used": 0.9}'
        with pytest.raises(ConnectionClosed):
            await client.recv()
        assert client.close_code == 1012
    async with socket(aimux) as client:
        await client.send("again")
        assert [await client.recv(), await client.recv()] == ["again", DONE]
    await ended(aimux)
    sockets = [line for line in access(aimux) if line["method"] == "GET"]
    assert [(line["account"], line["error"]) for line in sockets] == [("default", "-"), ("other", "-")]
    each = [line for line in access(aimux) if line["method"] == "TURN"]
    assert [(line["account"], line["error"]) for line in each] == [("default", "cool_down"), ("other", "-")]


@pytest.mark.parametrize(
    "refusal",
    ['{"lacks": "dear", "done": 1}', '{"lacks": "", "done": 1}', '{"limited": 60, "of": "dear", "done": 1}'],
)
@pytest.mark.parametrize("named", [True, False])
async def test_a_turn_whose_model_the_account_can_not_serve_is_taken_to_another(
    begin: Begin, far: Far, refusal: str, named: bool
) -> None:
    """The next handshake names no model: the conversation has to be on the other account by then."""

    async def serve(server: ServerConnection) -> None:
        first = server.request is not None and server.request.headers["Authorization"] == f"Bearer {SECRET}"
        async for _ in server:
            await server.send(refusal if first else DONE)

    far.serve = serve
    aimux = await begin(accounts=("default", "other"))
    aimux.account("other").load(1)
    aimux.app.pools["plain"].faltering.add(aimux.account("other"))  # it may serve, where nobody else can
    headers = {"x-conversation": "c"} if named else {}
    async with socket(aimux, headers=headers) as client:
        await client.send("question")
        if not named:
            assert await client.recv() == refusal
            return
        with pytest.raises(ConnectionClosed):
            await client.recv()
        assert client.close_code == 1012
    async with socket(aimux, headers=headers) as client:
        await client.send("question")
        assert await client.recv() == DONE
    assert next(aimux.app.accounts()).state(0.0).status == "healthy"


@pytest.mark.parametrize("late", [False, True])
async def test_a_turn_whose_credential_is_refused_goes_on_with_a_fresh_one(begin: Begin, far: Far, late: bool) -> None:
    """Soju06/codex-lb#2093: a login that ended since the handshake. The next one renews it, or asks another account."""
    refusal = '{"revoked": 1, "done": 1}'
    far.serve = turns
    aimux = await begin()
    async with socket(aimux) as client:
        await client.send("question")
        assert [await client.recv(), await client.recv()][1] == DONE
        far.serve = far.echo
    async with socket(aimux) as client:
        if late:
            await client.send('{"delta": 1}')
            assert await client.recv() == '{"delta": 1}'
        await client.send(refusal)
        if late:
            assert await client.recv() == refusal
            return
        with pytest.raises(ConnectionClosed):
            await client.recv()
        assert client.close_code == 1012
    await ended(aimux)
    assert [line["error"] for line in access(aimux) if line["method"] == "TURN"] == ["-", "refresh"]
    assert next(aimux.app.accounts()).state(time.time()).status == "healthy"


async def test_what_comes_before_an_answer_is_no_part_of_it(begin: Begin, far: Far) -> None:
    """A client that has no more than that asks again elsewhere, and loses nothing."""
    far.serve = limited_first
    aimux = await begin(accounts=("default", "other"))
    aimux.account("other").load(1)
    before = ('{"type": "codex.response.metadata", "headers": {}}', '{"type": "response.created"}')
    async with socket(aimux, headers={"x-lanes": "1"}) as client:
        await client.send("|".join(before))
        assert (await client.recv(), await client.recv()) == before
        with pytest.raises(ConnectionClosed, match="1012"):
            await client.recv()


@pytest.mark.parametrize("accounts", [("default",), ("default", "other")])
async def test_a_turn_that_meets_an_overload_is_taken_to_another_account_if_there_is_one(
    begin: Begin, far: Far, accounts: tuple[str, ...]
) -> None:
    """Codex asks again after most failures, but not after this one (zyycn/codex-proxy-rs#152)."""
    refusal = '{"busy": 1, "done": 1}'

    async def serve(server: ServerConnection) -> None:
        first = server.request is not None and server.request.headers["Authorization"] == f"Bearer {SECRET}"
        async for _ in server:
            await server.send(refusal if first else DONE)

    far.serve = serve
    aimux = await begin(accounts=accounts)
    if len(accounts) > 1:
        aimux.account("other").load(1)
    headers = {"x-conversation": "c"}
    async with socket(aimux, headers=headers) as client:
        await client.send("question")
        if len(accounts) == 1:
            assert await client.recv() == refusal
            return
        with pytest.raises(ConnectionClosed, match="1012"):
            await client.recv()
    async with socket(aimux, headers=headers) as client:
        await client.send("question")
        assert await client.recv() == DONE
    assert all(account.state(time.time()).status == "healthy" for account in aimux.app.accounts())


@pytest.mark.parametrize(
    "refusal",
    ['{"busy": 1, "done": 1}', '{"lacks": "dear", "done": 1}', '{"limited": 60, "of": "dear", "done": 1}'],
)
async def test_where_no_account_can_serve_a_turn_the_client_hears_of_it(begin: Begin, far: Far, refusal: str) -> None:
    """It must not be sent round among them."""

    async def serve(server: ServerConnection) -> None:
        async for message in server:
            await server.send(DONE if message == "later" else refusal)

    far.serve = serve
    aimux = await begin(accounts=("default", "other"))
    headers = {"x-conversation": "c"}
    async with socket(aimux, headers=headers) as client:
        await client.send("question")
        with pytest.raises(ConnectionClosed, match="1012"):
            await client.recv()
    async with socket(aimux, headers=headers) as client:
        await client.send("question")
        assert await client.recv() == refusal
        await client.send("later")
        assert await client.recv() == DONE
        assert len(aimux.app.pools["plain"].faltering) == (1 if "busy" in refusal else 0)


async def test_a_limit_is_told_to_the_client_where_no_other_account_can_serve(begin: Begin, far: Far) -> None:
    far.serve = limited_first
    async with socket(await begin()) as client:
        await client.send('{"used": 0.9}')
        assert [await client.recv(), await client.recv()] == ['{"used": 0.9}', LIMITED]
        await client.send("and again")
        assert [await client.recv(), await client.recv()] == ["and again", LIMITED]


async def test_a_limit_in_the_middle_of_an_answer_is_told_to_the_client(begin: Begin, far: Far) -> None:
    far.serve = limited_first
    aimux = await begin(accounts=("default", "other"))
    aimux.account("other").load(1)
    async with socket(aimux) as client:
        await client.send('{"delta": 1}')
        assert [await client.recv(), await client.recv()] == ['{"delta": 1}', LIMITED]


async def test_a_meter_that_fails_does_not_disturb_the_socket(begin: Begin, far: Far) -> None:
    far.serve = turns
    aimux = await begin()
    async with socket(aimux) as client:
        for message in ("question", '{"broken": 1}', "question"):
            await client.send(message)
            await client.recv()
            await client.recv()
    await ended(aimux)
    first, second, line = access(aimux)
    assert [(turn["tokens"], turn["error"]) for turn in (first, second)] == [("0+0+0/7", "-"), ("0+0+0/0", "unmetered")]
    assert line["method"] == "GET"
    assert "RuntimeError" in aimux.log


async def test_a_turn_that_the_client_leaves_has_its_record_too(begin: Begin, far: Far) -> None:
    far.serve = turns
    aimux = await begin()
    async with socket(aimux) as client:
        await client.send("long")
        await client.recv()
    await ended(aimux)
    turn, line = access(aimux)
    assert (turn["method"], turn["error"]) == ("TURN", "client_gone")
    assert line["method"] == "GET"


async def test_a_message_may_not_name_what_is_another_users(
    begin: Begin, far: Far, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refers_to(_self: Plain, _head: RequestHead, body: Body) -> tuple[str, ...]:
        return ids_in_body(body, members("after"))

    monkeypatch.setattr(Plain, "refers_to", refers_to)
    bob = "test-token-of-bob-0123456789"
    far.serve = turns
    aimux = await begin(users=[{"name": "ann", "token": TOKEN}, {"name": "bob", "token": bob}])
    aimux.app.gateway.storage.deposits.keep("plain", "default", ["resp_0001"], "ann")
    question = json.dumps({"after": "resp_0001"})
    async with socket(aimux, token=bob) as client:
        await client.send(question)
        assert json.loads(await client.recv()) == {"error": "resp_0001 was not found among what you have stored here."}
        await client.send("hi")
        assert (await client.recv(), await client.recv()) == ('{"delta": "…"}', DONE)
    async with socket(aimux) as client:
        await client.send(question)
        assert (await client.recv(), await client.recv()) == ('{"delta": "…"}', question)
    await ended(aimux)
    assert [line["status"] for line in access(aimux) if line["method"] == "TURN"] == ["404", "200", "200"]


@pytest.mark.parametrize("whose", ["ann", "nobody's"])
async def test_what_only_the_database_knows_is_looked_up_before_a_message_goes_on(
    begin: Begin, far: Far, monkeypatch: pytest.MonkeyPatch, whose: str
) -> None:
    def refers_to(_self: Plain, _head: RequestHead, body: Body) -> tuple[str, ...]:
        return ids_in_body(body, members("after"))

    monkeypatch.setattr(Plain, "refers_to", refers_to)
    bob, got, asked = "test-token-of-bob-0123456789", asyncio.Event(), asyncio.Event()
    far.serve = turns
    aimux = await begin(users=[{"name": "ann", "token": TOKEN}, {"name": "bob", "token": bob}])
    storage = aimux.app.gateway.storage
    storage.deposits.keep("plain", "default", ["resp_0002"], "ann")

    async def look_up(keys: Sequence[tuple[str, str]]) -> None:
        assert list(keys) == [("plain", "resp_0001")]
        asked.set()
        await got.wait()
        if whose == "ann":
            storage.deposits.keep("plain", "default", ["resp_0001"], "ann", lasts=None)

    monkeypatch.setattr(storage, "_written", look_up)
    question = json.dumps({"after": "resp_0001"})
    async with socket(aimux, token=bob) as client:
        await client.send(question)
        await client.send("behind it")
        async with asyncio.timeout(10):
            await asked.wait()
        got.set()
        if whose == "ann":
            told = {"error": "resp_0001 was not found among what you have stored here."}
            assert json.loads(await client.recv()) == told
        else:
            assert (await client.recv(), await client.recv()) == ('{"delta": "…"}', question)
        assert (await client.recv(), await client.recv()) == ('{"delta": "…"}', DONE)
    await ended(aimux)
    statuses = [line["status"] for line in access(aimux) if line["method"] == "TURN"]
    assert statuses == (["404", "200"] if whose == "ann" else ["200"]), "a second question is one turn with the first"


async def test_a_socket_that_is_closed_while_that_is_looked_up_asks_nothing_more(
    begin: Begin, far: Far, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Plain, "refers_to", lambda _self, _head, body: ids_in_body(body, members("after")))
    got, asked = asyncio.Event(), asyncio.Event()
    aimux = await begin(users=[{"name": "ann", "token": TOKEN}])
    storage = aimux.app.gateway.storage
    storage.deposits.keep("plain", "default", ["resp_0002"], "bob")

    async def look_up(_keys: Sequence[tuple[str, str]]) -> None:
        asked.set()
        await got.wait()

    monkeypatch.setattr(storage, "_written", look_up)
    async with socket(aimux) as client:
        await client.send(json.dumps({"after": "resp_0001"}))
        async with asyncio.timeout(10):
            await asked.wait()
        aimux.app.gateway.sockets.drain()
        got.set()
        with pytest.raises(ConnectionClosed, match="1001"):
            await client.recv()
    await ended(aimux)
    assert [line["method"] for line in access(aimux)] == ["GET"]


@pytest.mark.parametrize("why", ["disabled", "gone", "reserved", "limited"])
async def test_a_socket_whose_account_serves_no_more_is_closed_before_its_next_turn(
    begin: Begin, far: Far, why: str
) -> None:
    """Codex keeps its socket for an hour, and connects again at once."""
    far.serve = turns
    aimux = await begin(accounts=("default", "two"))
    async with socket(aimux) as client:
        await client.send("question")
        assert (await client.recv(), await client.recv()) == ('{"delta": "…"}', DONE)
        (account,) = (one for one in aimux.app.accounts() if one.in_flight)
        if why == "disabled":
            account.disable()
        elif why == "gone":
            del aimux.app.pools["plain"].accounts[account.name]
        elif why == "reserved":
            account.settings = AccountSettings(groups=("others",))
            aimux.app.pools["plain"].reserve(frozenset({"others"}))
        else:
            account.apply(Verdict(Action.COOL_DOWN, "used up", until=time.time() + 60), time.time())
        await client.send("question")
        with pytest.raises(ConnectionClosed, match="1012"):
            await client.recv()
    async with socket(aimux) as client:
        await client.send("question")
        assert (await client.recv(), await client.recv()) == ('{"delta": "…"}', DONE)
    await ended(aimux)
    served = [line["account"] for line in access(aimux) if line["method"] == "TURN"]
    assert sorted(served) == ["default", "two"]


async def test_a_reload_and_another_name_leave_a_socket_where_it_is(begin: Begin, far: Far) -> None:
    far.serve = turns
    aimux = await begin(accounts=("default", "two"))
    async with socket(aimux) as client:
        assert await aimux.app.reload()
        (account,) = (one for one in aimux.app.accounts() if one.in_flight)
        await aimux.app.pools["plain"].rename(account.name, "renamed")
        await client.send("question")
        assert (await client.recv(), await client.recv()) == ('{"delta": "…"}', DONE)


async def test_where_every_account_is_limited_a_socket_stays(begin: Begin, far: Far) -> None:
    far.serve = turns
    aimux = await begin(accounts=("default", "two"))
    async with socket(aimux) as client:
        for account in aimux.app.accounts():
            account.apply(Verdict(Action.COOL_DOWN, "used up", until=time.time() + 60), time.time())
        await client.send("question")
        assert (await client.recv(), await client.recv()) == ('{"delta": "…"}', DONE)


async def test_a_turn_that_the_upstream_closes_in_its_middle_is_the_upstreams_loss(begin: Begin, far: Far) -> None:
    async def busy(server: ServerConnection) -> None:
        async for _ in server:
            await server.send('{"delta": "…"}')
            await server.close(1013, "busy")

    far.serve = busy
    aimux = await begin()
    async with socket(aimux) as client:
        await client.send("question")
        assert await client.recv() == '{"delta": "…"}'
        with pytest.raises(ConnectionClosed, match="1013"):
            await client.recv()
    await ended(aimux)
    turn, line = access(aimux)
    assert (turn["method"], turn["error"], line["error"]) == ("TURN", "upstream_lost", "-")
