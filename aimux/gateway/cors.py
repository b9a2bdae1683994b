"""Cross-origin requests (Fetch standard): what a browser asks before a page of another site may call, and the answer.

A page that may call needs a token like everybody else; nothing that a browser sends by itself opens anything.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING

from aimux.front.answer import Answer
from aimux.plugin.errors import ErrorKind, GatewayError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aimux.plugin.types import Headers

log = logging.getLogger("aimux.gateway")

_METHODS = "GET, POST, PUT, PATCH, DELETE"
_NAMES = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~, -]{1,2048}")
_ORIGIN = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,30}://[A-Za-z0-9._~%\[\]:-]{0,200}")
_ALLOWS = b"access-control-allow-origin:"

TOLD = 100
"""Origins that the log names: anybody may send them."""


class Cors:
    """The origins of `cors.allowed_origins`; with none of them every page is refused by its browser."""

    def __init__(self, allowed: Iterable[str] = ()) -> None:
        self._allowed = frozenset(allowed)
        self._refused: set[str] = set()

    def names(self, headers: Headers) -> bool:
        """Whether the request comes from a page that is allowed by its name, and not by `*`."""
        return headers.get("origin", "").lower() in self._allowed

    def preflight(self, method: str, headers: Headers) -> Answer | None:
        """The answer to a browser that asks whether a page may call; None if it may not, or if that was not asked."""
        if not self._allowed or not _is_preflight(method, headers):
            return None
        allowed = self.answer_headers(headers)
        if not allowed:
            return None
        told = {**allowed, "access-control-allow-methods": _METHODS, "access-control-max-age": "7200"}
        wanted = headers.get("access-control-request-headers", "")
        if _NAMES.fullmatch(wanted):
            told["access-control-allow-headers"] = wanted
        if headers.get("access-control-request-private-network") == "true":
            told["access-control-allow-private-network"] = "true"
        return Answer(204, told)

    def refusal(self, method: str, headers: Headers) -> GatewayError | None:
        """What a preflight that is not let in hears; None if the request is none. It has no token, and none would help
        it. A browser shows its user nothing of the answer, so the log says it, too: once for each origin."""
        if not _is_preflight(method, headers):
            return None
        origin = headers["origin"]
        page = f"A page of {origin}" if _ORIGIN.fullmatch(origin) else "A page without an origin of its own"
        if page not in self._refused and len(self._refused) < TOLD:
            self._refused.add(page)
            log.info("%s asks to call aimux, and may not: `cors.allowed_origins` would let it", page)
        message = f"{page} may not call aimux; whoever runs it can allow it in `cors.allowed_origins`."
        return GatewayError(ErrorKind.FORBIDDEN, message, retry=False)

    def answer_headers(self, headers: Headers) -> dict[str, str]:
        """The headers that let the page read an answer; `{}` if it may not."""
        origin = headers.get("origin")
        if not self._allowed or origin is None or not ({origin.lower(), "*"} & self._allowed):
            return {}
        return {"access-control-allow-origin": origin, "access-control-expose-headers": "*", "vary": "origin"}

    def with_headers(self, lines: list[bytes], headers: Headers) -> list[bytes]:
        """An upstream's header lines with these. One that allows the page, or every page, says all that is needed."""
        told = self.answer_headers(headers) if self._allowed else {}
        if not told:
            return lines
        allows = {told["access-control-allow-origin"].encode(), b"*"}
        if any(line.lower().startswith(_ALLOWS) and line.partition(b":")[2].strip() in allows for line in lines):
            return lines
        kept = [line for line in lines if not line.lower().startswith(b"access-control-")]
        return kept + [b"%b: %b" % (name.encode(), value.encode("latin-1")) for name, value in told.items()]


def _is_preflight(method: str, headers: Headers) -> bool:
    return method == "OPTIONS" and "origin" in headers and "access-control-request-method" in headers
