"""A 401 of one request: what it says about the account, and what it doesn't."""

from __future__ import annotations

import asyncio
import re
import time
from unittest.mock import create_autospec

import pytest

from aimux.accounts.account import Renewal
from aimux.gateway import credential_checks
from aimux.plugin import Credential, RefreshUnavailable

from .answers import OK, account_of, body_of, error, state, status_of
from .conftest import SECRET, Aimux, Start, Upstream, request

REFUSED = error(401, body=b'{"error":"the credential"}')
PAGE = error(401, "content-type: text/html", body=b"<html>log in to the proxy</html>")
ODD = "Origin: app://notes\r\n"


def answering(upstream: Upstream, *, cheapest: bytes, odd: bytes = REFUSED) -> list[str]:
    """`odd` to a request with an `Origin`, `cheapest` to the cheapest one, else 200. Returns who asked what."""
    asked: list[str] = []

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while sent := await upstream.read(reader):
            path = sent.split(b" ", 2)[1].decode()
            asked.append(f"{account_of(sent)} {path}")
            answer = cheapest if path == "/v1/models" else odd if b"Origin:" in sent else OK
            if not answer:
                return
            writer.write(answer)
            await writer.drain()

    upstream.script = run
    return asked


async def odd_one(aimux: Aimux) -> bytes:
    return await aimux.send(request(headers=ODD))


@pytest.mark.parametrize("served", [True, False])
async def test_a_request_that_is_refused_whoever_sends_it_parks_nobody(
    start: Start, upstream: Upstream, served: bool
) -> None:
    asked = answering(upstream, cheapest=OK)
    aimux = await start(accounts=("default", "two", "three"))
    for _ in range(3 * served):
        assert status_of(await aimux.send(request(body=b"{}"))) == 200
    answer = await odd_one(aimux)
    assert (status_of(answer), body_of(answer)) == (401, b'{"error":"the credential"}')
    assert b"x-should-retry: false" in answer
    assert {state(aimux, name) for name in ("default", "two", "three")} == {"healthy"}
    assert status_of(await aimux.send(request())) == 200
    assert len(asked) <= 10


@pytest.mark.parametrize(
    "cheapest", [PAGE, error(500), b"", error(429, "retry-after: 9")], ids=["page", "500", "gone", "429"]
)
async def test_nor_does_one_whose_credential_nobody_could_check(
    start: Start, upstream: Upstream, cheapest: bytes
) -> None:
    answering(upstream, cheapest=cheapest)
    aimux = await start()
    assert status_of(await odd_one(aimux)) == 401
    assert state(aimux, "default") == "healthy"


async def test_a_page_of_something_in_between_says_nothing_about_the_account(start: Start, upstream: Upstream) -> None:
    asked = answering(upstream, cheapest=REFUSED, odd=PAGE)
    aimux = await start(accounts=("default", "two"))
    answer = await odd_one(aimux)
    assert (status_of(answer), body_of(answer)) == (401, b"<html>log in to the proxy</html>")
    assert {state(aimux, "default"), state(aimux, "two")} == {"healthy"}
    assert sorted(asked) == ["default /v1/chat", "two /v1/chat"]


async def test_a_credential_that_never_served_and_is_refused_in_the_cheapest_request_too_parks(
    start: Start, upstream: Upstream
) -> None:
    answering(upstream, cheapest=REFUSED)
    aimux = await start()
    assert status_of(await odd_one(aimux)) == 401
    assert state(aimux, "default") == "parked"


@pytest.mark.parametrize("serves", [True, False])
async def test_one_that_somebody_else_has_renewed_and_is_refused_all_the_same_is_renewed(
    start: Start, upstream: Upstream, monkeypatch: pytest.MonkeyPatch, serves: bool
) -> None:
    """Where its third credential is refused, too, another account serves the request."""
    aimux = await start(accounts=("default", "two"))
    account = aimux.account()
    second, third = (Credential("oauth", f"{SECRET}-{name}", refresh_token="refresh") for name in ("second", "third"))
    good = f"{SECRET}-{'third' if serves else 'two'}".encode()

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while sent := await upstream.read(reader):
            if account.credential not in {second, third}:
                account.publish(second, time.time())
            writer.write(OK if good in sent else REFUSED)

    async def renew(rejected: Credential | None = None) -> Credential:
        assert rejected == second
        account.publish(third, time.time(), renewed=True)
        return third

    upstream.script = run
    renewal = create_autospec(Renewal, instance=True, trouble=("", ""), refused=False)
    renewal.renew.side_effect = renew
    monkeypatch.setattr(account, "renewer", renewal)
    assert status_of(await aimux.send(request())) == 200
    assert state(aimux, "default") == ("healthy" if serves else "parked")


@pytest.mark.parametrize(("method", "ends"), [("GET", "healthy"), ("POST", "parked")])
async def test_a_list_alone_that_a_fresh_credential_is_refused_parks_nobody(
    start: Start, upstream: Upstream, monkeypatch: pytest.MonkeyPatch, method: str, ends: str
) -> None:
    """openai/codex#38679: the backend lists no models to some logins (401), and answers all that they ask it."""
    answering(upstream, cheapest=REFUSED)
    aimux = await start()
    account, fresh = aimux.account(), Credential("oauth", f"{SECRET}-fresh", refresh_token="refresh")
    account.publish(Credential("oauth", SECRET, refresh_token="refresh"), time.time())

    async def renew(rejected: Credential | None = None) -> Credential:
        account.publish(fresh, time.time(), renewed=True)
        return fresh

    renewal = create_autospec(Renewal, instance=True, trouble=("", ""), refused=False)
    renewal.renew.side_effect = renew
    monkeypatch.setattr(account, "renewer", renewal)
    body = b"" if method == "GET" else b"{}"
    answer = await aimux.send(request("/plain/v1/models", method=method, body=body))
    assert status_of(answer) == 401
    assert state(aimux, "default") == ends


async def test_one_that_is_refused_and_cannot_be_renewed_for_now_is_no_401_to_the_client(
    start: Start, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whom a client tells to sign in again can do nothing; in some seconds there may be another credential."""
    answering(upstream, cheapest=REFUSED)
    aimux = await start()
    account = aimux.app.pools["plain"].accounts["default"]
    account.publish(Credential("oauth", SECRET, refresh_token="refresh"), time.time())

    async def renew(rejected: Credential | None = None) -> Credential:
        account.keep_off(time.time() + 5, time.time(), "the token endpoint answered 500")
        raise RefreshUnavailable("the token endpoint answered 500")

    renewal = create_autospec(Renewal, instance=True, trouble=("", ""), refused=False)
    renewal.renew.side_effect = renew
    monkeypatch.setattr(account, "renewer", renewal)
    answer = await odd_one(aimux)
    assert (status_of(answer), b"retry-after: 5" in answer) == (503, True)
    assert b"can't be renewed for now" in body_of(answer)


async def test_one_that_has_served_does_not_and_others_go_on(start: Start, upstream: Upstream) -> None:
    """A key whose scopes leave the list of models out is refused there, and serves all the same."""
    answering(upstream, cheapest=REFUSED)
    aimux = await start()
    assert status_of(await aimux.send(request())) == 200
    assert status_of(await aimux.send(request("/plain/v1/models", method="GET", body=b""))) == 401
    assert status_of(await odd_one(aimux)) == 401
    assert state(aimux, "default") == "healthy"
    assert status_of(await aimux.send(request())) == 200


async def test_one_that_is_refused_again_and_again_lets_the_others_go_first(start: Start, upstream: Upstream) -> None:
    """A revoked key would otherwise be asked first by every other request, and be shown as healthy."""
    revoked = False

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while sent := await upstream.read(reader):
            writer.write(REFUSED if revoked and account_of(sent) == "default" else OK)

    upstream.script = run
    providers = {"plain": {"base_url": f"http://127.0.0.1:{upstream.port}", "strategy": "round_robin"}}
    aimux = await start(accounts=("default", "two"), providers=providers)

    async def chat(times: int) -> list[int]:
        return [status_of(await aimux.send(request(body=b"{}"))) for _ in range(times)]

    assert await chat(4) == [200] * 4
    revoked = True
    assert await chat(8) == [200] * 8
    assert state(aimux, "default") == "cooling"
    told = aimux.account().state(time.time())
    assert told.remedy == "if it was revoked, put in another: aimux login plain --account default --api-key"
    asked = len(upstream.requests)
    assert await chat(4) == [200] * 4
    assert "default" not in {account_of(sent) for sent in upstream.requests[asked:]}
    aimux.account("two").disable()
    assert await chat(1) == [401], "the client hears its vendor's own answer"
    revoked = False
    assert await chat(1) == [200]
    assert state(aimux, "default") == "healthy", "what serves is not refused any more"


async def test_what_is_refused_with_one_account_is_tried_with_another(start: Start, upstream: Upstream) -> None:
    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while sent := await upstream.read(reader):
            writer.write(REFUSED if account_of(sent) == "default" and b"/v1/chat" in sent else OK)

    upstream.script = run
    aimux = await start(accounts=("default", "two"))
    assert [status_of(await aimux.send(request(body=b"{}"))) for _ in range(4)] == [200] * 4
    assert state(aimux, "default") == "healthy"


async def test_a_crowd_of_refused_requests_asks_once(start: Start, upstream: Upstream) -> None:
    asked = answering(upstream, cheapest=OK)
    aimux = await start()
    answers = await asyncio.gather(*(odd_one(aimux) for _ in range(20)))
    assert {status_of(answer) for answer in answers} == {401}
    assert asked.count("default /v1/models") == 1
    assert asked.count("default /v1/chat") == 20


@pytest.mark.parametrize(
    ("cheapest", "asks"), [(OK, 2), (error(500), 2), (REFUSED, 1)], ids=["accepted", "500", "refused"]
)
async def test_an_answer_holds_for_a_moment_and_a_refusal_longer(
    start: Start, upstream: Upstream, monkeypatch: pytest.MonkeyPatch, cheapest: bytes, asks: int
) -> None:
    """What was accepted a moment ago may have ended since; who waited half a minute for that was refused meanwhile."""
    monkeypatch.setattr(credential_checks, "LASTS", 0.0)
    asked = answering(upstream, cheapest=cheapest)
    aimux = await start()
    assert status_of(await aimux.send(request(body=b"{}"))) == 200
    for _ in range(2):
        assert status_of(await odd_one(aimux)) == 401
    assert asked.count("default /v1/models") == asks


async def test_a_client_that_leaves_takes_no_answer_from_the_others(start: Start, upstream: Upstream) -> None:
    answer = asyncio.Event()

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while sent := await upstream.read(reader):
            if b"/v1/models" in sent:
                await answer.wait()
            writer.write(OK if b"/v1/models" in sent else REFUSED)

    upstream.script = run
    aimux = await start()
    _, leaving = await aimux.connect()
    leaving.write(request(headers=ODD))
    await upstream.until(lambda: any(b"/v1/models" in sent for sent in upstream.requests))
    staying = asyncio.create_task(odd_one(aimux))
    await upstream.until(lambda: len(upstream.requests) == 3)
    leaving.transport.abort()
    answer.set()
    assert status_of(await staying) == 401
    assert state(aimux, "default") == "healthy"
    assert len(re.findall(rb"GET /v1/models", b"".join(upstream.requests))) == 1
