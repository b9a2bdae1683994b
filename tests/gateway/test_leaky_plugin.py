"""A plugin that says secrets in all that it raises: none of them gets anywhere."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from aimux.app import App
from aimux.config import parse_config
from aimux.plugin import (
    Action,
    Api,
    Credential,
    CredentialError,
    Http,
    LoginError,
    Provider,
    Record,
    RefreshRejected,
    RefreshUnavailable,
    RequestHead,
    RequestRefused,
    Routes,
    Upstream,
    Verdict,
)
from aimux.plugin.loader import Plugin, Plugins
from tests.gateway.conftest import TOKEN, Headers
from tests.gateway.conftest import Upstream as Fake
from tests.inprocess import serving

BROKEN = "the broken one's words"
PARTS = {
    "access": "correct horse",
    "refresh": "battery staple",
    "key": "swordfish-sesame",
    "header": "open-o-simsim",
    "broken": "whoever reads this",
    "code": "the-code-from-there",
}
"""No two alike, and of a shape that gives none of them away."""


class Leaky(Provider):
    """Files are `name=value` lines; "refuse" in a request's path says who is to fail."""

    name = "leaky"
    credential_file = "login.env"
    login_flows = frozenset({"paste"})

    def parse_credential(self, raw: bytes) -> Credential:
        fields = dict(line.partition("=")[::2] for line in raw.decode().splitlines())
        if "access" not in fields:
            raise CredentialError(f"has no access token: {raw!r}")
        return Credential("oauth", fields["access"], refresh_token=fields.get("refresh"))

    def api_key_file(self, api_key: str) -> bytes:
        return f"access={api_key}\n".encode()

    async def refresh(self, raw: bytes, http: Http) -> bytes:
        token = self.parse_credential(raw).refresh_token
        if b"soon" in raw:
            raise RefreshUnavailable(f"{token} is not taken now", remedy=f"wait with {token}")
        raise RefreshRejected(f"{token} is refused", remedy=f"replace {token}")

    def redirect_uri(self, flow: str, port: int) -> str:
        return "https://leaky.example/done"

    def authorization_url(self, *, redirect_uri: str, state: str, challenge: str) -> str:
        return f"https://leaky.example/authorize?state={state}"

    async def exchange(self, http: Http, *, code: str, state: str, verifier: str, redirect_uri: str) -> bytes:
        raise LoginError(f"{code} with {verifier} is refused")

    def prepare(self, request: RequestHead, credential: Credential) -> Upstream:
        if request.path == "/refuse":
            raise RequestRefused(f"{credential.secret} may not do that")
        if request.path == "/break":
            raise RuntimeError(f"{credential.secret} broke it")
        header = self.settings.headers["x-leaky"].get_secret_value()
        return Upstream(self.settings.base_url, request.target, {"authorization": credential.secret, "x-h": header})

    def classify(self, status: int, headers: Headers, body: bytes, *, model: str = "") -> Verdict:
        words = body.decode()
        return Verdict(Action.PARK, f"the vendor says {words}", remedy=f"ask about {words}")


def sink(record: Record) -> None:
    raise RuntimeError(f"the sink has seen {PARTS['access']}")


def pages(api: Api) -> web.Application:
    async def page(request: web.Request) -> web.Response:
        raise web.HTTPBadRequest(text=f"not with {PARTS['access']}")

    app = web.Application()
    app.router.add_get("/", page)
    return app


class Seen:
    """All that got out of aimux."""

    def __init__(self, app: App, client: aiohttp.ClientSession) -> None:
        self.app = app
        self.texts: list[str] = []
        self._client = client

    async def ask(self, method: str, path: str, *, admin: bool = True, body: object = None) -> tuple[int, str]:
        token = self.app.made_key if admin else TOKEN
        headers = {"authorization": f"Bearer {token}"}
        url = f"{self.app.addresses[0]}{path}"
        async with self._client.request(method, url, json=body, headers=headers) as answer:
            text = await answer.text()
        self.texts.append(text)
        return answer.status, text


@pytest.fixture
async def seen(tmp_path: Path, upstream: Fake) -> AsyncIterator[Seen]:
    folder = tmp_path / "state" / "leaky"
    files = {
        "": f"access={PARTS['access']}\nrefresh={PARTS['refresh']}\n",
        "soon": f"access={PARTS['access']} soon\nrefresh={PARTS['refresh']}\n",
        "broken": f"refresh={PARTS['broken']}\n",
    }
    for name, text in files.items():
        (folder / name).mkdir(parents=True, exist_ok=True, mode=0o700)
        path = folder / name / Leaky.credential_file
        path.touch(mode=0o600)
        path.write_text(text)
    for place in (tmp_path / "state", folder):
        place.chmod(0o700)
    plugins = Plugins([Plugin("leaky", "tests", "1", ["leaky"])], {"leaky": Leaky})
    plugins.routes["/pages"] = Routes("/pages", pages)
    plugins.sinks.append(sink)
    config: dict[str, Any] = {
        "listen": "127.0.0.1:0",
        "state_dir": str(tmp_path / "state"),
        "log_level": "debug",
        "providers": {
            "leaky": {
                "base_url": f"http://127.0.0.1:{upstream.port}",
                "headers": {"x-leaky": PARTS["header"]},
                "api_key": PARTS["key"],
            }
        },
        "users": [{"name": "ann", "token": TOKEN, "pin_accounts": True}],
    }
    load = partial(parse_config, config, environ={}, providers=plugins.providers)
    async with contextlib.AsyncExitStack() as stack:
        app = await stack.enter_async_context(serving(load, plugins, tmp_path / "log"))
        client = await stack.enter_async_context(aiohttp.ClientSession())
        found = Seen(app, client)
        yield found
    found.texts += [(tmp_path / "log").read_text()]
    found.texts += [path.read_text() for path in (tmp_path / "state").glob("*.json")]
    everything = "\n".join(found.texts)
    for secret in PARTS.values():
        assert secret not in everything
        assert repr(secret)[1:-1] not in everything


async def test_clients_hear_none(seen: Seen) -> None:
    status, text = await seen.ask("POST", "/leaky/refuse", admin=False)
    assert (status, "may not do that" in text) == (400, True)
    status, _ = await seen.ask("POST", "/leaky/break", admin=False)
    assert status == 500
    _, text = await seen.ask("GET", "/pages/")
    assert "not with correct…" not in text
    assert "not with" in text


async def test_administrators_hear_none(seen: Seen, upstream: Fake) -> None:
    words = f"no to {PARTS['access']}, {PARTS['header']} and {PARTS['key']}".encode()
    upstream.answer = b"HTTP/1.1 400 No\r\ncontent-length: %d\r\n\r\n%b" % (len(words), words)
    status, text = await seen.ask("GET", "/api/v1/accounts")
    reasons = {item["name"]: item["reason"] for item in json.loads(text)["items"]}
    assert status == 200
    assert "has no access token" in reasons["broken"]
    for name in ("default", "soon", "broken"):
        for operation in ("refresh", "test"):
            await seen.ask("POST", f"/api/v1/accounts/leaky/{name}/{operation}")
    _, text = await seen.ask("POST", "/api/v1/accounts/leaky/api-key/test")
    assert "no to" in json.loads(text)["reason"]
    await seen.ask("POST", "/leaky/v1/chat", admin=False)
    _, text = await seen.ask("GET", "/api/v1/accounts")
    assert {item["status"] for item in json.loads(text)["items"]} == {"parked"}, "each says why"
    for path in ("/api/v1/requests", "/api/v1/audit", "/api/v1/notices", "/api/v1/me", "/ready", "/metrics"):
        status, _ = await seen.ask("GET", path)
        assert status in {200, 503}, path
    body = {"provider": "leaky", "file": f"refresh={PARTS['broken']}\n"}
    status, text = await seen.ask("POST", "/api/v1/accounts", body=body)
    assert (status, "no access token" in text) == (422, True)


async def test_who_logs_in_hears_none(seen: Seen) -> None:
    status, text = await seen.ask("POST", "/api/v1/oauth/leaky/authorize", body={"account": "new"})
    state = json.loads(text)["state"]
    seen.texts.clear()
    status, text = await seen.ask("POST", "/api/v1/oauth/leaky/exchange", body={"code": f"{PARTS['code']}#{state}"})
    assert (status, "is refused" in text) == (400, True)
    status, text = await seen.ask("POST", "/api/v1/oauth/leaky/authorize", body={"account": "new"})
    state = json.loads(text)["state"]
    seen.texts.clear()
    status, text = await seen.ask("GET", f"/api/v1/oauth/leaky/callback?code={PARTS['code']}&state={state}")
    assert (status, "is refused" in text) == (400, True)
