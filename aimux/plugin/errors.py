"""Errors that a provider raises or renders, each named by what went wrong and not by where."""

from __future__ import annotations

import time
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import SecretStr

    from aimux.plugin.types import LimitState, RequestHead


class CredentialError(ValueError):
    """A credential can't be used as it is. The message says why and what to do, and holds no secret."""


class RefreshError(Exception):
    """A renewal did not give a new credential. The old one always stays where it is."""

    def __init__(self, reason: str, *, remedy: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.remedy = remedy


class RefreshRejected(RefreshError):
    """The authorization server refused for good (revoked, reused): the account is parked until a new login."""


class RefreshUnavailable(RefreshError):
    """The renewal failed for now (network, 5xx, 404 of a moved endpoint): the next check tries again.

    `retry_after`: seconds that the authorization server asked to wait. `refresh_token`: one that it gave although the
    renewal failed, so that the one before is dead; it is saved in its place.
    """

    def __init__(
        self,
        reason: str,
        *,
        remedy: str = "",
        retry_after: float | None = None,
        refresh_token: SecretStr | None = None,
    ) -> None:
        super().__init__(reason, remedy=remedy)
        self.retry_after = retry_after
        self.refresh_token = refresh_token


class LoginError(Exception):
    """A login did not end in a credential (denied, expired, wrong state). The message is for a person."""


class ErrorKind(Enum):
    """The kinds of errors that aimux itself answers, with their HTTP status. A provider renders them."""

    BAD_REQUEST = 400
    UNAUTHORIZED = 401
    FORBIDDEN = 403
    NOT_FOUND = 404
    METHOD_NOT_ALLOWED = 405
    TOO_LARGE = 413
    UPGRADE_REQUIRED = 426
    RATE_LIMITED = 429
    INTERNAL = 500
    BAD_GATEWAY = 502
    UNAVAILABLE = 503
    TIMEOUT = 504


class GatewayError(Exception):
    """An answer of aimux's own to a client.

    `message` is one sentence for a person: what is wrong and what to do. `retry` is False if trying again is pointless
    (the client is told so with `x-should-retry: false`); `retry_after` is in seconds. `request_id` is the gateway's
    own, filled in when the error is rendered, for formats that repeat it in the body.
    """

    request_id: str | None = None

    def __init__(
        self,
        kind: ErrorKind,
        message: str,
        *,
        retry: bool | None = None,
        retry_after: float | None = None,
        status: int | None = None,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.status = kind.value if status is None else status
        self.message = message
        self.retry = retry
        self.retry_after = retry_after


class RequestRefused(GatewayError):
    """`Provider.prepare` raises this if an account can't serve the request at all: the caller's own fault."""

    def __init__(self, message: str, *, kind: ErrorKind = ErrorKind.BAD_REQUEST) -> None:
        super().__init__(kind, message, retry=False)


class PromptTooLong(GatewayError):
    """400: the conversation is longer than its sender's limits allow. Clients that recognize the format's form of this
    error shorten the conversation. `request` is the refused one."""

    def __init__(self, message: str, request: RequestHead) -> None:
        super().__init__(ErrorKind.BAD_REQUEST, message, retry=False)
        self.request = request


class RateLimited(GatewayError):
    """429: a limit of the caller's own that is free again in seconds, as its message says. `request` is the refused
    one."""

    def __init__(self, message: str, request: RequestHead, *, retry_after: float) -> None:
        super().__init__(ErrorKind.RATE_LIMITED, message, retry_after=retry_after)
        self.request = request


class LimitReached(GatewayError):
    """429: nothing more until `until` (unix seconds). `limit` is the caller's own limit that is used up; None: the
    limits of all accounts that could serve are used up."""

    def __init__(self, message: str, *, until: float, limit: LimitState | None = None) -> None:
        self.until = until
        self.limit = limit
        super().__init__(ErrorKind.RATE_LIMITED, message, retry=False, retry_after=max(1.0, until - time.time()))
