"""One thing that happened."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Notice:
    """`event` is a word that programs can rely on, `about` who or what it is about, `message` a sentence for a person.

    `time` is in unix seconds. Two with the same `event`, `about` and `once` are one: the second is not sent.
    """

    event: str
    about: str
    message: str
    time: float
    details: Mapping[str, Any] = field(default_factory=dict)
    once: object = None

    @property
    def key(self) -> str:
        """The same at every node."""
        return hashlib.sha256(repr((self.event, self.about, self.once)).encode()).hexdigest()[:32]
