"""The snippets for reverse proxies, in the real programs: a stream arrives event by event, and who calls is known."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from websockets.asyncio.client import connect

from aimux.front.bounds import KEEP_ALIVE_SECONDS
from aimux.simulator import Scenario, Simulator, provider_settings
from tests.certificates.certificates import Issued
from tests.e2e.process import put_account
from tests.e2e.test_websocket import PROMPT as TURN
from tests.running import PROMPT, free_port, serving
from tests.tools import checkout, program

SNIPPETS = checkout() / "deploy/proxy"
TOKEN = "the-token-of-the-test-of-proxies"


def edited(name: str, *changes: tuple[str, str]) -> str:
    """The snippet with what is the site's own put in: addresses and certificates."""
    text = (SNIPPETS / name).read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return text


def nginx(upstream: str, port: int, folder: Path) -> list[str]:
    server = edited(
        "nginx.conf",
        ("server 127.0.0.1:8080", f"server {upstream}"),
        ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
        ("ai.example.org;", "localhost;"),
        ("/etc/ssl/ai.example.org/fullchain.pem", f"{folder}/cert.pem"),
        ("/etc/ssl/ai.example.org/key.pem", f"{folder}/key.pem"),
    )
    paths = "".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off; master_process off; pid {folder}/pid; error_log stderr; events {{}}"
        f"http {{ access_log off; {paths}\n{server}}}"
    )
    return [program("nginx", "nginx"), "-p", str(folder), "-e", "stderr", "-c", str(folder / "nginx.conf")]


def caddy(upstream: str, port: int, folder: Path) -> list[str]:
    if upstream.startswith("unix:"):
        upstream = upstream.replace(":", "/", 1)
    site = edited(
        "Caddyfile",
        (
            "ai.example.org {",
            f"https://localhost:{port} {{\n\tbind 127.0.0.1\n\ttls {folder}/cert.pem {folder}/key.pem",
        ),
        ("reverse_proxy 127.0.0.1:8080", f"reverse_proxy {upstream}"),
    )
    options = f"{{\n\tadmin off\n\tauto_https disable_redirects\n\tstorage file_system {folder}\n}}\n"
    (folder / "Caddyfile").write_text(options + site)
    return [program("caddy", "caddy"), "run", "--adapter", "caddyfile", "--config", str(folder / "Caddyfile")]


@contextmanager
def running(command: list[str], port: int) -> Iterator[None]:
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except ConnectionRefusedError:
                    assert process.poll() is None, process.stderr and process.stderr.read()
            yield
        finally:
            process.terminate()
            process.communicate(timeout=30)


@pytest.fixture(params=[nginx, caddy], ids=["nginx", "caddy"])
def proxy(request: pytest.FixtureRequest) -> Callable[[str, int, Path], list[str]]:
    found: Callable[[str, int, Path], list[str]] = request.param
    return found


@asynccontextmanager
async def stack(
    proxy: Callable[[str, int, Path], list[str]], folder: Path, **config: Any
) -> AsyncIterator[tuple[Simulator, str, ssl.SSLContext]]:
    """Simulator, aimux and proxy: the simulator, the proxy's URL, and a context that trusts its certificate."""
    issued = Issued()
    (folder / "cert.pem").write_bytes(issued.pem)
    (folder / "key.pem").write_bytes(issued.key_pem())
    async with Simulator() as upstream:
        for name in ("claude", "chatgpt"):
            put_account(folder / "state", upstream.accounts[name])
        settings = {
            "listen": "127.0.0.1:0",
            "state_dir": str(folder / "state"),
            "providers": provider_settings(upstream.url),
            **config,
        }
        with serving(settings, folder) as address:
            port = free_port()  # once aimux has its own: it might be given the same
            with running(proxy(address.removeprefix("http://"), port, folder), port):
                yield upstream, f"https://localhost:{port}", ssl.create_default_context(cadata=issued.pem.decode())


HEADERS = {"authorization": f"Bearer {TOKEN}", "anthropic-version": "2023-06-01"}
USERS = [{"name": "alice", "token": TOKEN}]


def held(
    session: aiohttp.ClientSession, url: str, trusting: ssl.SSLContext
) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
    """A stream of which the upstream holds all but the first three events."""
    headers = {**HEADERS, "x-simulator": "hold:3"}
    return session.post(f"{url}/claude/v1/messages", json={**PROMPT, "stream": True}, headers=headers, ssl=trusting)


async def test_a_stream_arrives_event_by_event(proxy: Callable[[str, int, Path], list[str]], tmp_path: Path) -> None:
    async with (
        stack(proxy, tmp_path, users=USERS) as (upstream, url, trusting),
        aiohttp.ClientSession() as session,
        asyncio.timeout(30),
        held(session, url, trusting) as answer,
    ):
        received = b""
        while received.count(b"\n\n") < 3:  # what the upstream has sent so far; it sends no more before release
            received += await answer.content.readany()
        assert b"message_stop" not in received
        await upstream.wait_for_held()
        upstream.release()
        assert b"message_stop" in received + await answer.content.read()


async def test_a_client_that_leaves_stops_its_upstream(
    proxy: Callable[[str, int, Path], list[str]], tmp_path: Path
) -> None:
    """Also while the model thinks: otherwise the account pays for what nobody reads."""
    async with stack(proxy, tmp_path, users=USERS) as (upstream, url, trusting), aiohttp.ClientSession() as session:
        async with asyncio.timeout(30):
            async with held(session, url, trusting) as answer:
                await upstream.wait_for_held()
                assert answer.connection is not None
                assert answer.connection.transport is not None
                answer.connection.transport.abort()  # to close it would wait for TLS's goodbye
            await upstream.wait_for_aborted()


async def test_a_websocket_passes(proxy: Callable[[str, int, Path], list[str]], tmp_path: Path) -> None:
    async with stack(proxy, tmp_path, users=USERS) as (_, url, trusting):
        address = f"{url.replace('https', 'wss', 1)}/chatgpt/v1/responses"
        async with (
            asyncio.timeout(30),
            connect(address, ssl=trusting, additional_headers=HEADERS, proxy=None) as socket,
        ):
            await socket.send(json.dumps(TURN))
            while json.loads(await socket.recv())["type"] != "response.completed":
                pass


async def test_many_headers_pass(proxy: Callable[[str, int, Path], list[str]], tmp_path: Path) -> None:
    """Of a request as many as aimux takes in one, of an answer more than fit into a page of memory."""
    async with stack(proxy, tmp_path, users=USERS) as (upstream, url, trusting), aiohttp.ClientSession() as session:
        more = "".join(f"x-more-{number}: {'m' * 100}\r\n" for number in range(100))
        upstream.script(Scenario(raw=f"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n{more}\r\n{{}}".encode()))
        headers = {**HEADERS, "cookie": "c=" + "c" * (31 * 1024)}  # not passed on
        async with session.post(
            f"{url}/claude/v1/messages", json=PROMPT, headers=headers, ssl=trusting, max_field_size=16384
        ) as answer:
            assert (answer.status, answer.headers.get("x-more-99")) == (200, "m" * 100)


def test_a_proxys_idle_connections_end_before_aimux_ends_them(tmp_path: Path) -> None:
    """A request that is sent as aimux closes one is lost: proxies don't repeat a POST."""
    command = caddy("127.0.0.1:1", 1, tmp_path)
    adapted = subprocess.run([command[0], "adapt", *command[2:]], capture_output=True, text=True, check=True).stdout
    idle = re.search(r'"idle_timeout":(\d+)', adapted)
    assert idle
    assert int(idle[1]) < KEEP_ALIVE_SECONDS * 1e9
    http = yaml.safe_load((SNIPPETS / "traefik.yaml").read_text())["http"]
    transport = http["serversTransports"][http["services"]["aimux"]["loadBalancer"]["serversTransport"]]
    assert int(transport["forwardingTimeouts"]["idleConnTimeout"].removesuffix("s")) < KEEP_ALIVE_SECONDS
    assert "keepalive_timeout" not in (SNIPPETS / "nginx.conf").read_text(), "its own is 60 s"


async def test_only_the_mounts_are_reached(proxy: Callable[[str, int, Path], list[str]], tmp_path: Path) -> None:
    running_stack = stack(proxy, tmp_path, users=USERS, metrics_public=True)
    async with running_stack as (_, url, trusting), aiohttp.ClientSession() as session:
        for path in ("/metrics", "/ready", "/api/v1/accounts", "/", "/claudette"):
            async with session.get(url + path, ssl=trusting) as answer:
                assert answer.status == 404, path
        async with session.head(f"{url}/claude", ssl=trusting) as answer:
            assert answer.status == 401


async def test_with_the_dashboard_people_are_told_the_proxys_own_address(
    proxy: Callable[[str, int, Path], list[str]], tmp_path: Path
) -> None:
    """As the snippets say how: signed in over TLS, with the port that the browser came by."""

    def with_pages(upstream: str, port: int, folder: Path) -> list[str]:
        command = proxy(upstream, port, folder)
        file = Path(command[-1])
        text = file.read_text()
        if paths := re.search("# With the dashboard: (.*)", text):
            text = re.sub("location ~ .* {", f"location ~ {paths[1]} {{", text)
        else:
            more = re.search("# With the dashboard, add: (.*)", text)
            assert more
            text = text.replace("@mounts path", f"@mounts path {more[1]}")
        file.write_text(text)
        return command

    users = [{"name": "alice", "token": TOKEN}]
    async with stack(with_pages, tmp_path, users=users) as (_, url, trusting), aiohttp.ClientSession() as session:
        async with session.post(f"{url}/dashboard/sign-in", data={"token": TOKEN}, ssl=trusting) as answer:
            assert str(answer.url) == f"{url}/dashboard/me"
            page = await answer.text()
        assert f"{url}/claude&#34;" in page


async def test_a_node_that_restarts_costs_no_request_behind_nginx(tmp_path: Path) -> None:
    def of_two(upstream: str, port: int, folder: Path) -> list[str]:
        return nginx(f"127.0.0.1:{free_port()}; server {upstream}", port, folder)

    async with stack(of_two, tmp_path, users=USERS) as (_, url, trusting), aiohttp.ClientSession() as session:
        for _ in range(3):
            async with session.post(f"{url}/claude/v1/messages", json=PROMPT, headers=HEADERS, ssl=trusting) as answer:
                assert answer.status == 200


async def test_headers_with_underscores_arrive(proxy: Callable[[str, int, Path], list[str]], tmp_path: Path) -> None:
    """Codex names its conversation in one; nginx drops such headers by default."""
    async with stack(proxy, tmp_path, users=USERS) as (upstream, url, trusting), aiohttp.ClientSession() as session:
        named = {**HEADERS, "session_id": "a-conversation"}
        async with session.post(f"{url}/claude/v1/messages", json=PROMPT, headers=named, ssl=trusting) as answer:
            assert answer.status == 200
        assert upstream.requests[-1].header("session_id") == "a-conversation"


@pytest.mark.parametrize("trusted", [True, False])
@pytest.mark.parametrize("over", ["tcp", "unix"])
async def test_clients_are_told_apart_where_the_proxy_is_trusted(
    proxy: Callable[[str, int, Path], list[str]], tmp_path: Path, over: str, trusted: bool
) -> None:
    """One client fails too often and is slowed down. Another is not, as long as aimux can tell the two apart."""
    listen, name = ("127.0.0.1:0", "127.0.0.1") if over == "tcp" else (f"unix:{tmp_path}/socket", "unix")
    config = {"users": USERS, "listen": listen, "trusted_proxies": [name] if trusted else []}
    async with stack(proxy, tmp_path, **config) as (_, url, trusting):
        guesses = count()

        async def status(source: str) -> int:
            connector = aiohttp.TCPConnector(local_addr=(source, 0), family=socket.AF_INET)
            # A client that invents forwarding headers gains nothing.
            headers = {"authorization": f"Bearer no-token-{next(guesses)}", "x-forwarded-for": "192.0.2.7"}
            async with (
                aiohttp.ClientSession(connector=connector) as session,
                session.get(f"{url}/claude/v1/models", headers=headers, ssl=trusting) as answer,
            ):
                return answer.status

        assert {*await asyncio.gather(*(status("127.0.0.5") for _ in range(40)))} == {401, 429}
        others = {*await asyncio.gather(*(status("127.0.0.6") for _ in range(8)))}
        assert others == {401} if trusted else 429 in others <= {401, 429}


def test_the_traefik_snippet_routes_the_mounts_alone() -> None:
    """Traefik is in no registry that the tests use, so its snippet is read and not run."""
    http = yaml.safe_load((SNIPPETS / "traefik.yaml").read_text())["http"]
    router = http["routers"]["aimux"]
    assert router["service"] in http["services"]
    pattern = re.search(r"PathRegexp\(`(.*)`\)", router["rule"])
    assert pattern
    for path in ("/claude", "/claude/v1/messages", "/chatgpt/v1/responses"):
        assert re.search(pattern[1], path)
    for path in ("/claudette", "/metrics", "/api/v1/accounts", "/"):
        assert not re.search(pattern[1], path)
