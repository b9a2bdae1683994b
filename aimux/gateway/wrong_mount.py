"""Requests at the wrong place: the API of one format below the mount of another, or below none, or an endpoint below
another.

Claude Code shows any 404 as a problem with the model, and an SDK shows nothing of an error in another format. So the
client is told the right base URL, in the form that it shows to its user.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from aimux.gateway.client_address import prefix, scheme
from aimux.plugin.errors import ErrorKind, GatewayError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aimux.gateway.mounts import Mount
    from aimux.gateway.setup import Setup
    from aimux.plugin.provider import Provider
    from aimux.plugin.types import Headers

_ENDPOINT = "chat/completions|responses|messages|embeddings"
_WITHIN = re.compile(f"/(?:{_ENDPOINT})/+((?:v1/+)?(?:{_ENDPOINT})(?:/|$))")
"""The base URL was a whole endpoint's, and the client has added that again."""
_HOST = re.compile(r"[A-Za-z0-9._:\[\]-]{1,255}")


class WrongMount(GatewayError):
    """`provider` renders it: its clients sent the request."""

    def __init__(self, provider: Provider, message: str) -> None:
        super().__init__(ErrorKind.BAD_REQUEST, message, retry=False)
        self.provider = provider


def wrong_mount(setup: Setup, path: str, headers: Headers, *, at: Mount | None, secure: bool) -> WrongMount | None:
    """The error for a path (below the mount `at`, if any) that belongs to another format; None if it does not.

    `secure`: the client speaks TLS with us.
    """
    asked = _WITHIN.sub(r"/\1", path)
    if at is not None and setup.routes[at.provider].provider.speaks(asked):
        meant = [at] if asked != path else []
    else:
        meant = [mount for mount in setup.mounts.mounts if _is_meant(setup, mount, asked, at)]
    if not meant:
        return None
    provider = setup.routes[meant[0].provider].provider
    here = f"below {at.prefix or '/'}" if at is not None else "without the mount before it"
    return WrongMount(provider, f"{path} is not served {here}: {_advice(setup, meant, _origin(headers, secure))}")


def _is_meant(setup: Setup, mount: Mount, path: str, at: Mount | None) -> bool:
    provider = setup.routes[mount.provider].provider
    if at is not None and provider.wire_format == setup.routes[at.provider].provider.wire_format:
        return False
    return provider.speaks(path)


def _advice(setup: Setup, mounts: Iterable[Mount], origin: str) -> str:
    told = [setup.routes[mount.provider].provider.base_url_advice(origin + mount.prefix) for mount in mounts]
    return "; or ".join(told[:3]) + "."


def _origin(headers: Headers, secure: bool) -> str:
    """How the client reached us: scheme and host, and the path that a proxy has taken off."""
    host = headers.get("host", "")
    spoken = scheme(headers, "https" if secure else "http")
    return f"{spoken}://{host if _HOST.fullmatch(host) else 'HOST'}{prefix(headers)}"
