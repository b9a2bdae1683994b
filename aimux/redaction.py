"""Texts without secrets: for what logs, errors and answers repeat from elsewhere.

Nothing relies on the shapes: code that writes a text leaves secrets out of it. A plugin or a library may not have done
so, and what aimux itself holds is known by its value.
"""

from __future__ import annotations

import contextlib
import re
from itertools import chain
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

KEEP = 8
"""Characters of a secret that stay, to tell one from another; half of a short one."""
SHORTEST = 8
"""The least length of a secret that is searched for: a shorter one would be found in ordinary words."""

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
_VALUE = re.compile(
    r"""
      [=:]\s*["']?([^"'\r\n]{12,}+)
    | ([^\s"'=:,;{}\[\]]{12,}+ (?:={1,2}(?=[\s"',}\]]|$))?) (?!["']?\s*[:=])
    """,
    re.VERBOSE,
)
"""What stands in a credential file behind a name, or as a word that is none; whichever the file's format."""

_holders: list[Callable[[], Iterable[str]]] = []


@contextlib.contextmanager
def holding(secrets: Callable[[], Iterable[str]]) -> Iterator[None]:
    """For as long as the context lasts, what `secrets` gives is held by this process."""
    _holders.append(secrets)
    try:
        yield
    finally:
        _holders.remove(secrets)


def held() -> Iterator[str]:
    """Every secret that this process holds. With 1,000 accounts searching for all of them costs 0.2 ms."""
    return chain.from_iterable(secrets() for secrets in _holders)


def mask(text: str, secrets: Iterable[str] = ()) -> str:
    """`text` with each of `secrets`, and of those that this process holds, cut to its first characters."""
    for secret in chain(secrets, held()):
        if len(secret) >= SHORTEST and secret in text:
            text = text.replace(secret, f"{secret[: min(KEEP, len(secret) // 2)]}…")
    return text


def redact(text: str) -> str:
    """`text` with all that looks like a credential cut to its first characters."""
    return _SECRET.sub(_cut, text)


def _cut(match: re.Match[str]) -> str:
    lead = match["scheme"] or match["name"] or ""
    return f"{lead}{match[0][len(lead) :][:KEEP]}…"


def mask_error(error: Exception, *secrets: str | bytes) -> None:
    """Mask what a plugin has raised, wherever its text goes from here. `secrets`: what it was given to work with; for a
    credential file (bytes) every value in it.
    """
    given: list[str] = []
    for secret in secrets:
        if isinstance(secret, bytes):
            given += [match[1] or match[2] for match in _VALUE.finditer(secret.decode("utf-8", "replace"))]
        else:
            given.append(secret)
    text = str(error)
    if (masked := redact(mask(text, given))) != text:
        error.args = (masked,)
    for name, value in vars(error).items():
        if isinstance(value, str):
            setattr(error, name, redact(mask(value, given)))


@contextlib.contextmanager
def masking(*secrets: str | bytes) -> Iterator[None]:
    """What a plugin's code raises in here is masked, as by `mask_error`."""
    try:
        yield
    except Exception as error:
        mask_error(error, *secrets)
        raise
