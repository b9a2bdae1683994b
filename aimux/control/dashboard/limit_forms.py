"""The limits of a user or a group on their pages: what holds, and the forms that change it."""

from __future__ import annotations

import asyncio
import re
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from aimux.control.api.problems import Refused
from aimux.control.dashboard.page import ask, segment, shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from aiohttp import web

AMOUNTS = {
    "concurrent_requests": "Requests at once",
    "requests_per_minute": "Requests a minute",
    "tokens_per_minute": "Tokens a minute",
    "tokens_per_day": "Tokens a day",
    "tokens_per_week": "Tokens a week",
    "tokens_per_month": "Tokens a month",
    "cost_per_day": "$ a day",
    "cost_per_week": "$ a week",
    "cost_per_month": "$ a month",
}
FORBIDDEN = {
    "overage": "No paid extra usage",
    "long_context": "No requests so long that a token costs more",
}
_NUMBER = re.compile(
    r"\$? ?(?P<whole>[0-9]{1,20}|[0-9]{1,3}(?:[, _][0-9]{3}){1,6})"
    r"(?P<fraction>(?:\.[0-9]{1,20})?(?:e-[0-9]{1,3})?) ?(?P<unit>[kmbg]?)",
    re.IGNORECASE,
)
_SEPARATORS = str.maketrans("", "", ", _")
_FACTORS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "g": 10**9}


async def limits_of(request: web.Request, kind: str, name: str) -> dict[str, Any]:
    """What was set, what holds, and how much of it is used."""
    path = f"/limits/{kind}/{segment(name)}"
    own, holding = await asyncio.gather(ask(request, "GET", path), ask(request, "GET", f"{path}/usage"))
    return {"own": own, "usage": holding["items"], "forbidden": holding["forbidden"], "of": f"{kind}:{name}"}


async def limits_of_tokens(request: web.Request, tokens: Sequence[Any]) -> list[tuple[Any, dict[str, Any]]]:
    """Those of them that have limits of their own, with their limits."""
    held = {one["name"] for one in (await ask(request, "GET", "/limits"))["items"] if one["kind"] == "token"}
    limited = [token for token in tokens if token["id"] in held and token["state"] == "active"]
    found = await asyncio.gather(*(limits_of(request, "token", one["id"]) for one in limited))
    return [*zip(limited, found, strict=True)]


async def changed(request: web.Request, action: str, kind: str, name: str, given: Mapping[str, str]) -> str:
    """Do what the form of that action says (`limits`, `grant`). Returns what to tell. Refused."""
    if action == "grant":
        await _grant(request, kind, name, given)
        return "Granted."
    await _set_limits(request, kind, name, given)
    return f"The limits of {name} hold from the next request on."


async def _set_limits(request: web.Request, kind: str, name: str, given: Mapping[str, str]) -> None:
    """The changes made in the form; everything else stays, also what somebody else set meanwhile. Refused."""
    wanted = {name: _number(text) if (text := given.get(name, "").strip()) else None for name in AMOUNTS}
    before = shown(given)
    changes: dict[str, Any] = {name: amount for name, amount in wanted.items() if amount != before.get(name)}
    words = {name: "forbid" if given.get(name) else "allow" for name in FORBIDDEN}
    changes |= {name: word for name, word in words.items() if word != before.get(name, "allow")}
    await ask(request, "PATCH", f"/limits/{kind}/{segment(name)}", changes)


async def _grant(request: web.Request, kind: str, name: str, given: Mapping[str, str]) -> None:
    """More of a limit, as the form says. Refused."""
    amount = _number(given.get("amount", "").strip())
    grant = {"limit": given.get("limit"), "amount": amount, "until": given.get("until", "").strip()}
    await ask(request, "POST", f"/limits/{kind}/{segment(name)}/grants", grant)


def _number(text: str) -> float | int:
    """As people write it: 1000000, 1,000,000, 1 000 000, 2.5, 2M, 500k. A comma that may begin a fraction is refused:
    otherwise 5,50 would become 550."""
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise Refused(422, "invalid", f"{text!r} is not an amount.", remedy="write it like 250000, 250k or 2.5M")
    # As a float 4.1M is not whole.
    value = Decimal(match["whole"].translate(_SEPARATORS) + match["fraction"]) * _FACTORS[match["unit"].lower()]
    return int(value) if value == value.to_integral_value() else float(value)
