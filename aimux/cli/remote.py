"""The running server that the configuration names: where it is, how it is trusted, and the key that it wants."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shlex
import ssl
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import aiohttp
import click
from yarl import URL

from aimux.certificates import own_pair
from aimux.cli.calls import ApiRefused
from aimux.config import admin_token
from aimux.config.environment import KEY_VARIABLE
from aimux.config.files import read_text
from aimux.control.api.problems import Problem
from aimux.control.key import KEY_FILE, read_key
from aimux.plugin.parts import API

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from aimux.cli.calls import Setting
    from aimux.config import Config

CONNECT_SECONDS = 5.0
HEALTH_SECONDS = 2.0
TLS_END_SECONDS = 0.02
"""aiohttp does not wait until asyncio has closed TLS to a server that ends its connections."""
CERTIFICATE = "put the file right (`aimux doctor` says what is wrong with it), and the server takes it within seconds"
STATE_VARIABLE = "AIMUX_STATE_DIR"
ANSWER_SECONDS = 180.0
"""A renewal may wait for another process's lock, and a test for an upstream."""


class Remote:
    """Over HTTP."""

    live = True

    def __init__(self, session: aiohttp.ClientSession, address: str, key_from: str) -> None:
        self._session = session
        self.address = address
        self._key_from = key_from

    async def call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, str | int] | None = None,
    ) -> dict[str, Any]:
        url = URL(API + path + (f"?{urlencode(query)}" if query else ""), encoded=True)
        try:
            async with self._session.request(method, url, json=body, allow_redirects=False) as answer:
                raw = await answer.read()
                status, kind = answer.status, answer.content_type
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise click.ClickException(f"{self.address}: {_why(error)}") from None
        if status < 300 and (not raw or kind == "application/json"):
            return json.loads(raw) if raw else {}
        if kind == "application/problem+json":
            problem = Problem.model_validate_json(raw)
            if status != 401:
                raise ApiRefused(problem)
            there = f": its own is in {problem.key_file}" if problem.key_file else ""
            raise click.ClickException(
                f"the server at {self.address} does not accept the admin key of {self._key_from}{there}; does it use"
                f" another configuration?{command_there(problem.key_file)}"
            )
        if status == 503:
            raise click.ClickException(f"the server at {self.address} takes no more connections now: try again later")
        raise click.ClickException(
            f"what answers at {self.address} is not an aimux with an admin API (status {status}): check `listen`"
        )


def _why(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        why = f"it shows another certificate than the configuration's, or one that has ended ({_reason(error)})"
        return f"{why}: {CERTIFICATE}"
    if isinstance(error, TimeoutError):
        return "it does not answer"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "it broke the connection off; is `tls` there the same as in this configuration?"
    return str(error)


def _reason(error: aiohttp.ClientConnectorCertificateError) -> str:
    cause = error.certificate_error
    return cause.verify_message if isinstance(cause, ssl.SSLCertVerificationError) else str(cause)


async def listening(config: Config) -> str | None:
    """The address of whatever listens where the configuration says, or None if nothing does."""
    listen = config.listen
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            if listen.unix_path is not None:
                _, writer = await asyncio.open_unix_connection(listen.unix_path)
                address = f"unix:{listen.unix_path}"
            elif not listen.port:
                return None  # the system chooses one at each start
            else:
                url = _base(config)
                assert url.host is not None
                _, writer = await asyncio.open_connection(url.host, listen.port)
                address = str(url)
    except (ConnectionRefusedError, FileNotFoundError):
        return None
    except TimeoutError:
        raise click.ClickException(f"{listen} does not answer") from None
    except OSError as error:
        raise click.ClickException(f"{listen} can't be reached: {error.strerror or error}") from None
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return address


async def is_aimux(config: Config) -> bool:
    """Whether what listens there answers as aimux does.

    With any certificate, for nothing secret is sent: one that is broken or has ended is no reason to end what serves,
    which is what a health check would have done.
    """
    context = _trusting_anybody() if config.tls.enabled else None
    try:
        async with asyncio.timeout(HEALTH_SECONDS):
            # By hand, because aiohttp speaks no TLS over a unix socket.
            if config.listen.unix_path is not None:
                name = "localhost" if context else None
                opened = asyncio.open_unix_connection(config.listen.unix_path, ssl=context, server_hostname=name)
            else:
                opened = asyncio.open_connection(_base(config).host, config.listen.port, ssl=context)
            reader, writer = await opened
            with contextlib.closing(writer):
                fields = b"host: localhost\r\naccept: application/json\r\nconnection: close\r\n"
                writer.write(b"GET /health HTTP/1.1\r\n" + fields + b"\r\n")
                head, _, body = (await reader.read(65536)).partition(b"\r\n\r\n")
                body += await reader.read(65536)
    except (OSError, TimeoutError):
        return False
    return head.startswith(b"HTTP/1.1 200 ") and b'{"status": "ok"}' in body


def _base(config: Config) -> URL:
    """Every address of the machine includes loopback."""
    host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(config.listen.host, config.listen.host)  # noqa: S104
    scheme = "https" if config.tls.enabled else "http"
    if config.listen.unix_path is not None:
        return URL.build(scheme=scheme, host="localhost")
    return URL.build(scheme=scheme, host=host, port=config.listen.port)


async def stranger(config: Config) -> Problem | None:
    """What an aimux that listens there answers without a key; None if it is not an aimux."""
    connector: aiohttp.BaseConnector = aiohttp.TCPConnector(ssl=False)  # nothing secret is sent
    if config.listen.unix_path is not None:
        connector = aiohttp.UnixConnector(config.listen.unix_path)
    timeout = aiohttp.ClientTimeout(total=CONNECT_SECONDS)
    try:
        async with (
            aiohttp.ClientSession(_base(config), connector=connector, timeout=timeout, trust_env=False) as session,
            session.get(f"{API}/me", allow_redirects=False) as answer,
        ):
            problem = Problem.model_validate_json(await answer.read())
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
        return None
    return problem if problem.type.startswith("urn:aimux:") else None


def command_there(key_file: str | None) -> str:
    """The current command as it would reach the server whose key is in this file, on a line of its own."""
    if key_file is None:
        return ""
    folder = os.path.dirname(key_file)  # noqa: PTH120 - of another user's file, which need not be one here
    sudo = "" if os.access(key_file, os.R_OK) else "sudo "
    return f"\n  {sudo}{STATE_VARIABLE}={shlex.quote(folder)} {shlex.join(['aimux', *sys.argv[1:]])}"


@asynccontextmanager
async def remote(setting: Setting, address: str, key: tuple[str, str]) -> AsyncIterator[Remote]:
    """Connections that trust the server's certificate and show it the admin key."""
    config, (token, key_from) = setting.reach, key
    connector: aiohttp.BaseConnector
    if config.listen.unix_path is not None:
        connector = aiohttp.UnixConnector(config.listen.unix_path)
    else:
        connector = aiohttp.TCPConnector(ssl=_trusting(config) if config.tls.enabled else True)
    timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS, sock_connect=CONNECT_SECONDS)
    try:
        # Never through a proxy, which would see the key.
        async with aiohttp.ClientSession(
            _base(config),
            connector=connector,
            timeout=timeout,
            headers={"authorization": f"Bearer {token}"},
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
        ) as session:
            yield Remote(session, address, key_from)
    finally:
        if config.tls.enabled:
            await asyncio.sleep(TLS_END_SECONDS)


def _trusting(config: Config) -> ssl.SSLContext:
    """We trust the server's certificate itself: its names need not match, and its issuer need not be known here."""
    path = config.tls.cert_path or own_pair(config.state_dir)[0]
    try:
        text = read_text(path)
        # Only the first of a chain: trusting an issuer would mean trusting all that it has ever signed.
        first, end = text.index("-----BEGIN CERTIFICATE-----"), text.index("-----END CERTIFICATE-----")
        der = ssl.PEM_cert_to_DER_cert(text[first:end] + "-----END CERTIFICATE-----")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.load_verify_locations(cadata=der)
    except (ssl.SSLError, ValueError):
        raise click.ClickException(f"{path} holds no certificate: {CERTIFICATE}") from None
    except OSError as error:
        raise click.ClickException(f"the server's certificate: {error}: {CERTIFICATE}") from None
    return context


def _trusting_anybody() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def admin_key(setting: Setting) -> tuple[str, str] | None:
    """The admin key and where it comes from: $AIMUX_ADMIN_TOKEN, else the configuration, else the server's own.

    None: no aimux was ever started with this state folder; it would have made one.
    """
    admin, made = setting.reach.admin, setting.reach.state_dir / KEY_FILE
    if key := os.environ.get(KEY_VARIABLE, "").strip():
        return key, KEY_VARIABLE
    file = admin.token_file.path if admin.token_file is not None else None if admin.configured else made
    if admin.token is not None and not admin.token.known:
        raise click.ClickException(f"admin.token can't be read here: set {KEY_VARIABLE}")
    if file is None:
        key = admin_token(setting.path, environ=os.environ, providers=setting.plugins.providers) or ""
        if not key:
            raise click.ClickException(f"the configuration holds only a hash of the admin token: set {KEY_VARIABLE}")
        return key, "admin.token"
    try:
        key = (read_key(file) if file == made else read_text(file)) or ""
    except OSError as error:
        why = error.strerror or error
        raise click.ClickException(
            f"the admin key in {file} can't be read ({why}): run this as the server's user, or set {KEY_VARIABLE}"
        ) from None
    return (key, str(file)) if key else None
