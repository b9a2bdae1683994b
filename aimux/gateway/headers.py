"""Which headers cross aimux, in each direction. docs/security.md holds the table; a test keeps both the same."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple

from aimux.http.head import HOP_BY_HOP
from aimux.redaction import SHORTEST

if TYPE_CHECKING:
    from collections.abc import Collection

    from aimux.http.head import ResponseHead
    from aimux.http.request import RequestHead
    from aimux.plugin.types import Headers

STAND_INS = frozenset(
    {
        # what proxies, load balancers and CDNs say of the client, of themselves and of the way …
        "cdn-loop",
        "client-ip",
        "disguised-host",
        "forwarded",
        "true-client-ip",
        "via",
        "was-default-hostname",
        "x-client-cert",
        "x-client-dn",
        "x-client-ip",
        "x-client-verify",
        "x-cluster-client-ip",
        "x-original-forwarded-for",
        "x-original-host",
        "x-original-url",
        "x-real-ip",
        "x-scheme",
        # … and what login proxies pass on about their user, tokens included
        "x-access-token",
        "x-anonymous-consumer",
        "x-id-token",
        "x-jwt-assertion",
        "x-userinfo",
    }
)
"""Added in front of aimux, and of no use upstream: a CDN that finds its own headers there even refuses the request."""
STAND_IN_PREFIXES = (
    "akamai-",
    "cf-",
    "fastly-",
    "fly-",
    "remote-",
    "ssl-client-",
    "tailscale-",
    "x-akamai-",
    "x-amzn-oidc-",
    "x-appengine-",
    "x-arr-",
    "x-auth-request-",
    "x-authelia-",
    "x-authenticated-",
    "x-authentik-",
    "x-azure-",
    "x-consumer-",
    "x-credential-",
    "x-envoy-",
    "x-forwarded-",
    "x-goog-authenticated-user-",
    "x-goog-iap-",
    "x-ms-client-principal",
    "x-ms-token-",
    "x-pomerium-",
    "x-remote-",
    "x-ssl-client-",
    "x-vercel-",
    "x-vouch-",
    "x-webauth-",
)
NEVER_UPSTREAM = (
    HOP_BY_HOP
    | STAND_INS
    | frozenset(
        {
            # the client's credential
            "authorization",
            "x-api-key",
            "cookie",
            # written anew for the upstream
            "host",
            "content-length",
            "expect",
            # would have some servers do something else than what aimux has looked at
            "x-http-method",
            "x-http-method-override",
            "x-method-override",
            "x-rewrite-url",
        }
    )
)
NEVER_UPSTREAM_PREFIXES = (*STAND_IN_PREFIXES, "proxy-", "x-aimux-")

NEVER_TO_CLIENT = HOP_BY_HOP | frozenset(
    {
        "content-length",  # written anew with the framing
        "set-cookie",
        "set-cookie2",
        # these speak of the upstream's host, which the client doesn't talk to
        "alt-svc",
        "strict-transport-security",
        # and with these browsers would report failures at aimux's address to others, or forget what they keep for it
        "clear-site-data",
        "nel",
        "report-to",
        "reporting-endpoints",
        # aimux's own is on every answer; the upstream's is passed as x-upstream-request-id
        "x-request-id",
    }
)

# The first two are orders to a proxy in front of aimux (nginx serves the file that they name), the last aimux's own.
NEVER_TO_CLIENT_PREFIXES = ("x-accel-", "x-sendfile", "x-aimux-")


class _Passing(dict[tuple[str, ...], Callable[[list[bytes]], Iterable[bytes]]]):
    """The names of a head → what picks the lines that pass. Remembered because most heads have the same names as an
    earlier one: looking at each of 22 costs twice as much."""

    def __init__(self, blocked: frozenset[str], prefixes: tuple[str, ...]) -> None:
        super().__init__()
        self._blocked = blocked
        self._prefixes = prefixes

    def __missing__(self, names: tuple[str, ...]) -> Callable[[list[bytes]], Iterable[bytes]]:
        kept = [at for at, name in enumerate(names) if self._passes(name.lower())]
        pick = itemgetter(*kept) if len(kept) > 1 else lambda lines: [lines[at] for at in kept]
        if sum(map(len, names)) < 4096:
            if len(self) >= 256:
                self.clear()
            self[names] = pick
        return pick

    def _passes(self, name: str) -> bool:
        """Servers that follow CGI (WSGI, Rack, PHP) read an underscore as a hyphen."""
        names = {name, name.replace("_", "-")}
        return self._blocked.isdisjoint(names) and not any(one.startswith(self._prefixes) for one in names)

    def lines(self, head: RequestHead | ResponseHead, ended: Collection[str]) -> list[bytes]:
        """The lines of a head that pass; `ended` are further names that don't."""
        lines = [*self[head.names](head.lines)]
        if ended:
            lines = [line for line in lines if line.partition(b":")[0].decode("ascii").lower() not in ended]
        return lines


@lru_cache(maxsize=64)
def _upstream(dropped: frozenset[str], prefixes: tuple[str, ...], replaced: tuple[str, ...]) -> _Passing:
    return _Passing(NEVER_UPSTREAM | dropped | {*replaced}, NEVER_UPSTREAM_PREFIXES + prefixes)


@lru_cache(maxsize=64)
def _client(blocked: frozenset[str], prefix: str) -> _Passing:
    return _Passing(blocked, (*NEVER_TO_CLIENT_PREFIXES, *([prefix] if prefix else ())))


def from_stand_in(headers: Headers) -> bool:
    """Whether a request came through a proxy, a CDN or the like, as its headers say."""
    names = {name.lower().replace("_", "-") for name in headers}
    return not STAND_INS.isdisjoint(names) or any(name.startswith(STAND_IN_PREFIXES) for name in names)


class Dropped(NamedTuple):
    """Further client headers that the configuration keeps from upstreams: names, and beginnings of names."""

    names: frozenset[str] = frozenset()
    prefixes: tuple[str, ...] = ()

    @classmethod
    def parse(cls, patterns: Iterable[str]) -> Dropped:
        """`x-name` or `x-beginning-*`."""
        lower = [pattern.lower() for pattern in patterns]
        names = frozenset(pattern for pattern in lower if not pattern.endswith("*"))
        return cls(names, tuple(pattern[:-1] for pattern in lower if pattern.endswith("*")))


NONE = Dropped()


def to_upstream(
    head: RequestHead,
    *,
    token: bytes,
    dropped: frozenset[str],
    replaced: Iterable[str],
    prefixes: tuple[str, ...] = (),
) -> list[bytes]:
    """The client's header lines that go upstream, in their order and spelling, without their ends.

    `token` is the client's secret: a header that holds it anywhere does not pass. What the client's `Connection` header
    names ends here. `dropped`, `replaced` and `prefixes` are lower-case names and beginnings of names.
    """
    named = {option.strip() for option in head.connection.split(",")}
    lines = _upstream(dropped, prefixes, tuple(replaced)).lines(head, named)
    return [line for line in lines if line.find(token) < 0] if token else lines


def to_client(head: ResponseHead, blocked: frozenset[str], prefix: str = "", *, secret: str = "") -> list[bytes]:
    """The upstream's header lines that reach the client, without their ends. `blocked` is NEVER_TO_CLIENT and what the
    provider hides; names that begin with `prefix` (lower case; "": none) are hidden as well. `secret` is what the
    upstream was sent: a header that holds it anywhere does not pass."""
    lines = _client(blocked, prefix).lines(head, head.connection)
    if request_id := head.headers.get("x-request-id"):
        lines.append(b"x-upstream-request-id: %b" % request_id.encode("latin-1"))
    key = secret.encode()
    # One search for all of them, and none for a word like `none`, which a server without keys may be sent.
    if len(key) >= SHORTEST and key in b"\n".join(lines):
        return [line for line in lines if key not in line]
    return lines


def under_name(lines: list[bytes], asked: str, name: str) -> list[bytes]:
    """The same lines with the model that aimux asked for under the client's `name` for it.

    If `openai-model` has another name than Codex asked for, Codex takes it for a sign that its user has been flagged,
    and says so.
    """
    if not (name and name.isascii() and name.isprintable()):
        return lines
    value, wanted = asked.encode(), name.encode()
    fields = [(line, line.partition(b":")) for line in lines]
    return [b"%b: %b" % (key, wanted) if rest.strip() == value else line for line, (key, _, rest) in fields]
