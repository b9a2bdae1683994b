"""The providers against faithful upstreams: logins, renewals, and what each failure is taken for."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest
from multidict import CIMultiDict

from aimux.accounts import ControlHttp
from aimux.plugin import Action, LoginError, Provider, RefreshRejected, RefreshUnavailable, RequestHead, Usage, Verdict
from aimux.simulator import Simulator
from aimux.simulator.demo import credential_file, provider_settings
from aimux_chatgpt import ChatGPT
from aimux_claude import Claude

MESSAGE = {"model": "claude-sonnet-5", "max_tokens": 100, "messages": [{"role": "user", "content": "Grüß Gott"}]}
RESPONSE = {"model": "gpt-5.5", "input": "Grüß Gott", "store": False}
CHAT = {"model": "gpt-5.5", "messages": [{"role": "user", "content": "Grüß Gott"}]}
VERIFIER = "v" * 64
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()


class World:
    """A simulator and the providers that are configured for it."""

    def __init__(self, sim: Simulator, http: ControlHttp, session: aiohttp.ClientSession) -> None:
        self.sim, self.http, self.session = sim, http, session
        settings = provider_settings(sim.url)
        self.claude = Claude(Claude.Settings(**settings["claude"]))
        self.chatgpt = ChatGPT(ChatGPT.Settings(**settings["chatgpt"]))

    def provider(self, name: str) -> Provider:
        return self.claude if name == "claude" else self.chatgpt

    def login(self, account: str) -> bytes:
        """The credential file of an account of the simulator."""
        owner = self.sim.accounts[account]
        if owner.api_key is not None:
            return self.provider(account.partition("-")[0]).api_key_file(owner.api_key)
        return credential_file(owner)

    async def ask(
        self, provider: Provider, raw: bytes, target: str, body: dict[str, Any] | None, scenario: str = "ok"
    ) -> tuple[RequestHead, int, CIMultiDict[str], bytes]:
        """A client's request, sent as `prepare` says."""
        method = "GET" if body is None else "POST"
        head = RequestHead(method, target, CIMultiDict({"anthropic-version": "2023-06-01", "x-simulator": scenario}))
        upstream = provider.prepare(head, provider.parse_credential(raw))
        headers = {name: value for name, value in head.headers.items() if name not in upstream.drop_headers}
        async with self.session.request(
            method, upstream.base_url + upstream.target, json=body, headers=headers | dict(upstream.set_headers)
        ) as answer:
            return head, answer.status, CIMultiDict(answer.headers), await answer.read()

    async def judged(self, name: str, scenario: str) -> Verdict:
        provider = self.provider(name)
        target, body = ("/v1/messages", MESSAGE) if name == "claude" else ("/v1/responses", RESPONSE)
        _, status, headers, payload = await self.ask(provider, self.login(name), target, body, scenario)
        assert status >= 400
        return provider.classify(status, headers, payload, model=str(body["model"]))

    async def used(self, raw: bytes, provider: Provider, target: str, body: dict[str, Any]) -> Usage:
        head, status, headers, payload = await self.ask(provider, raw, target, body)
        assert status == 200
        meter = provider.meter(head, status, headers)
        assert meter is not None
        meter.feed(payload)
        meter.end()
        assert meter.complete
        return meter.usage

    async def sign_in(self, provider: Provider, redirect: str) -> tuple[str, str]:
        """What a browser is sent back with: code and state."""
        url = provider.authorization_url(redirect_uri=redirect, state="the-state-0123456789", challenge=CHALLENGE)
        async with self.session.get(url, allow_redirects=False) as answer:
            assert answer.status == 302, await answer.text()
            query = parse_qs(urlsplit(answer.headers["location"]).query)
        return query.get("code", [""])[0], query["state"][0]


@pytest.fixture
async def world() -> AsyncIterator[World]:
    http = ControlHttp()
    async with Simulator() as sim, aiohttp.ClientSession() as session:
        yield World(sim, http, session)
    await http.close()


@pytest.mark.parametrize(("name", "flow"), [("claude", "loopback"), ("claude", "paste"), ("chatgpt", "loopback")])
async def test_a_login_by_browser(world: World, name: str, flow: str) -> None:
    provider = world.provider(name)
    redirect = provider.redirect_uri(flow, 1455)
    code, state = await world.sign_in(provider, redirect)
    exchange = {"code": code, "state": state, "verifier": VERIFIER, "redirect_uri": redirect}
    raw = await provider.exchange(world.http, **exchange)
    credential = provider.parse_credential(raw)
    owner = world.sim.accounts[name]
    assert (credential.secret, credential.account_id) == (owner.access_token, owner.account_id)
    assert credential.renewable
    with pytest.raises(LoginError, match="start again"):
        await provider.exchange(world.http, **exchange)


@pytest.mark.parametrize("name", ["claude", "chatgpt"])
async def test_a_code_is_worth_nothing_without_its_verifier(world: World, name: str) -> None:
    provider = world.provider(name)
    redirect = provider.redirect_uri("loopback", 1455)
    code, state = await world.sign_in(provider, redirect)
    with pytest.raises(LoginError):
        await provider.exchange(world.http, code=code, state=state, verifier="w" * 64, redirect_uri=redirect)


async def test_a_login_with_the_device_flow(world: World) -> None:
    world.sim.oauth_openai.consent.mode = "ask"
    device = await world.chatgpt.device_start(world.http)
    assert await world.chatgpt.device_poll(world.http, device) is None
    async with world.session.post(
        device.verification_url, data={"user_code": device.user_code, "decision": "approve"}
    ) as answer:
        assert answer.status == 200
    raw = await world.chatgpt.device_poll(world.http, device)
    assert raw is not None
    assert world.chatgpt.parse_credential(raw).secret == world.sim.accounts["chatgpt"].access_token


async def test_a_device_login_that_is_denied(world: World) -> None:
    world.sim.oauth_openai.consent.mode = "deny"
    device = await world.chatgpt.device_start(world.http)
    with pytest.raises(LoginError):
        await world.chatgpt.device_poll(world.http, device)


@pytest.mark.parametrize("name", ["claude", "chatgpt"])
async def test_a_rotated_refresh_token_is_used_once(world: World, name: str) -> None:
    provider, owner = world.provider(name), world.sim.accounts[name]
    first = world.login(name)
    second = await provider.refresh(first, world.http)
    old, new = provider.parse_credential(first), provider.parse_credential(second)
    assert (new.secret, new.refresh_token) == (owner.access_token, owner.refresh_token)
    assert old.refresh_token != new.refresh_token
    assert (new.account_id, new.organization, new.plan) == (old.account_id, old.organization, old.plan)
    with pytest.raises(RefreshRejected):
        await provider.refresh(first, world.http)


@pytest.mark.parametrize("name", ["claude", "chatgpt"])
async def test_a_refresh_token_that_is_not_rotated_stays(world: World, name: str) -> None:
    provider = world.provider(name)
    world.sim.accounts[name].on_refresh("no-rotation")
    first = world.login(name)
    second = await provider.refresh(first, world.http)
    assert provider.parse_credential(second).refresh_token == provider.parse_credential(first).refresh_token
    assert provider.parse_credential(second).secret != provider.parse_credential(first).secret


@pytest.mark.parametrize("name", ["claude", "chatgpt"])
@pytest.mark.parametrize("scenario", ["404", "429", "500", "502", "503", "drop", "307"])
async def test_a_renewal_that_may_work_later(world: World, name: str, scenario: str) -> None:
    world.sim.accounts[name].on_refresh(scenario)
    with pytest.raises(RefreshUnavailable):
        await world.provider(name).refresh(world.login(name), world.http)


@pytest.mark.parametrize("name", ["claude", "chatgpt"])
async def test_a_revoked_login_is_refused(world: World, name: str) -> None:
    raw = world.login(name)
    world.sim.accounts[name].revoke()
    with pytest.raises(RefreshRejected):
        await world.provider(name).refresh(raw, world.http)


@pytest.mark.parametrize(
    ("name", "scenario", "action"),
    [
        ("claude", "401", Action.REFRESH),
        ("claude", "403:revoked", Action.REFRESH),
        ("claude", "403:disabled", Action.PARK),
        ("claude", "403:organization", Action.REFRESH),
        ("claude", "429", Action.BACK_OFF),
        ("claude", "429:60", Action.COOL_DOWN),
        ("claude", "429:extra-usage", Action.MISSING),
        ("claude", "400", Action.RELAY),
        ("claude", "404", Action.RELAY),
        ("claude", "500", Action.BACK_OFF),
        ("claude", "502", Action.BACK_OFF),
        ("claude", "529", Action.BACK_OFF),
        ("chatgpt", "401", Action.REFRESH),
        ("chatgpt", "429", Action.BACK_OFF),
        ("chatgpt", "429:60", Action.COOL_DOWN),
        ("chatgpt", "400", Action.RELAY),
        ("chatgpt", "404", Action.RELAY),
        ("chatgpt", "500", Action.BACK_OFF),
        ("chatgpt", "503", Action.BACK_OFF),
    ],
)
async def test_what_a_failure_is_taken_for(world: World, name: str, scenario: str, action: Action) -> None:
    assert (await world.judged(name, scenario)).action is action


async def test_a_model_limit_is_the_models(world: World) -> None:
    verdict = await world.judged("claude", "429:60:7d_oi")
    assert (verdict.action, verdict.model) == (Action.COOL_DOWN, "claude-sonnet-5")
    assert (await world.judged("claude", "429:60:7d")).model is None


@pytest.mark.parametrize(("name", "target"), [("claude", "/v1/messages"), ("chatgpt", "/v1/responses")])
@pytest.mark.parametrize("scenario", ["overload", "overload-error"])
async def test_an_overload_inside_a_200(world: World, name: str, target: str, scenario: str) -> None:
    provider, body = world.provider(name), (MESSAGE if name == "claude" else RESPONSE) | {"stream": True}
    _, status, headers, payload = await world.ask(provider, world.login(name), target, body, scenario)
    verdict = provider.opening(headers, payload)
    assert status == 200
    assert verdict is not None
    assert verdict.action is Action.BACK_OFF
    _, _, headers, late = await world.ask(provider, world.login(name), target, body, f"{scenario}:3")
    verdict = provider.opening(headers, late)
    assert verdict is not None
    assert verdict.action is Action.RELAY, "content came first"


async def test_usage_is_the_same_streamed_or_not(world: World) -> None:
    key = world.chatgpt.api_key_file(world.sim.accounts["openai-key"].api_key or "")
    for provider, raw, target, body, more in (
        (world.claude, world.login("claude"), "/v1/messages", MESSAGE, {}),
        (world.chatgpt, key, "/v1/responses", RESPONSE, {}),
        (world.chatgpt, key, "/v1/chat/completions", CHAT, {"stream_options": {"include_usage": True}}),
    ):
        whole = await world.used(raw, provider, target, body)
        streamed = await world.used(raw, provider, target, body | {"stream": True} | more)
        assert whole.total_input > 0
        assert whole.output_tokens > 0
        assert whole.model == body["model"]
        assert (streamed.model, streamed.output_tokens) == (whole.model, whole.output_tokens), target
        assert streamed.total_input > 0, target


@pytest.mark.parametrize("name", ["claude", "chatgpt"])
async def test_windows_and_what_is_hidden(world: World, name: str) -> None:
    provider = world.provider(name)
    target, body = ("/v1/messages", MESSAGE) if name == "claude" else ("/v1/responses", RESPONSE)
    _, _, headers, _ = await world.ask(provider, world.login(name), target, body | {"stream": True}, "leaky")
    windows = {window.name: window for window in provider.limits(headers)}
    assert {"5h", "7d"} <= windows.keys()
    assert all(window.resets_at for window in windows.values() if window.scope is None)
    owner = world.sim.accounts[name]
    naming = {key.lower() for key, value in headers.items() if owner.organization in value or owner.account_id in value}
    assert naming <= provider.hidden_headers | {"set-cookie"}, "nothing else names the account"


@pytest.mark.parametrize("account", ["claude", "claude-key", "chatgpt", "openai-key"])
async def test_the_cheapest_request_works(world: World, account: str) -> None:
    provider = world.claude if account.startswith("claude") else world.chatgpt
    owner = world.sim.accounts[account]
    raw = provider.api_key_file(owner.api_key) if owner.api_key else credential_file(owner)
    credential = provider.parse_credential(raw)
    head, body = provider.cheapest_request(credential)
    upstream = provider.prepare(head, credential)
    headers = dict(head.headers) | dict(upstream.set_headers)
    url = upstream.base_url + upstream.target
    async with world.session.request(head.method, url, data=body, headers=headers) as answer:
        assert answer.status == 200, await answer.text()


async def test_a_request_is_what_the_upstream_should_see(world: World) -> None:
    await world.ask(world.claude, world.login("claude"), "//v1/messages?beta=true", MESSAGE)
    received = world.sim.requests[-1]
    assert json.loads(received.body) == MESSAGE
