"""Failing over: which answer a client gets, and what the accounts remember. The upstream answers by account."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from aimux.accounts import Account
from aimux.gateway import attempts
from aimux.plugin import Credential, RequestHead, RequestRefused
from aimux.plugin import Upstream as Target
from tests.waiting import until

from .answers import OK, account_of, error, head_of, script, state, status_of
from .conftest import SECRET, Aimux, Plain, Start, Upstream, request


@pytest.fixture
async def start(start: Start) -> AsyncIterator[Start]:
    """At the end nothing is under way any more, on whatever account: each attempt has ended."""
    started: list[Aimux] = []

    async def run(**settings: Any) -> Aimux:
        started.append(await start(**settings))
        return started[-1]

    yield run
    await until(lambda: not any(account.in_flight for aimux in started for account in aimux.app.accounts()))


async def test_a_limited_account_is_left_for_the_next(start: Start, upstream: Upstream) -> None:
    asked = script(upstream, {"default": error(429, "retry-after: 30"), "two": OK})
    aimux = await start(accounts=("default", "two"))
    statuses = [status_of(await aimux.send(request(body=b"{}"))) for _ in range(4)]
    assert statuses == [200] * 4
    assert asked.count("default") <= 1
    if "default" in asked:
        assert state(aimux, "default") == "cooling"


async def test_every_account_limited_gives_the_last_real_answer_and_the_soonest_retry(
    start: Start, upstream: Upstream
) -> None:
    body = b'{"error":"the upstream\'s own words"}'
    script(
        upstream,
        {
            "default": error(429, "retry-after: 300", "x-kept: 1", body=body),
            "two": error(429, "retry-after: 20", "x-kept: 1", body=body),
        },
    )
    aimux = await start(accounts=("default", "two"))
    for _ in range(2):  # at once, and when both are known to be limited
        answer = await aimux.send(request(body=b"{}"))
        assert status_of(answer) == 429
        assert answer.endswith(body)
        assert b"x-kept: 1" in answer
        assert 15 <= int(re.findall(rb"retry-after: (\d+)", answer)[0]) <= 20


async def test_a_sole_account_keeps_its_own_error(start: Start, upstream: Upstream) -> None:
    asked = script(upstream, {"default": error(429, "retry-after: 7")})
    aimux = await start()
    for _ in range(2):
        answer = await aimux.send(request())
        assert status_of(answer) == 429
        assert b"retry-after: 7\r\n" in answer
    assert asked == ["default"] * 2


@pytest.mark.parametrize("lasting", [False, True])
@pytest.mark.parametrize("several", [False, True])
async def test_a_burst_is_waited_for_once(
    start: Start, upstream: Upstream, monkeypatch: pytest.MonkeyPatch, several: bool, lasting: bool
) -> None:
    """A 429 that names no time: Codex gives up at it, and no other account can serve."""
    monkeypatch.setattr(attempts, "BURST_PAUSE", (0.0, 0.0))
    burst, names = error(429), ("default", "two")[: 1 + several]
    asked = script(upstream, {name: [burst, burst if lasting else OK] for name in names})
    aimux = await start(accounts=names)
    assert status_of(await aimux.send(request(body=b"{}"))) == (429 if lasting else 200)
    assert len(asked) == len(names) + 1
    assert asked[-1] == asked[-2]
    assert {state(aimux, name) for name in names} == {"healthy"}


REVOKED = error(403, body=b'{"e":"revoked"}')


@pytest.mark.parametrize("order", [1, -1], ids=["first", "last"])
@pytest.mark.parametrize(
    ("refusal", "other", "told"),
    [(error(401), b"", 502), (error(401), error(503), 503), (REVOKED, error(500), 500)],
    ids=["no answer", "an error", "revoked"],
)
async def test_a_refused_credential_does_not_hide_what_another_account_met(
    start: Start, upstream: Upstream, refusal: bytes, other: bytes, told: int, order: int
) -> None:
    """A client that is told 401 gives up, or looks for a fault in its own token."""
    script(upstream, dict(zip(("default", "two"), (refusal, other)[::order], strict=True)))
    aimux = await start(accounts=("default", "two"))
    assert status_of(await aimux.send(request(body=b"{}"))) == told
    assert aimux.app.gateway.pool.active_exchanges == 0


async def test_half_of_a_refusal_is_none(start: Start, upstream: Upstream) -> None:
    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while sent := await upstream.read(reader):
            if account_of(sent) == "two":
                writer.write(OK)
            else:
                writer.write(REVOKED[:-3])
                return

    upstream.script = run
    aimux = await start(accounts=("default", "two"))
    for _ in range(4):
        assert status_of(await aimux.send(request(body=b"{}"))) == 200
    assert state(aimux, "default") == "healthy"


async def test_a_login_that_was_replaced_is_not_parked_for_the_old_one(start: Start, upstream: Upstream) -> None:
    aimux = await start()
    account = aimux.account()

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while sent := await upstream.read(reader):
            if account_of(sent) == "default":
                account.publish(Credential("api_key", f"{SECRET}-new"), time.time())
                writer.write(REVOKED)
            else:
                writer.write(OK)

    upstream.script = run
    assert status_of(await aimux.send(request())) == 200
    assert state(aimux, "default") == "healthy"


async def test_what_a_renewal_answers_is_none_of_the_attempts(
    start: Start, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last one would be spent on an account that is then parked, and not on one that serves."""
    monkeypatch.setattr(attempts, "PAUSE", (0.0, 0.0))
    aimux = await start(accounts=("default", "two", "three"))
    names = {"two": 1, "three": 2}
    for name, load in names.items():
        aimux.account(name).load(load)
    asked: list[str] = []

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while sent := await upstream.read(reader):
            asked.append(account_of(sent))
            if asked[-1] == "two":
                aimux.account("two").publish(Credential("api_key", f"{SECRET}-again"), time.time())
            writer.write({"default": error(503), "two": error(401), "again": REVOKED}.get(asked[-1], OK))

    upstream.script = run
    assert status_of(await aimux.send(request(body=b"{}"))) == 200
    assert asked == ["default", "two", "again", "three"]
    for name, load in names.items():
        aimux.account(name).load(-load)


async def test_a_refusal_that_a_renewal_has_answered_is_not_what_a_client_hears(
    start: Start, upstream: Upstream
) -> None:
    """A client that is told 401 gives up; one that is told 502 tries again, which helps."""
    aimux = await start()
    account = aimux.account()

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await upstream.read(reader)
        if not upstream.requests[1:]:
            account.publish(Credential("api_key", f"{SECRET}-new"), time.time())
            writer.write(error(401))
            await writer.drain()

    upstream.script = run
    assert status_of(await aimux.send(request())) == 502
    assert len(upstream.requests) == 2


async def test_a_configured_key_that_is_refused_is_parked_with_what_to_do(start: Start, upstream: Upstream) -> None:
    upstream.answer = error(401)
    aimux = await start(
        accounts=(), providers={"plain": {"base_url": f"http://127.0.0.1:{upstream.port}", "api_key": SECRET}}
    )
    await aimux.send(request())
    parked = aimux.account("api-key").parked
    assert parked is not None
    assert parked.remedy == "set providers.plain.api_key"


async def test_a_renewal_that_hangs_does_not_hold_what_another_account_can_serve(
    start: Start, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(upstream, {"two": OK})
    monkeypatch.setattr(attempts, "RENEWAL_SECONDS", 0.05)
    aimux = await start(accounts=("default", "two"))
    hung = aimux.account()

    async def renew(self: Account, rejected: Credential | None = None) -> Credential:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(Account, "renew", renew)
    assert hung.credential is not None
    hung.publish(replace(hung.credential, refresh_token="another", expires_at=1.0), time.time())
    async with asyncio.timeout(10):
        for _ in range(4):
            assert status_of(await aimux.send(request(body=b"{}"))) == 200


@pytest.mark.parametrize("status", [400, 404, 413, 422])
async def test_the_callers_own_fault_is_not_tried_again(start: Start, upstream: Upstream, status: int) -> None:
    asked = script(upstream, {"default": error(status), "two": error(status)})
    aimux = await start(accounts=("default", "two"))
    assert status_of(await aimux.send(request())) == status
    assert len(asked) == 1


async def test_what_one_kind_of_account_cannot_serve_another_may(
    start: Start, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare = Plain.prepare

    def refusing(self: Plain, head: RequestHead, credential: Credential) -> Target:
        if head.path == "/v1/chat" and credential.secret == SECRET:
            raise RequestRefused("a login can't do this")
        return prepare(self, head, credential)

    monkeypatch.setattr(Plain, "prepare", refusing)
    asked = script(upstream, {"default": OK, "two": OK})
    aimux = await start(accounts=("default", "two"))
    assert [status_of(await aimux.send(request())) for _ in range(4)] == [200] * 4
    assert asked == ["two"] * 4
    assert state(aimux, "default") == "healthy"


async def test_what_no_account_can_serve_is_the_callers_fault(
    start: Start, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusing(self: Plain, head: RequestHead, credential: Credential) -> Target:
        raise RequestRefused("a login can't do this")

    monkeypatch.setattr(Plain, "prepare", refusing)
    answer = await (await start(accounts=("default", "two"))).send(request())
    assert status_of(answer) == 400
    assert b"a login can't do this" in answer
    assert b"x-should-retry: false" in answer.lower()
    assert not upstream.requests


async def test_at_most_three_attempts(start: Start, upstream: Upstream) -> None:
    names = ("default", "two", "three", "four", "five")
    asked = script(upstream, dict.fromkeys(names, error(503)))
    aimux = await start(accounts=names)
    assert status_of(await aimux.send(request(body=b"{}"))) == 503
    assert len(asked) == 3
    assert {state(aimux, name) for name in names} == {"healthy"}


@pytest.mark.parametrize("refusal", [error(429), error(500)])
async def test_where_one_has_failed_those_that_have_served_come_before_others_that_failed(
    start: Start, upstream: Upstream, monkeypatch: pytest.MonkeyPatch, refusal: bytes
) -> None:
    """The attempts are few: accounts that go on failing must not use them up among themselves."""
    monkeypatch.setattr(attempts, "PAUSE", (0.0, 0.0))
    names = ("default", "b", "c", "d", "e", "f")
    asked = script(upstream, {name: OK if name == "f" else refusal for name in names})
    aimux = await start(accounts=names)
    pool = aimux.app.pools["plain"]
    pool.accounts["f"].load(1)
    assert status_of(await aimux.send(request(body=b"{}"))) == status_of(refusal)
    for _ in range(5):
        pool.accounts["f"].load(1)
        assert status_of(await aimux.send(request(body=b"{}"))) == 200
    assert asked.count("f") == 5
    pool.accounts["f"].load(-6)
    assert {state(aimux, name) for name in names} == {"healthy"}


async def test_an_upstream_that_hangs_up_is_tried_elsewhere(start: Start, upstream: Upstream) -> None:
    asked = script(upstream, {"default": b"", "two": OK})
    aimux = await start(accounts=("default", "two"))
    assert [status_of(await aimux.send(request(body=b"{}"))) for _ in range(3)] == [200] * 3
    assert "two" in asked


async def test_an_upstream_that_only_hangs_up_gives_502(start: Start, upstream: Upstream) -> None:
    script(upstream, {"default": b""})
    aimux = await start()
    answer = await aimux.send(request())
    assert status_of(answer) == 502
    assert b'{"plain": "plain gave no answer: ' in answer


STREAMED = b'{"model":"m","messages":[{"content":"say \\"stream\\": false"}], "stream" : true}'
WHOLE = b'{"model":"m","messages":[{"content":"say \\"stream\\":true"}],"stream":false}'


@pytest.mark.parametrize(
    ("timeouts", "body", "late"),
    [
        ({"request_timeout": "200ms"}, b"{}", True),
        ({"request_timeout": "200ms"}, STREAMED, True),
        ({"stream_start_timeout": "200ms"}, STREAMED, True),
        ({"stream_start_timeout": "200ms"}, STREAMED[:-1] + b',"x":"' + b"x" * 100_000 + b'"}', True),
        ({"stream_start_timeout": "200ms"}, WHOLE, False),
        ({"stream_start_timeout": "200ms"}, b"", False),
    ],
)
async def test_an_upstream_that_answers_nothing_gives_504_in_time(
    start: Start, upstream: Upstream, timeouts: dict[str, str], body: bytes, late: bool
) -> None:
    """An answer that is not streamed has no head until the model is done: minutes are usual."""

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await upstream.read(reader)
        await (reader.read() if late else asyncio.sleep(0.6))  # until aimux hangs up
        writer.write(OK)

    upstream.script = slow
    aimux = await start(**timeouts)
    answer = await aimux.send(request(body=body, method="POST" if body else "GET"))
    assert status_of(answer) == (504 if late else 200)
    assert (b"x-should-retry: false" in head_of(answer)) is late, "who tries again waits as long once more"
    assert aimux.app.gateway.pool.active_exchanges == 0


async def test_nobody_listening_gives_502(start: Start) -> None:
    aimux = await start(providers={"plain": {"base_url": "http://127.0.0.1:1"}})
    answer = await aimux.send(request())
    assert status_of(answer) == 502
    assert b"can't be reached" in answer


async def test_a_refused_key_parks_its_account_and_the_others_go_on(start: Start, upstream: Upstream) -> None:
    asked = script(upstream, {"default": error(401), "two": OK})
    aimux = await start(accounts=("default", "two"))
    assert [status_of(await aimux.send(request(body=b"{}"))) for _ in range(4)] == [200] * 4
    assert asked.count("default") in {0, 2}, "once for the client, once to be sure"
    assert state(aimux, "default") in {"parked", "healthy"}


@pytest.mark.parametrize("said", [(), ("X-Should-Retry: true",), ("x-should-retry: false",)])
async def test_a_refused_sole_key_is_told_without_inviting_retries(
    start: Start, upstream: Upstream, said: tuple[str, ...]
) -> None:
    script(upstream, {"default": error(401, *said, body=b'{"e":"bad key"}')})
    aimux = await start()
    first = await aimux.send(request())
    assert status_of(first) == 401
    assert head_of(first).count(b"x-should-retry") == 1, "Claude Code takes two for none"
    assert b"x-should-retry: false" in first
    assert first.endswith(b'{"e":"bad key"}')
    second = await aimux.send(request())
    assert status_of(second) == 503
    assert b"x-should-retry: false" in second.lower()
    assert b"out of service" in second


@pytest.mark.parametrize("location", ["https://elsewhere.example/v1?x=secret", "/v1/elsewhere"])
async def test_a_redirect_is_not_passed_on(start: Start, upstream: Upstream, location: str) -> None:
    """Clients follow it with their aimux token: `Authorization` stays behind when the origin changes, x-api-key not."""
    head = f"HTTP/1.1 307 Temporary Redirect\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n"
    script(upstream, {"default": head.encode()})
    answer = await (await start()).send(request())
    assert status_of(answer) == 502
    assert b"\r\nlocation:" not in answer.lower()
    assert b"x-should-retry: false" in answer.lower()
    assert b"redirects (307)" in answer
    assert b"secret" not in answer


async def test_what_is_free_has_limits_of_its_own(start: Start, upstream: Upstream) -> None:
    """CLIProxyAPI#3326: an account that counts no more tokens for now has room for messages."""
    asked = script(upstream, {"default": [error(429, "retry-after: 30"), OK], "two": OK})
    aimux = await start(accounts=("default", "two"))
    aimux.account("two").load(1)
    assert status_of(await aimux.send(request("/plain/v1/files", method="GET", body=b""))) == 200
    assert asked == ["default", "two"]
    assert state(aimux, "default") == "healthy"
    aimux.account("two").load(-1)


async def test_its_refusal_is_what_the_client_hears_of_the_only_account(start: Start, upstream: Upstream) -> None:
    asked = script(upstream, {"default": error(429, "retry-after: 30")})
    answer = await (await start()).send(request("/plain/v1/files", method="GET", body=b""))
    assert (status_of(answer), b"retry-after: 30" in answer, len(asked)) == (429, True, 1)


UNREADABLE = error(400, body=b'{"e":"unreadable"}')


async def test_what_an_account_cannot_read_goes_to_the_one_that_made_it(start: Start, upstream: Upstream) -> None:
    """A conversation whose account aimux has forgotten, after a restart say; from then on it stays there."""
    asked = script(upstream, {"default": UNREADABLE, "two": UNREADABLE, "three": OK})
    aimux = await start(accounts=("default", "two", "three"))
    aimux.account("three").load(1)
    for _ in range(2):
        assert status_of(await aimux.send(request(headers="X-Conversation: c\r\n"))) == 200
    assert sorted(asked[:2]) == ["default", "two"]
    assert asked[2:] == ["three", "three"]
    assert state(aimux, "default") == "healthy"
    aimux.account("three").load(-1)


async def test_that_it_is_limited_is_what_a_client_hears_then(start: Start, upstream: Upstream) -> None:
    script(upstream, {"default": error(429, "retry-after: 30", body=b'{"e":"limited"}'), "two": UNREADABLE})
    aimux = await start(accounts=("default", "two"))
    aimux.account("two").load(1)
    for _ in range(2):
        assert status_of(await aimux.send(request(body=b"{}"))) == 429
    aimux.account("two").load(-1)


async def test_nobody_can_read_it(start: Start, upstream: Upstream) -> None:
    asked = script(upstream, {"default": UNREADABLE, "two": UNREADABLE})
    answer = await (await start(accounts=("default", "two"))).send(request(body=b"{}"))
    assert (status_of(answer), b"unreadable" in answer, len(asked)) == (400, True, 2)
