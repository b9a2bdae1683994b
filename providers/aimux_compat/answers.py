"""What the answers for every gateway share: reading JSON, asking aimux, and their common form of errors."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aimux.plugin import Api

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Failed(Exception):
    """What aimux did not do, or what the client did not send."""

    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.status, self.kind = status, kind


def told(handler: Handler) -> Handler:
    """`Failed` in the form of these gateways."""

    async def answer(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except Failed as failed:
            body = {"error": {"type": failed.kind, "message": str(failed)}}
            return web.json_response(body, status=failed.status)

    return answer


async def given(request: web.Request) -> dict[str, Any]:
    """The body, which has to be a JSON object. Raises Failed."""
    try:
        body = json.loads(await request.read() or b"{}")
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise Failed(400, "invalid_request_error", "The body has to be a JSON object.")
    return body


def text(body: dict[str, Any], name: str, *, default: str | None = None) -> str:
    """A field of it. Raises Failed if it is missing or not text."""
    value = body.get(name)
    if value is None and default is not None:
        return default
    if not isinstance(value, str) or not value:
        raise Failed(400, "invalid_request_error", f"`{name}` is missing or not text.")
    return value


async def ask(api: Api, method: str, path: str, body: Any = None) -> Any:
    """aimux's own answer. Raises Failed with the words of its problem."""
    status, answer = await api(method, path, body)
    if status >= 400:
        what = " ".join(part for part in (answer.get("detail"), answer.get("remedy")) if part)
        raise Failed(status, "invalid_request_error" if status < 500 else "api_error", what)
    return answer


async def every_account(api: Api, provider: str) -> list[dict[str, Any]]:
    """All accounts of one provider. Raises Failed."""
    found: list[dict[str, Any]] = []
    after = ""
    while True:
        page = await ask(api, "GET", f"/accounts?provider={provider}&limit=1000{after}")
        found += page["items"]
        if page["next"] is None:
            return found
        after = f"&after={page['next']}"
