"""Security headers on every answer of the control plane. A handler may set others on its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aiohttp import web

HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


async def add(_request: web.Request, response: web.StreamResponse) -> None:
    """For `on_response_prepare`: a middleware would come too late for an answer that streams."""
    response.headers.popall("server", None)  # which versions run here is nobody's business
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
