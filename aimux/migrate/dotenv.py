"""Environments in files: what `env`, docker's --env-file and .env files write, one NAME=VALUE a line."""

from __future__ import annotations

import re
import shlex

_LINE = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_-]*)\s*=\s*(.*)")


def read_environment(text: str) -> dict[str, str]:
    """The variables, `{}` if the text is something else. Names like `token-secret` become TOKEN_SECRET."""
    found: dict[str, str] = {}
    for raw in text.splitlines():
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            return {}
        found[match[1].replace("-", "_").upper()] = _unquoted(match[2])
    return found


def _unquoted(value: str) -> str:
    if value[:1] in {'"', "'"}:
        try:
            return " ".join(shlex.split(value, comments=True))
        except ValueError:
            return value
    return value.partition(" #")[0].strip()
