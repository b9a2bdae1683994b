"""Which provider a request's target belongs to."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote

from aimux.plugin.errors import ErrorKind, GatewayError
from aimux.plugin.parts import OWN_PATHS

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

_PLAIN = re.compile(r"/[A-Za-z0-9\-._~!$&'()*+,;=:@/]*+(?:\?[!\x22$-\[\]-~]*+)?")
"""RFC 3986's path without percent signs, and any visible ASCII but the backslash in the query."""
_ENCODED = re.compile(r"/(?>(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/]|%[0-9A-Fa-f]{2})*)(?:\?[!\x22$-\[\]-~]*+)?")
_FORBIDDEN_ONCE_DECODED = re.compile(r"[/\\\x00-\x1f\x7f]|%(?:2e|2f|5c|25)", re.IGNORECASE)

_ENCODED_SLASH = re.compile("%2f", re.IGNORECASE)

OTHER_GATEWAYS = (
    "/admin",
    "/oauth",
    "/auth/callback",
    "/api/tokens",
    "/api/accounts",
    "/api/oauth/authorize",
    "/api/oauth/callback",
    "/api/oauth/exchange",
    "/api/oauth/tokens",
)
"""Paths of other gateways that serve from the root: a login's code and verifier that a script still sends there must
not reach a vendor with an account's credential."""

REMEMBERED = 1024
SHORT = 256


@dataclass(frozen=True, slots=True)
class Mount:
    """`prefix` has no slash at its end ("" for the root)."""

    prefix: str
    provider: str


class MountTable:
    """Finds a mount with one dictionary look-up for each depth that occurs (usually one), deepest first."""

    def __init__(self, mounts: Mapping[str, str], encoded_slashes: Collection[str] = ()) -> None:
        """`mounts`: prefix → provider's instance name, as in the configuration. `encoded_slashes`: the instances below
        whose mounts a path may hold `%2F`."""
        self._encoded_slashes = frozenset(encoded_slashes)
        self._mounts: dict[str, Mount | None] = {
            prefix.rstrip("/"): Mount(prefix.rstrip("/"), name) for prefix, name in mounts.items()
        }
        if "" in self._mounts:  # below the root lie aimux's own paths too
            self._mounts |= dict.fromkeys((*OWN_PATHS, *OTHER_GATEWAYS))
        self._depths = sorted({prefix.count("/") for prefix in self._mounts}, reverse=True)
        self._found: dict[str, tuple[Mount, str] | None] = {}

    @property
    def mounts(self) -> list[Mount]:
        return [mount for mount in self._mounts.values() if mount is not None]

    def find(self, target: str) -> tuple[Mount, str] | None:
        """The mount and the target below it, which begins with "/". Raises GatewayError (400) for a bad target."""
        # A team's clients ask for the same handful of targets all day: a look-up costs 0.1 µs, checking and finding 4.
        if target in self._found:
            return self._found[target]
        found = self._find(target)
        check_target(target, slashes=found is not None and found[0].provider in self._encoded_slashes)
        if len(target) <= SHORT:
            if len(self._found) >= REMEMBERED:
                self._found.clear()
            self._found[target] = found
        return found

    def _find(self, target: str) -> tuple[Mount, str] | None:
        path = target.partition("?")[0]
        for depth in self._depths:
            end = 0
            for _ in range(depth):
                end = path.find("/", end + 1)
                if end < 0:
                    end = len(path)
                    break
            prefix = path[:end]
            if prefix in self._mounts:
                mount = self._mounts[prefix]
                if mount is None:
                    return None
                if not prefix and path == "/":
                    return None  # a browser's first look, which is no vendor's business
                rest = target[end:]
                return mount, rest if rest.startswith("/") else "/" + rest
        return None


def check_target(target: str, *, slashes: bool = False) -> None:
    """Refuse what could be read as another path or another host further on. Raises GatewayError (400).

    `slashes`: a segment may hold encoded ones, as long as no part between them is empty or made of dots.

    The host is never taken from the target; still, a target that means one thing here and another upstream would let
    a client out of its mount.
    """
    if not _PLAIN.fullmatch(target):
        if not target.startswith("/"):
            raise _bad("it must be a path, not a full URL: aimux is no proxy, its address is a client's base URL")
        if not _ENCODED.fullmatch(target):
            raise _bad("it holds characters that a URL may not hold")
        path = target.partition("?")[0]
        for segment in path.split("/"):
            try:
                decoded = unquote(segment, errors="strict")
            except UnicodeDecodeError:  # overlong forms among them
                raise _bad("it holds bytes that are not UTF-8") from None
            if slashes and _ENCODED_SLASH.search(segment):
                parts = decoded.split("/")
                if {"", ".", ".."}.isdisjoint(parts):
                    decoded = "".join(parts)
            # Wide dots and slashes are the plain ones to whoever tidies a text up.
            plain = decoded if decoded.isascii() else unicodedata.normalize("NFKC", decoded)
            if _is_dots(plain) or _FORBIDDEN_ONCE_DECODED.search(decoded) or _FORBIDDEN_ONCE_DECODED.search(plain):
                raise _bad("it holds an encoded dot segment, slash, backslash, percent sign or control character")
    path = target.partition("?")[0]
    if "/." in path and any(map(_is_dots, path.split("/"))):
        raise _bad("it holds '.' or '..'")


def _is_dots(segment: str) -> bool:
    """Some servers first cut off what follows a semicolon, or the spaces at either end."""
    return segment.partition(";")[0].strip() in {".", ".."}


def _bad(why: str) -> GatewayError:
    return GatewayError(ErrorKind.BAD_REQUEST, f"The request's target is not acceptable: {why}.", retry=False)
