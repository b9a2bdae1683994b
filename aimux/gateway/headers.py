"""Which headers cross aimux, in each direction. docs/security.md holds the table; a test keeps both the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aimux.relay.head import HOP_BY_HOP

if TYPE_CHECKING:
    from collections.abc import Container, Iterable

    from aimux.relay.head import ResponseHead

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

REMEMBERED = 2048


class _UpstreamNames(dict[bytes, str]):
    """A client's spelling of a header name → the name in lower case, "" if it never goes upstream.

    Clients send the same few names again and again: a look-up costs 0.04 µs, deciding anew 0.6.
    """

    def __missing__(self, name: bytes) -> str:
        text = name.decode("latin-1").lower()
        if text in NEVER_UPSTREAM or text.startswith(NEVER_UPSTREAM_PREFIXES):
            text = ""
        if len(self) < REMEMBERED:
            self[name] = text
        return text


class _LowerNames(dict[str, str]):
    def __missing__(self, name: str) -> str:
        text = name.lower()
        if len(self) < REMEMBERED:
            self[name] = text
        return text


_upstream_names = _UpstreamNames()
_lower_names = _LowerNames()


def to_upstream(
    raw_headers: Iterable[tuple[bytes, bytes]],
    *,
    token: bytes,
    connection: str,
    dropped: Container[str],
    replaced: Container[str],
) -> list[bytes]:
    """The client's header lines that go upstream, in their order and spelling.

    `token` is the client's secret: a header that holds it anywhere does not pass. `connection` is the client's
    `Connection` header: what it names ends here. `dropped` and `replaced` are lower-case names.
    """
    names = _upstream_names
    if connection and connection.lower() not in {"keep-alive", "close"}:
        named = {option.strip() for option in connection.lower().split(",")}
        raw_headers = [field for field in raw_headers if names[field[0]] not in named]
    secret = token or b"\0"  # the latter is in no header
    return [
        b"%b: %b\r\n" % field
        for field in raw_headers
        if (name := names[field[0]]) and name not in dropped and name not in replaced and secret not in field[1]
    ]


def to_client(head: ResponseHead, blocked: frozenset[str]) -> list[str]:
    """The upstream's header lines that reach the client. `blocked` is NEVER_TO_CLIENT and what the provider hides."""
    if head.connection:
        blocked |= head.connection
    names = _lower_names
    lines = [f"{field[0]}: {field[1]}\r\n" for field in head.fields if names[field[0]] not in blocked]
    if request_id := head.headers.get("x-request-id"):
        lines.append(f"x-upstream-request-id: {request_id}\r\n")
    return lines
