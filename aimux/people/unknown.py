"""Users and groups that have limits and do not exist: otherwise a typing error in a configuration goes unnoticed."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

from aimux.config.problems import Problem, dotted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aimux.config import Config
    from aimux.people.directory import Directory


def unknown_people(config: Config, directory: Directory) -> Iterator[Problem]:
    """Each that is in neither the configuration nor the database. If tokens are signed elsewhere, anybody may come."""
    if config.auth.jwt is not None:
        return
    limited, known = config.limits, directory.known_groups()
    for kind, named, there in (("user", limited.users, directory.users), ("group", limited.groups, known)):
        for name in named:
            if name not in there:
                near = get_close_matches(name, sorted(there), n=1)
                remedy = f"did you mean {near[0]}?" if near else f"take it out, or: aimux {kind}s add {name}"
                yield Problem(
                    dotted(("limits", f"{kind}s", name)),
                    None,
                    f"there is no {kind} {name!r}: this limits nobody",
                    remedy,
                )
