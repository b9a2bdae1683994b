"""What a person has to set in their client: the same text as `aimux connect` shows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from aimux.control.client_files import dump
from aimux.control.clients import CLIENTS, Gateway, NotServed
from aimux.control.dashboard.page import prefix_of, render, scheme_of
from aimux.control.state import control_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from aiohttp import web


class Settings(NamedTuple):
    """For one client. `file` and `content` are None if it can only be set up by hand."""

    title: str
    file: str | None
    content: str | None
    hints: list[str]


def address(request: web.Request) -> str:
    """The gateway's address as this browser reaches it, with a prefix if it has one, without a slash at its end.

    A proxy with TLS says so: an address without it would have tokens sent in the open.
    """
    return str(request.url.origin().with_scheme(scheme_of(request))) + prefix_of(request)


def settings(request: web.Request, token: str | None) -> list[Settings]:
    """Settings of every client that this gateway has a mount for. Without a token they hold a placeholder."""
    gateway = _gateway(request)
    found = []
    for client in CLIENTS.values():
        try:
            hints = [*client.hints(gateway), *client.needs(gateway)]
            content = None if client.settings is None else dump(client.settings(gateway, token), client.file_format)
        except NotServed:
            continue
        place = str(client.file({}, Path("~"))) if client.file is not None else None
        found.append(Settings(client.title, place, content, hints))
    return found


def welcome(request: web.Request, issued: Mapping[str, Any], title: str, *, for_me: bool) -> web.Response:
    """A page that shows a token, this once, with everything that its user has to set."""
    return render(
        request,
        "welcome.html",
        title=title,
        issued=issued,
        settings=settings(request, issued["token"]),
        for_me=for_me,
    )


def _gateway(request: web.Request) -> Gateway:
    control = control_of(request)
    setup = control.gateway.setup
    mounts: dict[str, str] = {}
    for mount in setup.mounts.mounts:
        wire_format = setup.routes[mount.provider].provider.wire_format
        mounts.setdefault(wire_format, address(request) + mount.prefix)
    own = request.url.scheme == "https" and control.api.parts.running.certificate() is not None
    if own:
        return Gateway(mounts, Path("/path/to/aimux.pem"), f"{address(request)}/certificate.pem")
    return Gateway(mounts)
