"""Where the values of a configuration come from: a line of the file, a variable, or nowhere."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from aimux.config.problems import Where


@dataclass(frozen=True, slots=True)
class Origin:
    """`file`: the configuration file, if there is one; `lines` of it by path; `variables` by the path that they set.

    Two configurations with the same values are the same, wherever they come from.
    """

    file: Path | None = field(default=None, compare=False)
    lines: Mapping[Where, int] = field(default_factory=dict, compare=False)
    variables: Mapping[Where, str] = field(default_factory=dict, compare=False)

    def of(self, path: Where) -> str:
        """`AIMUX_LISTEN`, `line 12`, or "" for a default. What is set for a section holds for what is in it."""
        for end in range(len(path), 0, -1):
            part = path[:end]
            if part in self.variables:
                return self.variables[part]
            if part in self.lines:
                return f"line {self.lines[part]}"
        return ""


NOWHERE = Origin()
