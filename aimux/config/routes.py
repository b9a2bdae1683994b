"""Which provider a path and a model lead to: the keys and targets of `mounts` and `models`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, model_validator

from aimux.config.problems import wrong
from aimux.config.providers import known_instance
from aimux.config.sections import Section, loading
from aimux.plugin.parts import OWN_PATHS, is_own_path

_PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+)+")


class ModelTarget(Section):
    """Where a model's requests go. Exactly one of `provider` and `account`."""

    provider: str | None = Field(default=None, description="A provider: any of its accounts.")
    account: str | None = Field(default=None, description="One account of a provider, as `provider/account`.")
    model: str | None = Field(
        default=None, description="The model to ask for instead; without it the client's own stays.", min_length=1
    )
    priority: int = Field(default=0, description="Lower is tried first.")

    @model_validator(mode="after")
    def _one_place(self, info: ValidationInfo) -> Self:
        if (self.provider is None) == (self.account is None):
            raise wrong("needs a provider or an account", "give exactly one of provider and account")
        if self.account is not None and not all(self.account.partition("/")):
            raise wrong(f"{self.account!r} names no account", "write it like claude/default", at="account")
        known_instance(self.instance, info, at="account" if self.account else "provider")
        return self

    @property
    def instance(self) -> str:
        """The provider's name in the configuration."""
        return self.provider or (self.account or "").partition("/")[0]

    @property
    def account_name(self) -> str | None:
        """The account's name within its provider, if the target is one account."""
        return self.account.partition("/")[2] if self.account else None


def _one_or_more(value: Any) -> Any:
    return [value] if isinstance(value, Mapping) else value


def _by_priority(targets: tuple[ModelTarget, ...]) -> tuple[ModelTarget, ...]:
    if not targets:
        raise wrong("has no target", "name a provider or an account")
    return tuple(sorted(targets, key=lambda target: target.priority))


def pattern_kind(pattern: str) -> Literal["default", "regex", "prefix", "exact"]:
    """How a key of `models` matches: `default`, `/regular expression/`, `prefix*`, or the exact name."""
    if pattern == "default":
        return "default"
    if len(pattern) > 2 and pattern.startswith("/") and pattern.endswith("/"):
        return "regex"
    return "prefix" if pattern.endswith("*") else "exact"


def _model_pattern(pattern: str) -> str:
    if pattern_kind(pattern) == "regex":
        try:
            re.compile(pattern[1:-1])
        except re.error as error:
            raise wrong(f"is not a regular expression: {error}", "write it as Python's `re` does") from None
    elif not pattern:
        raise wrong("is the name of no model", "write a name, prefix*, or /a regular expression/")
    elif "*" in pattern[:-1]:
        raise wrong("has a `*` before its end", "write a regular expression between slashes: /…/")
    return pattern


def mount_prefix(written: str, info: ValidationInfo) -> str:
    """A mount's prefix without a trailing slash (`/` stays)."""
    prefix = written.rstrip("/") or "/"
    if not written.startswith("/"):
        raise wrong("does not begin with a slash", f"write /{written.strip('/')}")
    if prefix != "/" and not _PREFIX.fullmatch(prefix):
        raise wrong("is not a usable path prefix", "use letters, digits and . _ ~ - between single slashes")
    if {".", ".."} & set(prefix.split("/")):
        raise wrong("holds a `.` or `..` segment", "write the path that is meant")
    if prefix == "/api" or is_own_path(prefix):
        raise wrong("belongs to aimux itself", f"choose another prefix than {', '.join(OWN_PATHS)}")
    if loading(info).taken.setdefault(("mount", prefix), written) != written:
        raise wrong(f"is the same mount as {loading(info).taken['mount', prefix]}", "keep one of them")
    return prefix


Targets = Annotated[
    tuple[ModelTarget, ...],
    BeforeValidator(_one_or_more, json_schema_input_type=ModelTarget | list[ModelTarget]),
    AfterValidator(_by_priority),
]
Pattern = Annotated[str, AfterValidator(_model_pattern)]
Prefix = Annotated[str, AfterValidator(mount_prefix)]
Instance = Annotated[str, AfterValidator(known_instance)]
