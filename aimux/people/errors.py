"""Why people can't be changed in the way that was asked for."""

from __future__ import annotations


class PeopleError(Exception):
    """`reason` is a sentence for a person without its full stop, `remedy` what to do ("" if nothing is known)."""

    def __init__(self, reason: str, *, remedy: str = "") -> None:
        super().__init__(f"{reason}: {remedy}" if remedy else reason)
        self.reason = reason
        self.remedy = remedy


class Unknown(PeopleError):
    """There is no such user, group or token."""


def no_user(name: str) -> Unknown:
    return Unknown(f"there is no user {name!r}", remedy="aimux users shows who is there")


def no_group(name: str) -> Unknown:
    return Unknown(f"there is no group {name!r}", remedy="aimux groups shows which there are")


class Taken(PeopleError):
    """It exists already, or something else is in the way."""


class Fixed(PeopleError):
    """It is in the configuration, and can only be changed there."""


class Invalid(PeopleError):
    """A value doesn't fit."""
