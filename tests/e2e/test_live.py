"""`aimux doctor --live`: a gateway as it should be, and behind proxies that spoil it, each in one way."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web
from yarl import URL

from aimux.cli.doctor.live import examine_live
from aimux.cli.reach import reach
from aimux.simulator import Simulator
from tests.e2e.process import TOKEN, Aimux, config_of, put_account, serving
from tests.tools import child_environ

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Simulator, Aimux, Path]]:
    folder = tmp_path_factory.mktemp("live")
    async with Simulator() as sim:
        for name in ("claude", "chatgpt"):
            put_account(folder / "state", sim.accounts[name])
        async with serving(folder, config_of(sim, folder)) as aimux:
            yield sim, aimux, folder


VENDORS = "sk-ant-oat01-" + "a-login-of-the-vendors-own-0123456789-" * 2
LISTED = ["ok"] * 4
"""The lists of models that come before the stream."""

Before = Callable[[web.BaseRequest], web.StreamResponse | None]


@asynccontextmanager
async def proxy(
    aimux: Aimux,
    *,
    before: Before = lambda _request: None,
    drop: tuple[str, ...] = (),
    add: dict[str, str] | None = None,
    hold_back: bool = False,
    resolve: bool = False,
) -> AsyncIterator[str]:
    """Passes requests on, with one fault.

    `before` may answer in its place. `drop` (how their names begin) and `add` are headers of answers. `hold_back` sends
    a body when it is whole. `resolve` takes dots out of a path.
    """
    gone = ("content-length", "transfer-encoding", "connection", "date", "server", *drop)

    async def serve(request: web.BaseRequest) -> web.StreamResponse:
        if (answer := before(request)) is not None:
            return answer
        url = URL(aimux.address + request.raw_path, encoded=True)
        if resolve:
            url = URL(aimux.address + request.raw_path)
        headers = {name: value for name, value in request.headers.items() if name.lower() not in {"host", "connection"}}
        async with session.request(
            request.method, url, headers=headers, data=await request.content.read() or None, allow_redirects=False
        ) as upstream:
            kept = [(name, value) for name, value in upstream.headers.items() if not name.lower().startswith(gone)]
            response = web.StreamResponse(status=upstream.status, headers=[*kept, *(add or {}).items()])
            parts = []
            if not hold_back:
                await response.prepare(request)
            async for part in upstream.content.iter_any():
                if hold_back:
                    parts.append(part)
                else:
                    await response.write(part)
            if hold_back:
                await response.prepare(request)
                await response.write(b"".join(parts))
            await response.write_eof()
            return response

    runner = web.ServerRunner(web.Server(serve, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        async with aiohttp.ClientSession(auto_decompress=False) as session:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def found(url: str, token: str = TOKEN) -> dict[str, str]:
    """What is not fine: subject → status, message and remedy."""
    findings = await examine_live(reach(None, url), token)
    return {finding.subject: str(finding) for finding in findings if finding.status != "ok"}


async def test_as_it_should_be(gateway: tuple[Simulator, Aimux, Path]) -> None:
    sim, aimux, _ = gateway
    asked = sim.count()
    for account in sim.accounts.values():  # the first event may be late on a busy machine
        account.script(*LISTED, "gap:0.12")
    findings = await examine_live(reach(None, aimux.address), TOKEN)
    assert [str(finding) for finding in findings if finding.status != "ok"] == []
    subjects = [finding.subject for finding in findings]
    assert {"/claude stream", "/claude limits", "/chatgpt websocket", "/chatgpt token"} <= set(subjects)
    generated = [r for r in list(sim.requests)[asked:] if r.method == "POST"]
    assert sorted(r.base for r in generated) == ["anthropic", "chatgpt"], "one request each costs something"
    assert TOKEN not in str(findings)


async def test_a_stream_that_takes_its_time_is_seen_to_flow(gateway: tuple[Simulator, Aimux, Path]) -> None:
    sim, aimux, _ = gateway
    sim.accounts["claude"].script(*LISTED, "gap:0.12")
    assert await found(aimux.address) == {}


@pytest.mark.parametrize(
    ("spoils", "subject", "says"),
    [
        ({"drop": ("x-should-retry",)}, "/claude with a wrong token", "without `x-should-retry: false`"),
        ({"drop": ("anthropic-ratelimit-",)}, "/claude limits", "no header tells clients what is left"),
        ({"add": {"set-cookie": "a=b"}}, "/claude headers", "set-cookie reaches clients"),
        ({"resolve": True}, "/claude path with dots", "leads out of the mount"),
    ],
)
async def test_a_proxy_that_spoils_it(
    gateway: tuple[Simulator, Aimux, Path], spoils: dict[str, Any], subject: str, says: str
) -> None:
    async with proxy(gateway[1], **spoils) as url:
        problems = await found(url)
    assert says in problems.pop(subject, "")
    assert {name for name in problems if name.startswith("/claude")} <= {
        "/claude with no token",
        "/claude with a vendor's token",
    }
    assert "/chatgpt websocket" not in problems, "it passes no Upgrade either, and Codex is told so by a 426"


async def test_a_proxy_that_keeps_answers_back(gateway: tuple[Simulator, Aimux, Path]) -> None:
    sim, aimux, _ = gateway
    sim.accounts["claude"].script(*LISTED, "gap:0.12")
    async with proxy(aimux, hold_back=True) as url:
        problems = await found(url)
    assert "they came at once → a proxy in between keeps answers back" in problems["/claude cadence"]


async def test_a_proxy_with_answers_of_its_own(gateway: tuple[Simulator, Aimux, Path]) -> None:
    def before(request: web.BaseRequest) -> web.StreamResponse | None:
        if "sec-websocket-key" in request.headers:
            return web.Response(status=400)
        if "authorization" not in request.headers and "x-api-key" not in request.headers:
            return web.Response(status=401, text="<html>Who are you?</html>")
        if int(request.headers.get("content-length", 0)) > 1024 * 1024:
            return web.Response(status=413, text="<html>Too large</html>")
        return None

    async with proxy(gateway[1], before=before) as url:
        problems = await found(url)
    assert "not in the format of the vendor's clients" in problems["/claude with no token"]
    assert "client_max_body_size" in problems["/chatgpt large request"]
    assert "the handshake gets 400" in problems["/chatgpt websocket"]


async def test_a_proxy_without_one_of_the_forms(gateway: tuple[Simulator, Aimux, Path]) -> None:
    def before(request: web.BaseRequest) -> web.StreamResponse | None:
        if "authorization" not in request.headers and "x-api-key" in request.headers:
            return web.Response(status=403, text="no")
        return None

    async with proxy(gateway[1], before=before) as url:
        assert "as x-api-key: 403" in (await found(url))["/claude token"]


async def test_what_upstream_does_is_told(gateway: tuple[Simulator, Aimux, Path]) -> None:
    sim, aimux, _ = gateway
    sim.accounts["claude"].script(*LISTED, "end:5")
    assert "broke off" in (await found(aimux.address))["/claude stream"]
    sim.accounts["claude"].script(*LISTED, "400")
    assert "400, Simulated error 400" in (await found(aimux.address))["/claude stream"]


async def test_a_wrong_token_and_nobody_there(gateway: tuple[Simulator, Aimux, Path]) -> None:
    problems = await found(gateway[1].address, "wrong-wrong-wrong-wrong")
    assert set(problems) == {"/claude token", "/chatgpt token"}
    assert "use a token of one of the users" in problems["/claude token"]


async def test_an_address_that_is_none(gateway: tuple[Simulator, Aimux, Path]) -> None:
    address = gateway[1].address
    for url, says in (
        ("http://127.0.0.1:1", "can't be reached: Connection refused → is it running"),
        (address.replace("http:", "https:"), "does not speak TLS there → try it with http://"),
        (f"{address}/somewhere", "serves none of /chatgpt, /claude → is there something behind the address"),
    ):
        (problem,) = (await found(url)).values()
        assert says in problem


async def test_the_command(gateway: tuple[Simulator, Aimux, Path]) -> None:
    sim, aimux, folder = gateway

    async def doctor(*arguments: str, said: str = "", **environ: str) -> tuple[int | None, str, str]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "aimux.cli.main", "doctor", *arguments),
            cwd=folder,
            env=child_environ(folder, **environ),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate(said.encode())
        return process.returncode, out.decode(), err.decode()

    for account in sim.accounts.values():
        account.script.always = "gap:0.12"
    url = ("--url", aimux.address)
    ways = await asyncio.gather(
        doctor("--live", TOKEN, *url, "--json"),
        doctor("--live", "--json", *url, AIMUX_TOKEN=TOKEN),
        doctor("--json", *url, "--live", "-", said=f"{TOKEN}\n"),
    )
    for code, out, err in ways:
        assert (code, err) == (0, "")
        assert {finding["status"] for finding in json.loads(out)} == {"ok"}
    for account in sim.accounts.values():
        account.script.clear()
    code, out, _ = await doctor("--live", *url, AIMUX_TOKEN="wrong-wrong-wrong-wrong")
    assert (code, "error: /claude token: as bearer: 4" in out) == (1, True)
    code, _, err = await doctor("--live", *url)
    assert (code, "There is no token" in err) == (2, True)
    asked = len(aimux.requests)
    code, _, err = await doctor("--live", *url, AIMUX_TOKEN=VENDORS)
    assert (code, "a credential of claude's vendor" in err, VENDORS in err) == (1, True, False)
    assert len(aimux.requests) == asked, "it is not sent"
    code, _, err = await doctor(*url)
    assert (code, "--url belongs to --live" in err) == (2, True)


async def test_a_gateway_for_everybody_and_its_certificate(tmp_path: Path) -> None:
    async with Simulator() as sim:
        put_account(tmp_path / "state", sim.accounts["claude"])
        settings: dict[str, Any] = {"users": [], "tls": {"enabled": True, "self_signed": True}}
        config = config_of(sim, tmp_path, **settings)
        del config["providers"]["chatgpt"]
        async with serving(tmp_path, config) as aimux:
            known = reach(tmp_path / "config.json", aimux.address)
            problems = [finding for finding in await examine_live(known, "") if finding.status != "ok"]
            assert {finding.subject for finding in problems} == {
                "/claude with no token",
                "/claude with a wrong token",
                "/claude with a vendor's token",
            }
            assert {finding.status for finding in problems} == {"warning"}
            (untrusted,) = await examine_live(known._replace(certificate=None), "")
            assert "its certificate is not accepted" in untrusted.message
            assert "SSL_CERT_FILE" in untrusted.remedy
            (plain,) = await examine_live(reach(None, aimux.address.replace("https:", "http:")), "")
            assert "Then it is https://" in plain.remedy
            (stranger,) = [
                f
                for f in await examine_live(known._replace(own=False, mounts=reach(None, "http://x").mounts), "")
                if f.subject == "/chatgpt"
            ]
            assert stranger.message == "is not served there"
