"""What lists of scopes allow. How a scope is written: aimux.config.scopes.

One fitting scope of each kind in a list is enough; a kind that is not named is not restricted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from aimux.config.scopes import KINDS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

REMEMBERED = 256


class Scope(NamedTuple):
    """One list, parsed. None: everything of this kind."""

    providers: frozenset[str] | None
    models: tuple[str, ...] | None
    groups: frozenset[str] | None

    @classmethod
    def of(cls, scopes: Iterable[str]) -> Scope:
        """`scopes` in their full form."""
        named: dict[str, list[str]] = {}
        for scope in scopes:
            kind, _, value = scope.partition(":")
            named.setdefault(kind, []).append(value)
        providers, models, groups = map(named.get, KINDS)
        return cls(
            None if providers is None else frozenset(providers),
            None if models is None else tuple(models),
            None if groups is None else frozenset(groups),
        )

    def allows(self, provider: str, model: str | None) -> bool:
        """`model` "": the request names none, which callers limited to certain models may not do; None: any at all."""
        if self.providers is not None and provider not in self.providers:
            return False
        if self.models is None or model is None:
            return True
        # LiteLLM takes several models, with commas between them.
        return all(any(_fits(pattern, one.strip()) for pattern in self.models) for one in model.split(","))


def _fits(pattern: str, model: str) -> bool:
    if pattern.startswith("*"):
        inner = pattern.strip("*")
        return inner in model if pattern.endswith("*") else model.endswith(inner)
    return model.startswith(pattern[:-1]) if pattern.endswith("*") else model == pattern


class Allowance:
    """What somebody may use: whatever all of `own` allow, and any of `groups` if there are some."""

    def __init__(self, own: Sequence[Scope], groups: Sequence[Scope]) -> None:
        self._own = own
        self._groups = groups
        self._known: dict[tuple[str, str | None], bool] = {}

    def allows(self, provider: str, model: str | None) -> bool:
        """Like `Scope.allows`, but remembered, so that it costs a look-up (0.1 µs)."""
        known = self._known.get((provider, model))
        if known is None:
            known = all(scope.allows(provider, model) for scope in self._own) and (
                not self._groups or any(scope.allows(provider, model) for scope in self._groups)
            )
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            self._known[provider, model] = known
        return known

    def accounts(self, groups: Collection[str]) -> frozenset[str] | None:
        """The account groups for a member of `groups`. None: accounts that are reserved for nobody."""
        left = frozenset(groups) if groups else None
        shared = [scope.groups for scope in self._groups if scope.groups is not None]
        for named in [*(scope.groups for scope in self._own), frozenset().union(*shared) if shared else None]:
            if named is not None:
                left = named if left is None else left & named
        return left


def allowance(own: Iterable[Iterable[str]], groups: Iterable[Iterable[str]]) -> Allowance | None:
    """Made from the lists of a user and a token, and of the user's groups; None if nothing is restricted.

    A group without a list is ignored, so being in it does not lift another group's limits.
    """
    read_own = [Scope.of(scopes) for scopes in own if scopes]
    read_groups = [Scope.of(scopes) for scopes in groups if scopes]
    return Allowance(read_own, read_groups) if read_own or read_groups else None
