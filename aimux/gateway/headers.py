"""Which headers cross aimux, in each direction. docs/security.md holds the table; a test keeps both the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aimux.relay.head import HOP_BY_HOP

if TYPE_CHECKING:
    from collections.abc import Container, Iterable

    from aimux.relay.head import Field, ResponseHead

NEVER_UPSTREAM = HOP_BY_HOP | frozenset(
    {
        # the client's credential, and what a proxy in front may have added about the client
        "authorization",
        "x-api-key",
        "cookie",
        "forwarded",
        "via",
        "x-real-ip",
        "true-client-ip",
        "cf-connecting-ip",
        "cf-ipcountry",
        "cdn-loop",
        # written anew for the upstream
        "host",
        "content-length",
        "expect",
    }
)
NEVER_UPSTREAM_PREFIXES = ("x-forwarded-", "proxy-", "x-aimux-")

NEVER_TO_CLIENT = HOP_BY_HOP | frozenset(
    {
        "content-length",  # written anew with the framing
        "set-cookie",
        "set-cookie2",
        # these speak of the upstream's host, which the client doesn't talk to
        "alt-svc",
        "strict-transport-security",
        # aimux's own is on every answer; the upstream's is passed as x-upstream-request-id
        "x-request-id",
    }
)


class _Passes(dict[str, bool]):
    """Whether a header goes upstream, by its name in lower case: a look-up costs 0.04 µs, deciding anew 0.6."""

    def __missing__(self, name: str) -> bool:
        passes = name not in NEVER_UPSTREAM and not name.startswith(NEVER_UPSTREAM_PREFIXES)
        if len(self) < 2048:
            self[name] = passes
        return passes


_passes = _Passes()


def to_upstream(
    fields: Iterable[Field], *, token: bytes, connection: str, dropped: Container[str], replaced: Container[str]
) -> list[bytes]:
    """The client's header lines that go upstream, in their order and spelling.

    `token` is the client's secret: a header that holds it anywhere does not pass. `connection` is the client's
    `Connection` header: what it names ends here. `dropped` and `replaced` are lower-case names.
    """
    passes = _passes
    if connection and connection not in {"keep-alive", "close"}:
        named = {option.strip() for option in connection.split(",")}
        fields = [field for field in fields if field[0] not in named]
    secret = token or b"\0"  # the latter is in no header
    return [
        line
        for name, _, line in fields
        if passes[name] and name not in dropped and name not in replaced and secret not in line
    ]


def to_client(head: ResponseHead, blocked: frozenset[str]) -> list[bytes]:
    """The upstream's header lines that reach the client. `blocked` is NEVER_TO_CLIENT and what the provider hides."""
    if head.connection:
        blocked |= head.connection
    lines = [line for name, _, line in head.fields if name not in blocked]
    if request_id := head.headers.get("x-request-id"):
        lines.append(b"x-upstream-request-id: %b\r\n" % request_id.encode("latin-1"))
    return lines
