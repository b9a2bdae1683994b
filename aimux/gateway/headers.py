"""Which headers cross aimux, in each direction. docs/security.md holds the table; a test keeps both the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aimux.relay.head import HOP_BY_HOP

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

NEVER_UPSTREAM = HOP_BY_HOP | frozenset(
    {
        # the client's credential, and what a proxy in front may have added about the client
        b"authorization",
        b"x-api-key",
        b"cookie",
        b"forwarded",
        b"via",
        b"x-real-ip",
        b"true-client-ip",
        b"cf-connecting-ip",
        b"cf-ipcountry",
        b"cdn-loop",
        # written anew for the upstream
        b"host",
        b"content-length",
        b"expect",
    }
)
NEVER_UPSTREAM_PREFIXES = (b"x-forwarded-", b"proxy-", b"x-aimux-")

NEVER_TO_CLIENT = HOP_BY_HOP | frozenset(
    {
        b"content-length",  # written anew with the framing
        b"set-cookie",
        b"set-cookie2",
        # these speak of the upstream's host, which the client doesn't talk to
        b"alt-svc",
        b"strict-transport-security",
    }
)


def to_upstream(
    raw_headers: Iterable[tuple[bytes, bytes]],
    *,
    token: bytes,
    dropped: frozenset[str],
    replaced: Mapping[str, str],
) -> list[tuple[bytes, bytes]]:
    """The client's headers that go upstream, in their order and spelling.

    `token` is the client's secret: a header that holds it anywhere does not pass. `dropped` and the keys of `replaced`
    are lower case.
    """
    kept = []
    named: frozenset[bytes] | None = None
    for field in raw_headers:
        name, value = field
        lower = name.lower()
        if lower in NEVER_UPSTREAM:
            if lower == b"connection" and value.lower() not in {b"keep-alive", b"close"}:
                options = frozenset(option.strip().lower() for option in value.split(b","))
                named = options if named is None else named | options
            continue
        if lower.startswith(NEVER_UPSTREAM_PREFIXES) or (token and token in value):
            continue
        text = lower.decode("latin-1")
        if text not in dropped and text not in replaced:
            kept.append(field)
    if named:
        kept = [field for field in kept if field[0].lower() not in named]
    return kept


def to_client(
    fields: Iterable[tuple[bytes, bytes]], *, named: frozenset[bytes], hidden: frozenset[bytes]
) -> list[bytes]:
    """The upstream's header lines that reach the client. `named`: by its `Connection` header; `hidden`: the provider's.

    Its `x-request-id` becomes `x-upstream-request-id`, because `x-request-id` is aimux's own on every answer.
    """
    lines = []
    for name, value in fields:
        lower = name.lower()
        if lower in NEVER_TO_CLIENT or lower in hidden or lower in named:
            continue
        if lower == b"x-request-id":
            name = b"x-upstream-request-id"
        lines.append(b"%b: %b\r\n" % (name, value))
    return lines
