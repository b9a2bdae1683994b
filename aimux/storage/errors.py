"""What can go wrong with a database. No error holds a secret: no password of the URL, no parameter of a statement."""

from __future__ import annotations


class StorageError(Exception):
    """The database can't be used, or not for this. What was committed before is untouched.

    `reason` says what is wrong and where, `remedy` what to do ("" where nothing is known).
    """

    def __init__(self, reason: str, *, remedy: str = "") -> None:
        super().__init__(f"{reason}: {remedy}" if remedy else reason)
        self.reason = reason
        self.remedy = remedy


class Unusable(StorageError):
    """The database takes nothing at present, whatever it is: full, locked, read-only, damaged or out of reach."""


class Conflict(StorageError):
    """A row breaks a constraint: what may be there once is there already, or what it refers to is not. The whole
    transaction was rolled back."""
