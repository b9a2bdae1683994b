"""What may be used, in one small language for users, groups and tokens: `provider:NAME`, `model:PATTERN`, `group:NAME`.

A pattern may have a `*` only at its ends: members write patterns too, and none may keep the event loop busy.
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, ValidationInfo

from aimux.config.problems import wrong
from aimux.config.sections import loading

if TYPE_CHECKING:
    from collections.abc import Collection

KINDS = ("provider", "model", "group")

_NAME = "[A-Za-z0-9][A-Za-z0-9._@+-]{0,99}"
_MODEL = r"\*?[!-)+-~]{1,200}\*?"
SCOPE_PATTERN = f"(provider|group):{_NAME}|model:{_MODEL}|(?!(provider|group|model):){_MODEL}"
"""A scope in any form, for JSON Schemas."""


class ScopeError(ValueError):
    """A scope can't be read. The message says why, and `remedy` what to write."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


def parse_scope(text: str, providers: Collection[str] = ()) -> str:
    """A scope in its full form. A provider's name alone means that provider, anything else without a kind a model.

    Raises ScopeError. Without `providers` any name will do for one.
    """
    kind, colon, value = text.partition(":")
    if colon and kind not in KINDS and (meant := get_close_matches(kind, KINDS, 1, 0.75)):
        raise ScopeError(
            f"{kind!r} is no kind of scope", f"write {meant[0]}:{value}; a model of that name is model:{text}"
        )
    if not colon or kind not in KINDS:
        kind, value = ("provider" if text in providers else "model"), text
    if kind == "model":
        if not re.fullmatch(_MODEL, value):
            raise ScopeError(f"{value!r} is not a model pattern", "write a model's name, prefix*, *suffix or *part*")
    elif not re.fullmatch(_NAME, value):
        raise ScopeError(f"{value!r} can't be the name of a {kind}", "write provider:NAME, model:PATTERN or group:NAME")
    elif kind == "provider" and providers and value not in providers:
        raise ScopeError(f"there is no provider {value!r}", f"one of {', '.join(sorted(providers))}")
    return f"{kind}:{value}"


def _scope(text: str, info: ValidationInfo) -> str:
    context = loading(info)
    try:
        return parse_scope(text, context.providers if context.instances is None else context.instances)
    except ScopeError as error:
        raise wrong(str(error), error.remedy) from None


Scope = Annotated[str, AfterValidator(_scope)]
"""In its full form, whichever it was written in."""
