"""`aimux doctor` against machines, accounts and networks in every state."""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import json
import os
import shutil
import socket
import threading
import time
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from aiohttp import web

from aimux.accounts import ControlHttp
from aimux.cli.doctor import accounts, examine, machine, setup, upstreams
from aimux.cli.doctor.finding import Finding
from aimux.config import parse_config, provider_instances
from aimux.plugin import Credential, HttpUrl, Provider, ProviderSettings, load_object
from aimux.plugin.loader import Plugin, Plugins
from aimux.tls import ServerTLS, TLSFiles

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from aimux.config import Config
    from tests.cli.conftest import Aimux

SECRET = "sk-fake-0123456789abcdef"


class FakeSettings(ProviderSettings):
    base_url: HttpUrl = "https://upstream.invalid"
    token_url: HttpUrl = "https://upstream.invalid/token"
    authorize_url: HttpUrl = "https://people.invalid"


class FakeProvider(Provider):
    """Its credential files hold a Credential's fields."""

    name = "fake"
    Settings: ClassVar[type[ProviderSettings]] = FakeSettings

    def parse_credential(self, raw: bytes) -> Credential:
        return Credential(**load_object(raw))


PLUGINS = Plugins([Plugin("fake", "fake", "1", ["fake"])], {"fake": FakeProvider})


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    (folder := tmp_path / "state").mkdir(mode=0o700)
    return folder


def config_of(state_dir: Path, **fields: Any) -> Config:
    document = {"state_dir": str(state_dir), "providers": ["fake"], "listen": "127.0.0.1:0"} | fields
    return parse_config(document, environ={}, providers=PLUGINS.providers)


def login(state_dir: Path, account: str = "default", *, mode: int = 0o600, **fields: Any) -> Path:
    folder = state_dir / "fake" if account == "default" else state_dir / "fake" / account
    for one in (state_dir / "fake", folder):
        one.mkdir(mode=0o700, exist_ok=True)
    file = folder / FakeProvider.credential_file
    file.write_text(json.dumps({"kind": "oauth", "secret": SECRET} | fields))
    file.chmod(mode)
    return file


@contextlib.asynccontextmanager
async def answering(handler: Callable[[web.BaseRequest], Awaitable[web.Response]]) -> AsyncIterator[str]:
    """An HTTP server; yields its origin."""
    runner = web.ServerRunner(web.Server(handler))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def not_found(request: web.BaseRequest) -> web.Response:
    return web.Response(status=404)


def by_subject(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.subject: finding for finding in findings}


# --- the command -----------------------------------------------------------------------------------------------------


def test_a_fresh_machine_lacks_an_account(aimux: Aimux) -> None:
    done = aimux("doctor", "--offline")
    assert done.returncode == 1
    assert "error: accounts: there is none → put a login at" in done.stdout
    assert "ok: state_dir:" in done.stdout
    assert done.stderr == ""


def test_json_says_the_same(aimux: Aimux) -> None:
    done = aimux("doctor", "--offline", "--json", AIMUX_LISTEN="127.0.0.1:0")
    findings = json.loads(done.stdout)
    assert done.returncode == 1
    assert [finding["status"] for finding in findings] == ["ok", "ok", "ok", "error"]
    assert {*findings[-1]} == {"status", "subject", "message", "remedy"}


def test_a_wrong_configuration_is_told_whole(aimux: Aimux, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("listen: nowhere\nlog_levle: info\n")
    done = aimux("doctor")
    assert done.returncode == 1
    assert [line.split(": ")[2] for line in done.stdout.splitlines()] == [
        f"{tmp_path}/config.yaml:1",
        f"{tmp_path}/config.yaml:2",
    ]


async def test_all_is_well(state_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aimux.plugin.loader.load_plugins", lambda: PLUGINS)
    login(state_dir)
    async with answering(not_found) as origin:
        settings = {"fake": {"base_url": origin, "token_url": f"{origin}/token"}}
        document = {"state_dir": str(state_dir), "listen": "127.0.0.1:0", "providers": settings}
        (tmp_path / "config.json").write_text(json.dumps(document))
        findings = await examine(tmp_path / "config.json", offline=False)
    assert [finding.subject for finding in findings] == [
        "configuration",
        "state_dir",
        "listen 127.0.0.1:0",
        "account fake/default",
        f"upstream {origin}",
        "clock",
    ]
    assert {finding.status for finding in findings} == {"ok"}


def test_a_plugin_that_fails() -> None:
    broken = Plugin("odd", "aimux-odd", "2.0", error="ImportError: no module named odd")
    (finding,) = setup.of_plugins(Plugins([*PLUGINS.plugins, broken], PLUGINS.providers))
    assert finding.status == "error"
    assert "aimux-odd 2.0 can't be loaded: ImportError" in finding.message
    assert setup.of_plugins(Plugins([], {}))[0].status == "error"


# --- the machine -----------------------------------------------------------------------------------------------------


def test_the_state_folder(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [finding.status for finding in machine.of_state_dir(state_dir)] == ["ok"]
    assert machine.of_state_dir(state_dir / "new")[0].status == "ok"
    state_dir.chmod(0o755)
    assert machine.of_state_dir(state_dir) == [
        Finding("warning", "state_dir", f"{state_dir} is open to other users", f"chmod 700 {state_dir}")
    ]
    (file := state_dir / "file").touch()
    assert "is no folder" in machine.of_state_dir(file)[0].message
    assert "can't be reached" in machine.of_state_dir(file / "below")[0].message
    state_dir.chmod(0o700)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(100, 99, 1))
    assert "free some space" in machine.of_state_dir(state_dir)[0].remedy


def test_a_state_folder_of_somebody_else(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = state_dir.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    (finding,) = machine.of_state_dir(state_dir)
    assert (finding.status, finding.remedy) == ("warning", f"run aimux and its doctor as user id {owner}")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert machine.of_state_dir(state_dir)[0].status == "error"


async def address(state_dir: Path, listen: str) -> Finding:
    http = ControlHttp()
    try:
        (finding,) = await machine.of_address(config_of(state_dir, listen=listen), http)
    finally:
        await http.close()
    return finding


async def test_an_address_that_is_taken(state_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        answer = asyncio.create_task(address(state_dir, listen))
        while not answer.done():  # whatever listens there answers with nonsense
            await asyncio.sleep(0.001)
            taken.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                taken.accept()[0].close()
    finding = answer.result()
    assert finding.status == "error"
    assert "stop the program that listens there" in finding.remedy
    assert (await address(state_dir, listen)).message == "is free"


async def test_an_address_that_aimux_has(state_dir: Path) -> None:
    async def health(request: web.BaseRequest) -> web.Response:
        assert request.path == "/health"
        return web.json_response({"status": "ok"})

    async with answering(health) as origin:
        finding = await address(state_dir, origin.removeprefix("http://"))
    assert (finding.status, finding.message) == ("ok", "aimux runs there")


async def test_an_address_of_another_machine(state_dir: Path) -> None:
    finding = await address(state_dir, "192.0.2.1:8080")
    assert finding.status == "error"
    assert "an address of this machine" in finding.remedy


async def test_unix_sockets(state_dir: Path) -> None:
    path = state_dir / "s"
    listen = f"unix:{path}"
    assert (await address(state_dir, listen)).message == "is free"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as taken:
        taken.bind(str(path))
        taken.listen()
        finding = await address(state_dir, listen)
        assert "perhaps another aimux" in finding.remedy
    assert (await address(state_dir, listen)).message == "is free"  # left over, and replaced at a start
    path.unlink()
    path.touch()
    assert "another kind" in (await address(state_dir, listen)).message
    assert "there is no folder" in (await address(state_dir, f"unix:{state_dir}/none/s")).message


def test_the_certificate(state_dir: Path) -> None:
    assert machine.of_certificate(config_of(state_dir)) == []
    config = config_of(state_dir, tls={"enabled": True, "self_signed": True})
    assert "at its first start" in machine.of_certificate(config)[0].message
    fingerprint = ServerTLS(TLSFiles.self_signed(state_dir, "")).fingerprint
    (finding,) = machine.of_certificate(config)
    assert finding.status == "ok"
    assert fingerprint in finding.message
    (state_dir / "tls" / "key.pem").write_text("nothing")
    (finding,) = machine.of_certificate(config)
    assert finding.status == "error"
    assert "BEGIN PRIVATE KEY" in finding.remedy


# --- accounts --------------------------------------------------------------------------------------------------------


async def look_at_accounts(state_dir: Path, **fields: Any) -> list[Finding]:
    config = config_of(state_dir, **fields)
    providers = provider_instances(config, PLUGINS.providers)
    found, _ = await accounts.of_accounts(config, providers, ControlHttp())
    assert not any(SECRET[9:] in str(finding) for finding in found)
    return found


@pytest.mark.parametrize(
    ("fields", "status", "message"),
    [
        ({}, "ok", "oauth; does not expire"),
        ({"plan": "max", "expires_in": 7300, "refresh_token": "r"}, "ok", "oauth, max; expires in 2 hours, aimux"),
        ({"expires_in": -7300, "refresh_token": "r"}, "ok", "expired 2 hours ago, aimux renews it"),
        ({"expires_in": 30 * 86400 + 60}, "ok", "expires in 30 days and can't be renewed"),
        ({"expires_in": 3 * 86400 + 60}, "warning", "expires in 3 days and can't be renewed"),
        ({"expires_in": -86400 * 3}, "error", "expired 3 days ago and can't be renewed"),
    ],
)
async def test_credentials_and_their_end(state_dir: Path, fields: dict[str, Any], status: str, message: str) -> None:
    if "expires_in" in fields:
        fields = {name: value for name, value in fields.items() if name != "expires_in"} | {
            "expires_at": time.time() + fields["expires_in"]
        }
    login(state_dir, **fields)
    (finding,) = await look_at_accounts(state_dir)
    assert (finding.status, finding.subject) == (status, "account fake/default")
    assert message in finding.message


async def test_a_credential_that_is_no_credential(state_dir: Path) -> None:
    login(state_dir, "team").write_text(f'{{"secret": "{SECRET}", ')
    (finding,) = await look_at_accounts(state_dir)
    assert (finding.status, finding.subject) == ("error", "account fake/team")
    assert "JSON" in finding.message


async def test_a_credential_that_others_could_read(state_dir: Path) -> None:
    file = login(state_dir, mode=0o644)
    account, told = await look_at_accounts(state_dir)
    assert account.status == "ok"
    assert (told.status, told.message) == ("warning", f"{file} could be read by others; it is 0600 now")


async def test_an_account_that_is_switched_off(state_dir: Path) -> None:
    login(state_dir)
    saved = {"version": 1, "accounts": {"fake": {"default": {"disabled": True}}}}
    (state_dir / "accounts.json").write_text(json.dumps(saved))
    (finding,) = await look_at_accounts(state_dir)
    assert finding.status == "warning"
    assert "disabled" in finding.message


async def test_no_account(state_dir: Path) -> None:
    (finding,) = await look_at_accounts(state_dir)
    assert finding.status == "error"
    assert finding.remedy == f"put a login at {state_dir}/fake/credential.json, or set providers.fake.api_key"
    config = parse_config({"state_dir": str(state_dir)}, environ={}, providers=PLUGINS.providers)
    found, used = await accounts.of_accounts(config, provider_instances(config, PLUGINS.providers), ControlHttp())
    assert [finding.status for finding in found] == ["error"]
    assert used == []


async def test_looking_changes_nothing(state_dir: Path) -> None:
    login(state_dir, expires_at=1.0, refresh_token="r")
    before = {path: path.stat().st_mtime_ns for path in state_dir.rglob("*")}
    await look_at_accounts(state_dir)
    assert {path: path.stat().st_mtime_ns for path in state_dir.rglob("*")} == before


# --- the network -----------------------------------------------------------------------------------------------------


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
