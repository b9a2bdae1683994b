"""The last resort against a secret in a log line. Nothing relies on it: what logs must not log secrets."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

KEEP = 8
"""Characters of a secret that stay, to tell one from another."""

_SECRET = re.compile(
    r"""
      (?P<scheme>\b(?i:bearer|basic)\s+)[^\s"',;]{16,}
    | (?P<name>(?:(?i:token|api[_-]?key|secret|verifier|password|authorization|cookie)["']?\s*[:=]\s*|[?&]code=)["']?)
      (?!(?i:bearer|basic)\s)[^\s"'&,;]{9,}
    | \b(?:sk|rk|rt|pk)[-_.][\w.-]{8,}                                   # vendors' keys and refresh tokens
    | \beyJ[\w-]{8,}(?:\.[\w-]*)*                                        # JWTs
    | (?<![\w/-])(?=[\w-]*[a-z])(?=[\w-]*[A-Z])(?=[\w-]*\d)[\w-]{40,}    # long, and of all kinds of characters
    """,
    re.VERBOSE,
)


def _cut(match: re.Match[str]) -> str:
    lead = match["scheme"] or match["name"] or ""
    return f"{lead}{match[0][len(lead) :][:KEEP]}…"


SHORTEST = 12
"""Characters of a secret that is looked for: a shorter one would be found in words that are none."""


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """`text` with each of `secrets`, and all that looks like a credential, cut to its first characters."""
    for secret in secrets:
        if len(secret) >= SHORTEST and secret in text:
            text = text.replace(secret, f"{secret[:KEEP]}…")
    return _SECRET.sub(_cut, text)
