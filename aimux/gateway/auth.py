"""Who may call: one SHA-256 and one dictionary look-up, however many users there are."""

from __future__ import annotations

import hmac
import ipaddress
import math
from collections import OrderedDict
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple

from aimux.plugin.errors import ErrorKind, GatewayError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from aimux.config import User
    from aimux.plugin.provider import Provider
    from aimux.plugin.types import Headers

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

FAILURES = 10
"""Failed attempts that an address has before it is slowed down …"""
FORGIVEN_SECONDS = 6.0
"""… and the seconds after which one of them is forgiven."""
MAX_ADDRESSES = 10_000


class Caller(NamedTuple):
    """Who calls. `user` None: an anonymous caller, which was allowed. `token` is what must not go upstream."""

    user: User | None
    token: bytes

    def __repr__(self) -> str:
        return f"Caller({self.name!r})"

    @property
    def name(self) -> str:
        return self.user.name if self.user else ""

    @property
    def token_id(self) -> str:
        """Names the token for the ledger: the start of its hash. "" for an anonymous caller."""
        return self.user.sha256.hex()[:8] if self.user else ""


def presented_tokens(headers: Headers) -> list[str]:
    """The bearer token and the `x-api-key`, each once; both vendors' SDKs may send the two."""
    tokens = []
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and (token := token.strip()):
        tokens.append(token)
    if (key := headers.get("x-api-key", "").strip()) and key not in tokens:
        tokens.append(key)
    return tokens


class FailureLimit:
    """Failed attempts by address, a leaky bucket each; the least recently seen is forgotten first."""

    def __init__(self) -> None:
        self._seen: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def failed(self, address: str, now: float) -> float | None:
        """Count a failure. Seconds to wait if the address has had too many, else None."""
        level, since = self._seen.pop(address, (0.0, now))
        level = max(0.0, level - (now - since) / FORGIVEN_SECONDS) + 1
        self._seen[address] = (min(level, FAILURES + 1.0), now)
        if len(self._seen) > MAX_ADDRESSES:
            self._seen.popitem(last=False)
        return (level - FAILURES) * FORGIVEN_SECONDS if level > FAILURES else None


class Authentication:
    """The users of one configuration, and what is said to everybody else."""

    def __init__(
        self,
        users: Iterable[User],
        *,
        allow_anonymous: bool,
        trusted_proxies: Sequence[Network] = (),
        failures: FailureLimit | None = None,
    ) -> None:
        self._users = {digest: (digest, user) for user in users for digest in [user.sha256]}
        self._allow_anonymous = allow_anonymous
        self._trusted = tuple(trusted_proxies)
        self.failures = failures or FailureLimit()

    def authenticate(self, headers: Headers, peer: str, provider: Provider, now: float) -> Caller:
        """The caller. GatewayError: 401 with users configured, 403 for strangers without, 429 after many failures."""
        tokens = presented_tokens(headers)
        for token in tokens:
            digest = sha256(token.encode("utf-8", "surrogateescape")).digest()
            known = self._users.get(digest)
            # The look-up compares digests, of which a caller controls no bit; the second compare costs 0.2 µs.
            if known is not None and hmac.compare_digest(known[0], digest):
                return Caller(known[1], token.encode("utf-8", "surrogateescape"))
        if not self._users:
            return self._anonymous(headers, peer, tokens)
        advice, guessed = _advice(tokens, provider)
        wait = self.failures.failed(self.address(headers, peer), now) if guessed else None
        if wait is not None:
            raise GatewayError(
                ErrorKind.RATE_LIMITED,
                f"{advice} Too many such requests came from your address: "
                f"the next is looked at in {math.ceil(wait)} s, one with the right token at once.",
                retry=False,
                retry_after=math.ceil(wait),
            )
        raise GatewayError(ErrorKind.UNAUTHORIZED, advice, retry=False)

    def admits(self, caller: Caller, headers: Headers, peer: str) -> bool:
        """Whether somebody who was let in before may still call."""
        if caller.user is None:
            return not self._users and self._serves_anyone(headers, peer)
        return caller.user.sha256 in self._users

    def _anonymous(self, headers: Headers, peer: str, tokens: list[str]) -> Caller:
        if self._serves_anyone(headers, peer):
            return Caller(None, tokens[0].encode("utf-8", "surrogateescape") if tokens else b"")
        raise GatewayError(
            ErrorKind.FORBIDDEN,
            "This aimux has no users configured and then serves its own machine only. "
            "Add `users:` with a token for you to its configuration, or set `allow_anonymous: true`.",
            retry=False,
        )

    def _serves_anyone(self, headers: Headers, peer: str) -> bool:
        return self._allow_anonymous or (self.is_local(headers, peer) and not _from_foreign_page(headers))

    def address(self, headers: Headers, peer: str) -> str:
        """The client's address: the peer's, or what trusted proxies say of it ("" for a unix socket's peer)."""
        address = peer
        if peer and not self._is_trusted(peer):
            return peer
        for hop in reversed(",".join(headers.getall("x-forwarded-for", [])).split(",")):
            hop = hop.strip()
            if not hop:
                continue
            if not _ip(hop):
                break
            address = hop
            if not self._is_trusted(hop):
                break
        return address

    def is_local(self, headers: Headers, peer: str) -> bool:
        """A caller on this machine. What came through a proxy that isn't trusted is none, wherever the proxy runs."""
        forwarded = "x-forwarded-for" in headers or "forwarded" in headers
        if forwarded and not (peer and self._is_trusted(peer)):
            return False
        address = self.address(headers, peer)
        ip = _ip(address)
        return not address or (ip is not None and ip.is_loopback)

    def _is_trusted(self, address: str) -> bool:
        ip = _ip(address)
        return ip is not None and any(ip in network for network in self._trusted if network.version == ip.version)


def _ip(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return None
    return ip.ipv4_mapped or ip if isinstance(ip, ipaddress.IPv6Address) else ip


def _from_foreign_page(headers: Headers) -> bool:
    """A web page in a browser on this machine reaches loopback too, also by a name that resolves to it (rebinding)."""
    if headers.get("sec-fetch-site", "same-origin") not in {"same-origin", "none"}:
        return True
    # A WebSocket needs no leave from us to cross origins, and not every browser says more than `origin` on it.
    scheme, _, origin = headers.get("origin", "").partition("://")
    if scheme == "null" or (scheme in {"http", "https"} and origin != headers.get("host")):
        ip = _ip(_name(origin))
        if _name(origin) != "localhost" and not (ip is not None and ip.is_loopback):
            return True
    name = _name(headers.get("host", "").rpartition("@")[2])
    return not (not name or name == "localhost" or _ip(name) is not None)


def _name(authority: str) -> str:
    """The host without its port and an IPv6 address's brackets."""
    return authority[1 : authority.find("]")] if authority.startswith("[") else authority.partition(":")[0]


def _advice(tokens: list[str], provider: Provider) -> tuple[str, bool]:
    """What to tell a caller without a valid token, and whether that was a guess at one.

    Claude Code's probe at each start brings none, and a client with the vendor's own login makes a dozen requests in a
    row: counted as guesses, they would have a whole office told to wait instead of what to set.
    """
    for token in tokens:
        if advice := provider.vendor_token_advice(token):
            return advice, False
    if tokens:
        return "This token is not known to aimux; ask whoever runs it for one, or check for a typing error.", True
    return (
        "aimux needs a token: send `Authorization: Bearer <your aimux token>` or `x-api-key: <your aimux token>`.",
        False,
    )
