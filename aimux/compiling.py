"""What compiled modules tell mypyc of a class (CONTRIBUTING.md). Interpreted itself: mypyc takes what exists for type
checkers alone for real."""

from __future__ import annotations

from typing import TYPE_CHECKING

__all__ = ["mypyc_attr"]

if TYPE_CHECKING:
    from mypy_extensions import mypyc_attr
else:

    def mypyc_attr(**_):
        """At run time nothing, and mypy_extensions need not be there."""
        return lambda one: one
