"""Where requests can go."""

from __future__ import annotations

from dataclasses import dataclass, field

from aimux.accounts import AccountPool  # noqa: TC001 - compiled, a dataclass's annotations are looked up
from aimux.gateway.headers import NEVER_TO_CLIENT, NONE, Dropped
from aimux.plugin.provider import Provider


@dataclass(slots=True)
class Route:
    """A provider with its accounts, ready to serve."""

    provider: Provider
    accounts: AccountPool
    required: bool = True
    """The configuration names it: without an account that can serve it, aimux isn't ready."""
    dropped: Dropped = NONE
    """Headers of clients that don't go upstream, beside those that never do."""
    blocked: frozenset[str] = field(init=False)
    """Header names of an answer that don't reach the client."""
    watches_openings: bool = field(init=False)
    explains: bool = field(init=False)
    """Some of its upstream's errors are rewritten into another form."""
    extra_headers: dict[str, str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.blocked = NEVER_TO_CLIENT | self.provider.hidden_headers
        self.watches_openings = type(self.provider).opening is not Provider.opening
        self.explains = type(self.provider).explained is not Provider.explained
        self.extra_headers = {
            name.lower(): value.get_secret_value() for name, value in self.provider.settings.headers.items()
        }

    def __hash__(self) -> int:
        return id(self)
