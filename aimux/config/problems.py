"""What is wrong with a configuration: where, in which line, why, and what to do. Never with a secret in it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic_core import PydanticCustomError

if TYPE_CHECKING:
    from collections.abc import Iterable

Where = tuple[str | int, ...]
"""A place in the configuration: `("users", 0, "token")`."""

MASK = "********"

_PLAIN_KEY = re.compile(r"[\w-]+")


def dotted(path: Where) -> str:
    """`users[0].token`, `mounts["/"]`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif _PLAIN_KEY.fullmatch(part):
            text += f".{part}" if text else part
        else:
            text += f'["{part}"]'
    return text


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to mend. `source` is the file or the environment variable it stands in, `line` counts from 1."""

    where: str
    line: int | None
    message: str
    remedy: str = ""
    source: str = ""

    def __str__(self) -> str:
        place = self.source + (f":{self.line}" if self.line else "")
        text = ": ".join(part for part in (place, self.where, self.message) if part)
        return f"{text} ({self.remedy})" if self.remedy else text


class ConfigError(Exception):
    """The configuration can't be used. `problems` holds every reason, in the order of the file."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


def wrong(message: str, remedy: str = "", *, at: str = "") -> PydanticCustomError:
    """An error for a validator to raise. `at` names the field of a section that the error is about."""
    # The message goes in by a placeholder, because braces in a template have a meaning.
    return PydanticCustomError("aimux", "{message}", {"message": message, "remedy": remedy, "at": at})
