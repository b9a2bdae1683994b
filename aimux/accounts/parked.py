"""Why an account is out of service. A module of its own because it is part of the saved state, and what pydantic
validates is not compiled (CONTRIBUTING.md)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Parked:
    """Why a person has to act. It ends when a credential with another fingerprint appears.

    `fingerprint` is of the credential that failed, None where there was none to read. `dead`: its refresh token was
    refused, so that renewing it is pointless; any other parked account is renewed like the rest.
    """

    reason: str
    remedy: str = ""
    fingerprint: str | None = None
    dead: bool = False


@dataclass(frozen=True, slots=True)
class Cooldown:
    """Not to be used from `since` until `until` (unix seconds)."""

    until: float
    since: float
    reason: str
