"""The HTTP client that a provider gets for control traffic: renewal, login, account tests. Not for relayed requests."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from aimux.plugin.reading import is_dense

if TYPE_CHECKING:
    from collections.abc import Mapping


class HttpUnavailable(Exception):
    """No answer: DNS, connect, TLS, time-out or a broken connection. The message names the host and holds no secret."""


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """An answer with its whole body (bounded to 1 MiB)."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    def json(self) -> dict[str, Any]:
        """The body as a JSON object; `{}` where it isn't one (an HTML error page, say), or has so many values that
        everybody would wait while it is parsed."""
        if is_dense(self.body):
            return {}
        try:
            data = json.loads(self.body)
        except (ValueError, RecursionError):
            return {}
        return data if isinstance(data, dict) else {}


class Http(Protocol):
    """`json` and `form` exclude each other. Redirects are not followed: a credential goes to its own host only."""

    async def request(
        self,
        method: str,
        url: str,
        *,
        json: object = None,
        form: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 30.0,  # noqa: ASYNC109 - handed to the client, which owns the deadline
    ) -> HttpAnswer:
        """Send, and read the whole answer whatever its status. Raises HttpUnavailable."""
        ...
