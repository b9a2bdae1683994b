"""Logging in: what is remembered between the start of a flow and its end. For the command line and the admin API."""

from __future__ import annotations

import base64
import hashlib
import html
import re
import secrets
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Generic, TypeVar
from urllib.parse import parse_qsl

from aimux.plugin.errors import LoginError
from aimux.redaction import masking

if TYPE_CHECKING:
    from collections.abc import Callable

    from aimux.plugin.http import Http
    from aimux.plugin.provider import DeviceCode, Provider

LIFETIME = 600.0
"""Seconds that a person has between the start of a flow and its end."""
SHORTEST_INTERVAL = 1.0
LONGEST_INTERVAL = 60.0
"""Seconds between two polls of a device flow, whatever the server says."""
MOST = 100
"""Flows under way at once; beyond them the oldest is forgotten."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Started:
    """What the person opens, and the state that comes back."""

    authorization_url: str
    state: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Finished(Generic[T]):
    """A credential file's content, and whatever the caller passed at the start."""

    provider: Provider
    raw: bytes = field(repr=False)
    note: T


@dataclass(frozen=True, slots=True)
class AuthorizationResponse:
    """What the authorization server sent back, by redirect or by way of the person."""

    code: str = field(repr=False)
    state: str = field(repr=False)
    error: str = ""


@dataclass(slots=True)
class _Flow(Generic[T]):
    provider: Provider
    ends_at: float
    note: T
    redirect_uri: str = ""
    verifier: str = field(default="", repr=False)
    device: DeviceCode | None = None
    asked_at: float = float("-inf")


class Logins(Generic[T]):
    """Flows under way. A state (or a device's id) is good once and for ten minutes, whatever comes of it."""

    def __init__(self, http: Http) -> None:
        self._http = http
        self.clock: Callable[[], float] = time.monotonic
        self._flows: dict[str, _Flow[T]] = {}

    def __len__(self) -> int:
        return len(self._flows)

    # --- with a browser ----------------------------------------------------------------------------------------------

    def begin(self, provider: Provider, redirect_uri: str, note: T) -> Started:
        """Start the authorization code flow (PKCE, S256). Raises LoginError if the provider has none."""
        verifier = secrets.token_urlsafe(48)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        state = secrets.token_urlsafe(32)
        with masking(verifier, state):
            url = provider.authorization_url(redirect_uri=redirect_uri, state=state, challenge=challenge)
        self._keep(state, _Flow(provider, self.clock() + LIFETIME, note, redirect_uri, verifier))
        return Started(url, state)

    async def finish(self, instance: str, answer: AuthorizationResponse) -> Finished[T]:
        """Exchange the code. Raises LoginError: unknown, used or expired state, denied, or what the server said."""
        flow = self._flows.get(answer.state)
        if flow is None or flow.device is not None or flow.provider.instance != instance:
            raise LoginError("this login is not under way (or was, until it was used): start again")
        del self._flows[answer.state]
        if flow.ends_at <= self.clock():
            raise LoginError(f"this login was begun more than {LIFETIME / 60:.0f} minutes ago: start again")
        if answer.error:
            raise LoginError(denial(answer.error))
        with masking(answer.code, answer.state, flow.verifier):
            raw = await flow.provider.exchange(
                self._http, code=answer.code, state=answer.state, verifier=flow.verifier, redirect_uri=flow.redirect_uri
            )
        return Finished(flow.provider, raw, flow.note)

    # --- with a device code ------------------------------------------------------------------------------------------

    async def device_begin(self, provider: Provider, note: T) -> tuple[str, DeviceCode]:
        """Start the device flow: an id to poll with, and what the person opens and types. Raises LoginError."""
        with masking():
            device = await provider.device_start(self._http)
        device = replace(device, interval=min(LONGEST_INTERVAL, max(SHORTEST_INTERVAL, device.interval)))
        name = secrets.token_urlsafe(32)
        self._keep(name, _Flow(provider, self.clock() + device.expires_in, note, device=device))
        return name, device

    async def device_poll(self, instance: str, name: str) -> Finished[T] | None:
        """None while the person hasn't confirmed, and if asked too often. Raises LoginError."""
        flow = self._flows.get(name)
        if flow is None or flow.device is None or flow.provider.instance != instance:
            raise LoginError("this login is not under way (or was, until it ended): start again")
        now = self.clock()
        if flow.ends_at <= now:
            del self._flows[name]
            raise LoginError("the code was not confirmed in time: start again")
        if now < flow.asked_at + flow.device.interval:
            return None
        flow.asked_at = now
        try:
            with masking(flow.device.secret):
                raw = await flow.provider.device_poll(self._http, flow.device)
        except LoginError:
            self._flows.pop(name, None)
            raise
        if raw is None or self._flows.pop(name, None) is None:
            return None
        return Finished(flow.provider, raw, flow.note)

    def _keep(self, name: str, flow: _Flow[T]) -> None:
        now = self.clock()
        for old in [old for old, other in self._flows.items() if other.ends_at <= now]:
            del self._flows[old]
        while len(self._flows) >= MOST:
            del self._flows[next(iter(self._flows))]
        self._flows[name] = flow


# --- what comes back -------------------------------------------------------------------------------------------------


def read_answer(pasted: str) -> AuthorizationResponse:
    """From what a person copied: `CODE#STATE`, the address that the browser ended at, or its query.

    A code alone has the state "". Raises LoginError if there is no code.
    """
    text = pasted.strip()
    if "response_type=" in text:
        raise LoginError("that is the address to sign in at; copy what the browser shows once you have done so")
    if "code=" in text or "error=" in text:
        address, mark, query = text.partition("#")[0].partition("?")
        return from_query(query if mark else address)  # else it is the query itself that was copied
    code, _, state = text.partition("#")
    if not code or re.search(r"\s", text) or "://" in text:
        raise LoginError("there is no code in that; copy the whole CODE#STATE, or the whole address")
    return AuthorizationResponse(code, state)


def from_query(query: str) -> AuthorizationResponse:
    """From a callback's query. Raises LoginError."""
    given = dict(parse_qsl(query))
    error = given.get("error", "")
    if error and re.fullmatch(r"[a-z]+(?:_[a-z]+){1,5}", detail := given.get("error_description", "")):
        error = detail  # a code as well, which says more: `account_on_hold` of an `access_denied`
    answer = AuthorizationResponse(given.get("code", ""), given.get("state", ""), error)
    if not answer.code and not answer.error:
        raise LoginError("there is no code in that; copy the whole CODE#STATE, or the whole address")
    return answer


def denial(error: str) -> str:
    """For a person. Only what looks like one of OAuth's own words is repeated."""
    if error == "access_denied":
        return "the sign-in was declined"
    return f"the sign-in failed ({error})" if re.fullmatch(r"[a-z_]{3,40}", error) else "the sign-in failed"


PAGE_HEADERS = {
    "content-type": "text/html; charset=utf-8",
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
"""The page's address holds a code: nothing may be loaded from other sites, or sent to them."""


def page(heading: str, text: str) -> bytes:
    """The page that the browser shows at the end."""
    heading, text = html.escape(heading), html.escape(text)
    return f"<!doctype html><title>aimux</title><h1>{heading}</h1><p>{text}</p>".encode()
