"""What holds for a while: the settings, who may call, and what was derived about requests from both."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from aimux.gateway.caller import Caller  # noqa: TC001 - compiled, a dataclass's annotations are looked up
from aimux.gateway.conversations import named_conversation
from aimux.gateway.exposed_tokens import holds_token, may_name
from aimux.gateway.forms import is_form
from aimux.gateway.mounts import REMEMBERED, SHORT
from aimux.gateway.route import Route  # noqa: TC001 - compiled, a dataclass's annotations are looked up
from aimux.gateway.wrong_mount import wrong_mount
from aimux.http.request import RequestHead as ReceivedHead  # noqa: TC001 - as above
from aimux.limits import ANYBODY, Terms, Who
from aimux.metering.record import NOBODY, TOLD, Sender, request_id
from aimux.plugin.body import MAX_MODEL, Body
from aimux.plugin.types import RequestHead

if TYPE_CHECKING:
    from aimux.front.request import Request
    from aimux.gateway.mounts import Mount
    from aimux.gateway.setup import Setup
    from aimux.plugin.provider import Provider
    from aimux.plugin.types import Credential, Headers
    from aimux.relay.pool import Origin

NO_BODY: Final = Body(b"")
MAX_WORD: Final = 64


_STREAM_KEY: Final = b'"stream"'
_LOOKED_AT: Final = 64 * 1024
_END: Final = 256
_LONGEST_START: Final = 512
"""Bytes of a body's start that are kept with an admission."""


def asks_for_stream(body: Body) -> bool:
    """Whether the answer is to be a stream, as both vendors' bodies say it. An unreadable body may be for a whole
    answer, which takes longer.

    The CLIs write it at the end, others near the start: the 60 kB in between need not be searched. Inside strings its
    quotes are escaped.
    """
    raw = body.raw
    size = len(raw)
    at = raw.rfind(_STREAM_KEY, max(0, size - _END))
    if at < 0:
        at = raw.find(_STREAM_KEY, 0, _LOOKED_AT)
    if at < 0 and size > _LOOKED_AT:
        at = raw.find(_STREAM_KEY, max(_LOOKED_AT, size - _LOOKED_AT))
    if at < 0:
        return False
    at += len(_STREAM_KEY)
    value = raw[at : at + 24]
    if value.startswith(b":true") or value.startswith(b": true"):  # noqa: PIE810 - a tuple of them is no primitive
        return True
    if value.startswith(b":false") or value.startswith(b": false"):  # noqa: PIE810 - as above
        return False
    return b"".join(value.split()).startswith(b":true")  # people may leave more room


@dataclass(slots=True)
class Admitted:
    """What follows from a request's head in one epoch, kept for its connection's next request with the same head."""

    epoch: Epoch | None
    """None: it is no client's."""
    route: Route
    """Of the mount."""
    caller: Caller
    head: RequestHead
    """As providers see it."""
    received: ReceivedHead
    """The same, with its lines."""
    path: str = ""
    """The target as records show it."""
    request_id: str = ""
    """The client's own id; "" if each request gets one from aimux."""
    sender: Sender = NOBODY
    """What the head says, for the record."""
    who: Who = ANYBODY
    terms: Terms | None = None
    """The limits that hold for the caller, as last looked up."""
    counted: bool = False
    """Limits count such a request."""
    asks_usage: bool = False
    """The client asks how much of its limits is used."""
    form: bool = False
    """The body is a form."""
    path_model: str = ""
    """The model that the target names; "": the body does."""
    sent: tuple[Route, Credential, Origin, bytes] | None = field(default=None, repr=False)
    """The last request's way, and the head that it went up with, but for its length: `Provider.prepare` is pure."""
    start: bytes = field(default=b"", repr=False)
    """The beginning of the last body that began with its model, up to the end of the model …"""
    model: str = ""
    """… and the model."""

    def model_of(self, body: Body) -> str:
        """`body.model`. A client's bodies begin alike for hours; a search takes six times as long."""
        raw = body.raw
        if self.start and raw.startswith(self.start) and not body.encoding:
            return self.model
        start, model = body.start
        if not model:
            return body.model
        if len(start) <= _LONGEST_START:
            self.start, self.model = start, model
        return model


class Epoch:
    """A time in which an admission holds for every request with the same head; compared by identity.

    A reload begins another one, and so does each change of who may call or of what they may use: `Gateway.begin`.
    """

    __slots__ = ("_harmless", "setup")

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self._harmless: set[str] = set()
        """Targets that hold no token: a team's clients ask for the same handful all day."""

    def exposes_token(self, target: str) -> bool:
        """Whether there is a token in a request's target."""
        if target in self._harmless:
            return False
        if holds_token(target, self.setup.authentication):
            return True
        if len(target) <= SHORT and len(self._harmless) < REMEMBERED:
            self._harmless.add(target)
        return False

    def request_id(self, headers: Headers, own: str) -> str:
        """The request's id: the one that its client chose if that may be shown, else `own`."""
        name = request_id(headers, own)
        return name if name is own or may_name(name, headers, self.setup.authentication) else own

    def admit(self, request: Request, route: Route, mount: Mount, target: str) -> Admitted:
        """`target` is below the mount. Raises GatewayError for callers who may not call."""
        received, ends, authentication = request.head, request.connection, self.setup.authentication
        now = time.monotonic()
        caller = authentication.authenticate(received.headers, ends.peer, route.provider, now, reached=ends.reached)
        head = RequestHead(received.method, target, received.headers)
        secure = ends.transport.get_extra_info("sslcontext") is not None
        if (wrong := wrong_mount(self.setup, head.path, received.headers, at=mount, secure=secure)) is not None:
            raise wrong
        provider = route.provider
        return Admitted(
            self,
            route,
            caller,
            head,
            received,
            path_of(received.target),
            self.request_id(received.headers, ""),
            _sender(mount, provider, caller, head, authentication.proxies.address(received.headers, ends.peer)),
            _who(caller),
            counted=provider.counts(head),
            asks_usage=provider.asks_usage(head),
            form=is_form(received.headers),
            path_model=provider.model_in_path(head)[:MAX_MODEL],
        )


def path_of(target: str) -> str:
    """A target as records show it: without its query, which may hold anything."""
    return target.partition("?")[0][:TOLD]


def _sender(mount: Mount, provider: Provider, caller: Caller, head: RequestHead, address: str) -> Sender:
    user, headers = caller.user, head.headers
    hints = provider.hints(head)
    return Sender(
        mount.prefix,
        caller.token_id,
        tuple(user.groups) if user else (),
        _word(headers.get("user-agent", "").partition(" ")[0]),
        named_conversation(provider, head, NO_BODY) or "",
        _word(hints.request_class),
        _word(hints.agent),
        _word(hints.parent_agent),
        address,
    )


def _who(caller: Caller) -> Who:
    """The caller as limits know them."""
    user = caller.user
    return Who(caller.name, caller.token_id, tuple(user.groups) if user is not None else ())


def _word(text: str) -> str:
    """Foreign text, made fit for a column of the ledger."""
    return text[:MAX_WORD] if text.isprintable() else ""
