"""What a check of `aimux doctor` returns. No check raises for what it looks at."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

Status = Literal["ok", "warning", "error"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was checked. An `error` keeps aimux from working, a `warning` may do so one day."""

    status: Status
    subject: str
    message: str
    remedy: str = ""

    def as_dict(self) -> dict[str, str]:
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.status}: {self.subject}: {self.message}" + (f" → {self.remedy}" if self.remedy else "")
