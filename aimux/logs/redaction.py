"""The last resort against a secret in a log line. Nothing relies on it: what logs must not log secrets."""

from __future__ import annotations

import re

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


def redact(text: str) -> str:
    """`text` with all that looks like a credential cut to its first characters."""
    return _SECRET.sub(_cut, text)
