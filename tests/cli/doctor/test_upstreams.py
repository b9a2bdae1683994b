"""The network: names, ports, proxies, and the clock."""

from __future__ import annotations

import email.utils
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from aimux.accounts import ControlHttp
from aimux.cli.doctor import upstreams
from aimux.cli.doctor.finding import Finding
from aimux.cli.doctor.setup import of_signers_address
from tests.cli.doctor.support import SECRET, FakeProvider, FakeSettings, answering, by_subject, config_of


async def look_at_upstreams(base_url: str, **settings: Any) -> dict[str, Finding]:
    provider = FakeProvider(FakeSettings(base_url=base_url, token_url=f"{base_url}/token", **settings))
    http = ControlHttp()
    try:
        return by_subject(await upstreams.of_upstreams([provider], http))
    finally:
        await http.close()


@pytest.mark.parametrize(
    ("ahead", "status", "message"),
    [(0, "ok", "agrees"), (90, "warning", "is 90 s ahead"), (-3600, "error", "is 3600 s behind")],
)
async def test_the_clock(ahead: int, status: str, message: str) -> None:
    async def handler(request: web.BaseRequest) -> web.Response:
        return web.Response(status=404, headers={"date": email.utils.formatdate(time.time() - ahead, usegmt=True)})

    async with answering(handler) as origin:
        found = await look_at_upstreams(origin)
    assert found[f"upstream {origin}"].status == "ok"
    assert found["clock"].status == status
    offset = found["clock"].message.replace("91 s", "90 s").replace("3599 s", "3600 s")  # Date has whole seconds
    assert message in offset


async def test_no_credential_goes_along() -> None:
    seen: list[web.BaseRequest] = []

    async def handler(request: web.BaseRequest) -> web.Response:
        seen.append(request)
        return web.Response(status=403)

    async with answering(handler) as origin:
        await look_at_upstreams(origin, api_key=SECRET, headers={"x-secret": SECRET})
    (request,) = seen
    assert request.path == "/"
    assert SECRET not in str(request.headers)


async def test_a_closed_door() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    found = await look_at_upstreams(f"http://127.0.0.1:{port}")
    finding = found[f"upstream http://127.0.0.1:{port}"]
    assert finding.status == "error"
    assert "HTTPS_PROXY is not set" in finding.remedy
    assert found["clock"].status == "warning"


async def test_a_name_that_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*args: object, **kwargs: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    finding = (await look_at_upstreams("https://upstream.invalid"))["upstream https://upstream.invalid"]
    assert finding.message == "upstream.invalid can't be found: Name or service not known"
    assert "DNS" in finding.remedy


async def test_a_resolver_that_never_answers_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    let_go = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: let_go.wait())
    monkeypatch.setattr(upstreams, "PATIENCE", 0.01)
    finding = (await look_at_upstreams("https://upstream.invalid"))["upstream https://upstream.invalid"]
    let_go.set()
    assert "no answer from DNS within 0.01 s" in finding.message


async def test_a_proxy_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "socks5://me:proxy-password@127.0.0.1:1080")
    monkeypatch.delenv("no_proxy", raising=False)
    finding = (await look_at_upstreams("http://upstream.invalid"))["upstream http://upstream.invalid"]
    assert (finding.status, "socks5://127.0.0.1:1080" in finding.message) == ("error", True)
    assert "proxy-password" not in f"{finding}"


async def test_the_way_through_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    async def proxy(request: web.BaseRequest) -> web.Response:
        asked.append(str(request.url))
        return web.Response(status=404)

    async with answering(proxy) as origin:
        monkeypatch.setenv("http_proxy", origin.replace("//", "//user:proxy-password@"))
        monkeypatch.delenv("no_proxy", raising=False)
        found = await look_at_upstreams("http://upstream.invalid")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        direct = await look_at_upstreams(origin)
    assert asked == ["http://upstream.invalid/", f"{origin}/"]
    finding = found["upstream http://upstream.invalid"]
    assert finding.message == f"can be reached through the proxy {origin} (for fake)"
    assert "proxy" not in direct[f"upstream {origin}"].message


@pytest.mark.parametrize(
    ("answer", "status", "message"),
    [
        (
            '{"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}',
            "ok",
            "has 1 key",
        ),
        ("<html>sign in</html>", "error", "no JWKS"),
    ],
)
async def test_the_keys_of_signed_tokens(tmp_path: Path, answer: str, status: str, message: str) -> None:
    async def handler(request: web.BaseRequest) -> web.Response:
        return web.Response(text=answer)

    http = ControlHttp()
    try:
        async with answering(handler) as origin:
            config = config_of(tmp_path, auth={"jwt": {"jwks_url": f"{origin}/keys", "audience": "aimux"}})
            (found,) = await of_signers_address(config, http)
        (away,) = await of_signers_address(config, http)
        assert await of_signers_address(config_of(tmp_path), http) == []
    finally:
        await http.close()
    assert (found.subject, found.status, away.status) == ("auth", status, "error")
    assert message in found.message
    assert "can't be reached" in away.message
