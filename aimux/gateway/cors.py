"""Cross-origin requests (Fetch standard): what a browser asks before a page of another site may call, and the answer.

A page that may call needs a token like everybody else; nothing that a browser sends by itself opens anything.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from aimux.front.answer import Answer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aimux.plugin.types import Headers

_METHODS = "GET, POST, PUT, PATCH, DELETE"
_NAMES = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~, -]{1,2048}")
_ALLOWS = b"access-control-allow-origin:"


class Cors:
    """The origins of `cors.allowed_origins`; with none of them every page is refused by its browser."""

    def __init__(self, allowed: Iterable[str] = ()) -> None:
        self._allowed = frozenset(allowed)

    def names(self, headers: Headers) -> bool:
        """Whether the request comes from a page that is allowed by its name, and not by `*`."""
        return headers.get("origin", "").lower() in self._allowed

    def preflight(self, method: str, headers: Headers) -> Answer | None:
        """The answer to a browser that asks whether a page may call; None if it may not, or if that was not asked."""
        if method != "OPTIONS" or not self._allowed or "access-control-request-method" not in headers:
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
