"""Answers that are also tables, which can be had as CSV."""

from __future__ import annotations

import csv
import io
from datetime import datetime
from typing import Any

from aimux.control.api.body import Body

CSV = "text/csv"
_FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What a formula begins with; the last four are the same in full width, which Asian versions of Excel take."""


class Tabular(Body):
    """An answer that is also a table: as CSV for callers who accept `text/csv`."""

    def rows(self) -> tuple[list[str], list[list[Any]]]:
        """The columns' names, and the rows."""
        raise NotImplementedError

    def csv(self) -> str:
        """RFC 4180."""
        names, rows = self.rows()
        out = io.StringIO()
        writer = csv.writer(out)
        writer.writerow(names)
        writer.writerows([[_cell(value) for value in row] for row in rows])
        return out.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")  # as the JSON has it
    # A spreadsheet would execute what begins so, behind spaces too, and clients choose the names of conversations and
    # models.
    return f"'{value}" if isinstance(value, str) and value.lstrip().startswith(_FORMULA) else value
