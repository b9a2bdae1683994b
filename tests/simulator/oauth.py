"""Both authorization servers as a client asks them."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiohttp

from aimux.simulator import Simulator
from aimux.simulator.oauth import challenge

VERIFIER = "v" * 64
ANTHROPIC = "9d1c250a-e61b-44d9-88ed-5944d1962f5e"
OPENAI = "app_EMoamEEZ73f0CkXaXp7hrann"
LOOPBACK = {"anthropic": "http://localhost:5555/callback", "openai": "http://127.0.0.1:1455/auth/callback"}
Answered = tuple[int, dict[str, Any]]


def asked(vendor: str, **change: str | None) -> dict[str, str]:
    """The query of an authorization request."""
    query = {
        "response_type": "code",
        "client_id": ANTHROPIC if vendor == "anthropic" else OPENAI,
        "redirect_uri": LOOPBACK[vendor],
        "code_challenge": challenge(VERIFIER),
        "code_challenge_method": "S256",
        "state": "st",
    } | change
    return {name: value for name, value in query.items() if value is not None}


async def authorize(
    http: aiohttp.ClientSession, sim: Simulator, vendor: str, **change: str | None
) -> tuple[int, dict[str, str], str]:
    """Status, the query of the redirect, and the page."""
    url = f"{sim.url}/oauth/{vendor}/oauth/authorize"
    async with http.get(url, params=asked(vendor, **change), allow_redirects=False) as answer:
        query = parse_qs(urlsplit(answer.headers.get("location", "")).query)
        return answer.status, {name: values[0] for name, values in query.items()}, await answer.text()


async def tokens(
    http: aiohttp.ClientSession, sim: Simulator, vendor: str, *, form: bool = False, **body: Any
) -> Answered:
    path = "v1/oauth/token" if vendor == "anthropic" else "oauth/token"
    body = {"client_id": ANTHROPIC if vendor == "anthropic" else OPENAI} | body
    sent: dict[str, Any] = {"data": body} if form else {"json": body}
    async with http.post(f"{sim.url}/oauth/{vendor}/{path}", **sent) as answer:
        return answer.status, await answer.json()


async def exchange(http: aiohttp.ClientSession, sim: Simulator, vendor: str, code: str, **change: Any) -> Answered:
    body = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": LOOPBACK[vendor],
        "code_verifier": VERIFIER,
        **({"state": "st"} if vendor == "anthropic" else {}),
    } | change
    return await tokens(http, sim, vendor, form=vendor == "openai", **body)


async def refresh(http: aiohttp.ClientSession, sim: Simulator, vendor: str, token: str, **more: Any) -> Answered:
    return await tokens(http, sim, vendor, grant_type="refresh_token", refresh_token=token, **more)
