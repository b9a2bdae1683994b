"""What is known of one request when it is over: the access log, the metrics and the ledger read it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aimux.plugin.types import Usage

TOLD = 512
"""Characters of a path that are told and kept: a client's may have 32,000, and thousands of records stay in memory."""


@dataclass(slots=True)
class RequestRecord:
    """One request, made when its head is in, filled on its way. No field holds a secret; "" and None mean unknown."""

    request_id: str
    time: float
    """Unix seconds at which the head was in."""
    method: str
    path: str
    """As the client sent it, mount included, percent-encoding kept, without the query; its first TOLD characters."""
    user: str = ""
    provider: str = ""
    """The provider's instance name; "" where no mount matched."""
    account: str = ""
    """The account that served the last attempt."""
    status: int = 0
    """What the client got; 0 if it left before the answer's head."""
    bytes_in: int = 0
    """The request's body."""
    bytes_out: int = 0
    """The answer's body, framing included."""
    ttfb: float | None = None
    """Seconds from `time` to the first byte handed to the client."""
    duration: float = 0.0
    """Seconds from `time` to the end."""
    model: str = ""
    """As the client asked for it; `usage.model` is what the upstream says it was."""
    usage: Usage | None = None
    attempts: int = 0
    """Requests sent upstream; 0 where aimux answered by itself."""
    error: str = ""
    """What ended it early, in one word of a small set (`client_gone`, `upstream_lost`, `timeout`, …)."""
