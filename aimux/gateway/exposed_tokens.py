"""Tokens where they don't belong: in a request's address or its id, which logs, proxies and browsers keep."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import unquote

from aimux.http.head import SECRET
from aimux.people import Denied
from aimux.people.tokens import form
from aimux.plugin.errors import ErrorKind, GatewayError

if TYPE_CHECKING:
    from aimux.gateway.auth import Authentication
    from aimux.plugin.types import Headers

WITHHELD = "/…"
"""What records show in place of such an address."""
SHORTEST = 8
"""The least length of a token, and of what was meant to be one of aimux's own."""
SHORTEST_OWN = 20
_BETWEEN = re.compile(r"[/?&=;,:\s]+")
_VENDORS = ("sk-", "eyJ")


def holds_token(text: str, authentication: Authentication) -> bool:
    """Whether a text holds somebody's token (or a former one), or something that was meant to be one of aimux's own."""
    if "%" in text:
        text = unquote(text)
    parts = [part for part in _BETWEEN.split(text) if len(part) >= SHORTEST]
    return any(
        (form(part) != "foreign" and len(part) >= SHORTEST_OWN) or authentication.find(part) is not Denied.UNKNOWN
        for part in parts
    )


def may_name(given: str, headers: Headers, authentication: Authentication) -> bool:
    """Whether an `x-request-id` that a client has chosen may be shown: it is not a token, not even a wrong one."""
    if len(given) < SHORTEST:
        return True
    shown = " ".join(headers.get(name, "") for name in SECRET)
    return not (given in shown or given.startswith(_VENDORS) or holds_token(given, authentication))


def exposed() -> GatewayError:
    return GatewayError(
        ErrorKind.BAD_REQUEST,
        "There is an aimux token in the address of this request, where logs and proxies keep it: send it as "
        "`Authorization: Bearer <token>`, and have it replaced by another one.",
        retry=False,
    )
