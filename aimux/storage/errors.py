"""What can go wrong with a database. No error holds a secret: no password of the URL, no parameter of a statement."""

from __future__ import annotations


class StorageError(Exception):
    """The database can't be used, or not for this. Earlier commits are untouched.

    `reason` says what is wrong and where, `remedy` what to do ("" if nothing is known).
    """

    def __init__(self, reason: str, *, remedy: str = "") -> None:
        super().__init__(f"{reason}: {remedy}" if remedy else reason)
        self.reason = reason
        self.remedy = remedy


class Unusable(StorageError):
    """The database accepts nothing now, for whatever reason: full, locked, read-only, damaged or out of reach."""


class Conflict(StorageError):
    """A row violates a constraint: it exists already, or what it refers to does not. The whole transaction was rolled
    back."""
