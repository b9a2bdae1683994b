"""Where a request comes from: its client's address, whether that is this machine, and which web page sent it."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING, Literal

from aimux.gateway.headers import from_stand_in

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from aimux.plugin.types import Headers

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

LONGEST = 64
"""Characters kept of a hop that is not an address, to count guesses by."""
_PREFIX = re.compile("(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+")
_PORT = re.compile(r"(?::(?:\d{1,5}|_[A-Za-z0-9._-]*))?")
_PAIR = re.compile(r'\s*([A-Za-z0-9!#$%&\'*+.^_`|~-]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^";,\s]*)\s*')


class TrustedProxies:
    """Believes what trusted proxies say about their clients, in every form that RFC 7239 or custom allows:
    `203.0.113.7:4711`, `[2001:db8::7]:4711`, `"203.0.113.7"`, `for=…;proto=…`. The last hop is read first; if it is not
    an address (`unknown`, `_hidden`), the client is a stranger who is known by that word.
    """

    def __init__(self, trusted: Sequence[Network | Literal["unix"]] = ()) -> None:
        self._trusted = tuple(network for network in trusted if network != "unix")
        self._unix = "unix" in trusted

    def address(self, headers: Headers, peer: str) -> str:
        """The client's address: the peer's ("" for a unix socket's), or what trusted proxies say of it."""
        if not self._trusts(peer):
            return peer
        told = [self._client(hops) for hops in (_x_forwarded_for(headers), _forwarded(headers)) if hops]
        # A proxy writes one of the two and may pass on the other as the client made it up, so they have to agree.
        return told[0] if told and len({*told}) == 1 else peer

    def is_here(self, headers: Headers, peer: str, reached: str = "") -> bool:
        """This machine: over a unix socket, from loopback, or from the very address (`reached`) that it came to.

        A request that came through something in between is not from this machine, unless that is a trusted proxy and
        says so.
        """
        if not from_stand_in(headers):
            ip = _ip(peer)
            return not peer or peer == reached or (ip is not None and ip.is_loopback)
        if not self._trusts(peer):
            return False
        both = [hops for hops in (_x_forwarded_for(headers), _forwarded(headers)) if hops]
        clients = [_ip(self._client(hops)) for hops in both]
        return bool(clients) and all(ip is not None and ip.is_loopback for ip in clients)

    def _client(self, hops: list[str]) -> str:
        """The nearest one that is not a trusted proxy, else the furthest."""
        for hop in reversed(hops):
            address = _node(hop)
            if address is None:
                return hop[:LONGEST]
            if not self._trusts(str(address)):
                return str(address)
        return str(_node(hops[0]))

    def _trusts(self, address: str) -> bool:
        if not address:
            return self._unix
        ip = _ip(address)
        return ip is not None and any(ip in network for network in self._trusted if network.version == ip.version)


def from_foreign_page(headers: Headers) -> bool:
    """A web page in a browser on this machine reaches loopback too, also by a name that resolves to it (rebinding)."""
    if headers.get("sec-fetch-site", "same-origin") not in {"same-origin", "none"}:
        return True
    # A WebSocket may cross origins without asking us, and some browsers send only `origin` with it.
    scheme, _, origin = headers.get("origin", "").partition("://")
    if scheme == "null" or (scheme in {"http", "https"} and origin != headers.get("host")):
        ip = _ip(_name(origin))
        if _name(origin) != "localhost" and not (ip is not None and ip.is_loopback):
            return True
    name = _name(headers.get("host", "").rpartition("@")[2])
    return not (not name or name == "localhost" or _ip(name) is not None)


def from_other_origin(headers: Headers) -> bool:
    """A browser sends it for a page that is not aimux's own. Other programs don't send these headers."""
    if site := headers.get("sec-fetch-site"):
        return site not in {"same-origin", "none"}
    return "origin" in headers and headers["origin"].partition("://")[2] != headers.get("host")


def scheme(headers: Headers, own: str) -> str:
    """What the client speaks: of several proxies the first says so, and each may have added its own word to a list."""
    told = headers.get("x-forwarded-proto", "").partition(",")[0].strip().lower()
    return told if told in {"http", "https"} else own


def prefix(headers: Headers) -> str:
    """What a proxy has taken off the beginning of the path, as it says; "" for what can be none."""
    told = headers.get("x-forwarded-prefix", "").rstrip("/")
    return told if _PREFIX.fullmatch(told) else ""


def _x_forwarded_for(headers: Headers) -> list[str]:
    hops = ",".join(headers.getall("x-forwarded-for", [])).split(",")
    return [hop.strip() for hop in hops if hop.strip()]


def _forwarded(headers: Headers) -> list[str]:
    """The `for` of each hop. What is not of RFC 7239's form is a hop of its own, which is no address."""
    return [hop for value in headers.getall("forwarded", []) for hop in _elements(value)]


def _elements(value: str) -> Iterator[str]:
    at, node = 0, ""
    while at < len(value):
        pair = _PAIR.match(value, at)
        if pair is None:
            yield value[:LONGEST]
            return
        if pair[1].lower() == "for":
            node = re.sub(r"\\(.)", r"\1", pair[2][1:-1]) if pair[2].startswith('"') else pair[2]
        at = pair.end()
        if at == len(value) or value[at] == ",":
            yield node or "unknown"
            node = ""
        elif value[at] != ";":
            yield value[:LONGEST]
            return
        at += 1


def _node(text: str) -> Address | None:
    """The address of a hop, whatever surrounds it."""
    text = text.strip().strip('"').strip()
    if text.startswith("["):
        name, bracket, port = text[1:].partition("]")
        return _ip(name) if bracket and _PORT.fullmatch(port) else None
    if text.count(":") == 1:
        text, colon, port = text.partition(":")
        if not _PORT.fullmatch(colon + port):
            return None
    return _ip(text)


def _ip(address: str) -> Address | None:
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return None
    return ip.ipv4_mapped or ip if isinstance(ip, ipaddress.IPv6Address) else ip


def _name(authority: str) -> str:
    """The host without its port and an IPv6 address's brackets."""
    return authority[1 : authority.find("]")] if authority.startswith("[") else authority.partition(":")[0]
