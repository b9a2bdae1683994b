"""The hosts of a PostgreSQL's address, and connections of the driver's own to the one that takes writes."""

from __future__ import annotations

import contextlib
import ssl
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit
from weakref import WeakSet

import asyncpg

from aimux.config.database import SYSTEM
from aimux.storage.locks import FAILURES
from aimux.storage.postgresql_errors import of_tls, text_of

CONNECT_TIMEOUT = 10.0
"""For all hosts together."""
COMMAND_TIMEOUT = 60.0
ENDING = 1.0
"""Seconds for the server to close a connection: then it is cut."""
_SETTINGS = (
    "SET tcp_keepalives_idle = 30; SET tcp_keepalives_interval = 10; SET tcp_keepalives_count = 3;"
    " SET default_transaction_isolation = 'read committed'"
)
"""The server notices within a minute that a node is gone, and frees what it held; and who waits for another's turn sees
what that one did, whatever user or database have for a default. Not said while connecting, where pgbouncer takes
nothing that it does not know."""
_PATIENT = "; SET statement_timeout = 0; SET lock_timeout = 0"
"""A user or a database may have both for what they ask all day: they would end a long migration, and the waiting for it
at another node, at each start anew."""
_NEEDLESS = frozenset(
    {
        "channel_binding",
        "connect_timeout",
        "fallback_application_name",
        "gssencmode",
        "keepalives",
        "keepalives_count",
        "keepalives_idle",
        "keepalives_interval",
        "tcp_user_timeout",
    }
)
"""libpq's options for what aimux and the driver do in their own way. The driver would pass them on to the server, which
refuses what it does not know."""


class Hosts:
    """One address's."""

    def __init__(self, url: str) -> None:
        self._hosts = hosts_of(_understood(url))
        """The one that was good last is the first …"""
        self._opened = WeakSet[Any]()
        """… and connections to it."""

    async def connect(self, name: str = "aimux", *, patient: bool = False) -> asyncpg.Connection[Any]:
        """One connection of the driver's own, under a name that the server shows. `patient`: a command may take as long
        as it likes. Raises FAILURES."""
        patience = None if patient else COMMAND_TIMEOUT
        hosts = self._hosts
        if len(hosts) == 1:
            return await _connect(hosts[0][1], name, CONNECT_TIMEOUT, patience)
        # The driver would give all of them one time-out, which a host that is silent, as one without power is, takes
        # up: the others would never be asked.
        reasons = []
        for host, address in hosts:
            try:
                connection = await _connect(address, name, CONNECT_TIMEOUT / len(hosts), patience)
            except FAILURES as error:
                if not _of_host(address, error):
                    raise
                reasons.append(f"{host}: {text_of(error)}")
                continue
            if self._hosts[0] != (host, address):
                self._hosts = [(host, address), *(one for one in hosts if one != (host, address))]
                for other in self._opened:
                    other.terminate()  # what it was asked may wait for an answer that never comes
                self._opened.clear()
            self._opened.add(connection)
            return connection
        raise ConnectionError("; ".join(reasons))


def hosts_of(url: str) -> list[tuple[str, str]]:
    """The hosts of an address, and an address of each alone: of several, the one that takes writes is wanted."""
    parts = urlsplit(url)
    login, at, spec = parts.netloc.rpartition("@")
    query = dict(parse_qsl(parts.query))
    hosts = (spec or query.get("host", "")).split(",")
    if len(hosts) == 1:
        return [(hosts[0], url)]
    ports = [] if spec else query.get("port", "").split(",")
    query.setdefault("target_session_attrs", "read-write")
    found = []
    for number, host in enumerate(hosts):
        if not spec:
            query["host"] = host
            if len(ports) == len(hosts):
                query["port"] = ports[number]
        netloc = f"{login}{at}{host if spec else ''}"
        found.append((host, parts._replace(netloc=netloc, query=urlencode(query)).geturl()))
    return found


def _understood(url: str) -> str:
    """An address of which the driver understands each option."""
    parts = urlsplit(url)
    options = parse_qsl(parts.query)
    kept = [(name, value) for name, value in options if name not in _NEEDLESS]
    return url if kept == options else parts._replace(query=urlencode(kept)).geturl()


def _trusting(address: str) -> ssl.SSLContext | None:
    """For what the driver has no word: the system's own authorities."""
    options = dict(parse_qsl(urlsplit(address).query))
    if options.get("sslrootcert") != SYSTEM:
        return None
    context = ssl.create_default_context()
    if certificate := options.get("sslcert"):
        context.load_cert_chain(certificate, options.get("sslkey"), options.get("sslpassword"))
    return context


class _Connection(asyncpg.Connection):  # type: ignore[misc]
    pool: object = None
    """That it was opened for."""

    async def close(self, *, timeout: float | None = None) -> None:  # noqa: ASYNC109 - as the driver's own has it
        """It would wait for a silent server's goodbye."""
        with contextlib.suppress(TimeoutError):
            await super().close(timeout=timeout or ENDING)


async def _connect(address: str, name: str, seconds: float, patience: float | None) -> asyncpg.Connection[Any]:
    settings = {"application_name": name}
    try:
        connection: asyncpg.Connection[Any] = await asyncpg.connect(
            address,
            timeout=seconds,
            command_timeout=patience,
            server_settings=settings,
            ssl=_trusting(address),
            connection_class=_Connection,
        )
    except UnicodeError:
        raise asyncpg.ClientConfigurationError("its host is no host's name") from None
    try:
        await connection.execute(_SETTINGS + (_PATIENT if patience is None else ""), timeout=seconds)
    except BaseException:
        connection.terminate()
        raise
    return connection


def _of_host(address: str, error: BaseException) -> bool:
    """Whether another host may be better."""
    if state := str(getattr(error, "sqlstate", None) or ""):
        return state[:2] in {"08", "53", "57"}
    known = isinstance(error, OSError | TimeoutError | asyncpg.InternalClientError)
    return known and of_tls(address, "", error) is None
