"""The network: whether each upstream can be reached, and how far its clock is from ours."""

from __future__ import annotations

import asyncio
import socket
import statistics
import threading
import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from yarl import URL

from aimux.cli.doctor.finding import Finding
from aimux.plugin.http import HttpUnavailable
from aimux.relay.proxy import UnusableProxy, proxy_for

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aimux.plugin.http import Http, HttpAnswer
    from aimux.plugin.provider import Provider

PATIENCE = 5.0
"""Seconds for a name, and as many for an answer."""
CLOCK_WARNING, CLOCK_ERROR = 30.0, 300.0
"""Seconds that our clock may be off. Credentials are renewed five minutes before their end."""
FOR_PEOPLE = {"authorize_url", "redirect_url"}
"""Settings that a person's browser goes to, not aimux."""


async def of_upstreams(providers: Iterable[Provider], http: Http) -> list[Finding]:
    """A finding for each host that the providers' settings name, all asked at once, and one for the clock."""
    origins: dict[URL, set[str]] = {}
    for provider in providers:
        for name, value in provider.settings.model_dump().items():
            if isinstance(value, str) and value.startswith(("http://", "https://")) and name not in FOR_PEOPLE:
                origins.setdefault(URL(value).origin(), set()).add(provider.instance)
    offsets: list[float] = []
    asked = [_ask(origin, ", ".join(sorted(names)), http, offsets) for origin, names in origins.items()]
    return [*await asyncio.gather(*asked), _clock(offsets)]


async def _ask(origin: URL, whose: str, http: Http, offsets: list[float]) -> Finding:
    """Resolve the name, ask for `/` without any credential, note how far our clock is off. Any answer is fine."""
    subject = f"upstream {origin}"
    try:
        found = proxy_for(origin.scheme, origin.host or "", origin.port or 443)
    except UnusableProxy as error:
        return Finding("error", subject, str(error), "set HTTPS_PROXY to an http:// proxy, or NO_PROXY for this host")
    proxy = f"{found.scheme}://{found.host}:{found.port}" if found is not None else None
    if proxy is None and (why := await _name_trouble(origin)):
        return Finding("error", subject, f"{origin.host} {why}", "check this machine's DNS, or set HTTPS_PROXY")
    try:
        answer = await http.request("GET", f"{origin}/", timeout=PATIENCE)
    except HttpUnavailable as error:
        way = f"through the proxy {proxy}" if proxy else "directly; HTTPS_PROXY is not set"
        remedy = (
            f"check firewall and proxy (it was tried {way}); a proxy that opens TLS needs SSL_CERT_FILE with its CA"
        )
        return Finding("error", subject, str(error), remedy)
    if (offset := _clock_offset(answer)) is not None:
        offsets.append(offset)
    secure = "DNS, TLS and HTTP work" if origin.scheme == "https" else "can be reached"
    return Finding("ok", subject, f"{secure}{f' through the proxy {proxy}' if proxy else ''} (for {whose})")


async def _name_trouble(origin: URL) -> str:
    """Why the name can't be resolved; "" if it can.

    In a thread of its own, because the program would wait at its end for asyncio's pool: without a network a resolver
    may take half a minute.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[str] = loop.create_future()

    def resolve() -> None:
        try:
            socket.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
            why = ""
        except OSError as error:
            why = f"can't be found: {error.strerror or error}"
        try:
            loop.call_soon_threadsafe(_settle, done, why)
        except RuntimeError:  # the loop ended meanwhile
            pass

    threading.Thread(target=resolve, daemon=True).start()
    try:
        return await asyncio.wait_for(done, PATIENCE)
    except TimeoutError:
        return f"can't be found: no answer from DNS within {PATIENCE:g} s"


def _settle(future: asyncio.Future[str], value: str) -> None:
    if not future.done():
        future.set_result(value)


def _clock_offset(answer: HttpAnswer) -> float | None:
    """Seconds that our clock is ahead of the server's."""
    try:
        return time.time() - parsedate_to_datetime(answer.headers.get("date", "")).timestamp()
    except (ValueError, TypeError):
        return None


def _clock(offsets: list[float]) -> Finding:
    if not offsets:
        return Finding("warning", "clock", "could not be compared: no upstream told the time")
    offset = statistics.median(offsets)
    if abs(offset) <= CLOCK_WARNING:
        return Finding("ok", "clock", "agrees with the upstreams'")
    message = f"is {abs(offset):.0f} s {'ahead of' if offset > 0 else 'behind'} the upstreams'"
    return Finding("error" if abs(offset) > CLOCK_ERROR else "warning", "clock", message, "timedatectl set-ntp true")
