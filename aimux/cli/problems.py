"""A configuration's problems on stderr: laid out on a terminal, one `file:line: …` each in a pipe."""

from __future__ import annotations

import sys
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aimux.config import Problem

Severity = Literal["error", "warning"]


def foreign_hint(problems: Sequence[Problem]) -> str:
    """What to do if the file is another gateway's configuration; "" if it isn't."""
    from aimux.migrate.sources import gateway_of

    for source in dict.fromkeys(problem.source for problem in problems):
        path = Path(source)
        if source and path.is_file() and (gateway := gateway_of(path)):
            return f"{source} is a configuration of {gateway}: aimux migrate {source} --output aimux.yaml takes it over"
    return ""


def show_problems(problems: Sequence[Problem], severity: Severity = "error") -> None:
    """Print them all."""
    if sys.stderr.isatty():
        _show_on_terminal(problems, severity)
        return
    for problem in problems:
        print(f"{'Warning: ' if severity == 'warning' else ''}{problem}", file=sys.stderr)


def _show_on_terminal(problems: Sequence[Problem], severity: Severity) -> None:
    # rich takes 60 ms to import, which a pipe does not have to wait for.
    from rich.console import Console
    from rich.padding import Padding
    from rich.text import Text

    console = Console(stderr=True, highlight=False)
    mark, style = ("✗", "bold red") if severity == "error" else ("!", "bold yellow")
    for source, group in groupby(problems, key=lambda problem: problem.source):
        found = list(group)
        count = f"{len(found)} {severity}{'s' if len(found) > 1 else ''}"
        # A path that is wrapped can't be clicked or copied.
        console.print(
            Text.assemble((f"{mark} ", style), (source or "configuration", "bold"), f": {count}"), soft_wrap=True
        )
        for problem in found:
            line = f"line {problem.line}  " if problem.line else ""
            console.print(Padding(Text.assemble((line, "dim"), (problem.where, "cyan")), (0, 0, 0, 2)))
            console.print(Padding(Text(problem.message), (0, 0, 0, 4)))
            if problem.remedy:
                console.print(Padding(Text(f"→ {problem.remedy}", "green"), (0, 0, 0, 4)))
        console.print()
