"""`aimux why`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click

from aimux.cli.asking import ask, print_json
from aimux.cli.options import config_option, json_option
from aimux.cli.words import say, visible

if TYPE_CHECKING:
    from pathlib import Path


@click.command("why", short_help="Explain how a request was routed.")
@click.argument("request_id", metavar="REQUEST-ID")
@config_option
@json_option
def why_command(request_id: str, config: Path | None, as_json: bool) -> None:
    """Explain how a request was routed: which accounts were asked, and what came of it.

    REQUEST-ID is the `x-request-id` of its answer, or the id that the vendor gave it (`request-id`). The ledger keeps
    requests for `ledger.keep_requests`.
    """
    from aimux.metering.record import REFUSED

    path = f"/requests/{quote(request_id, safe='')}"
    found = ask(config, lambda backend: backend.call("GET", path), changes=False)
    if as_json:
        print_json(found)
        return
    who = f" for {found['user']}" if found["user"] else ""
    model = f", model {visible(found['model'])}" if found["model"] else ""
    say(f"{found['time']}  {found['method']} {found['path']}{who}{model}", hang=2)
    for step in found["steps"]:
        model = f" as {step['model']}" if step["model"] else ""
        what = f"{step['provider']}/{step['account']}{model}: {step['status'] or 'no answer'}, {step['action']}"
        reason = f" ({step['reason']})" if step["reason"] else ""
        vendors = f", there {step['upstream_id']}" if step["upstream_id"] else ""
        say(f"  +{step['seconds']:.3f} s  {what}{reason}{vendors}", hang=11)
    if (limit := found["limit"]) is not None:
        scope = f" for {limit['scope']}" if limit["scope"] else ""
        used = f"{limit['used']:,.10g} of {limit['amount']:,.10g} used"
        say(
            f"  {limit['limit']} of {limit['owner']}{scope}, set by {limit['set_by']}: {used}; "
            f"there is room again at {limit['free_at']}",
            hang=2,
        )
    if refused := REFUSED.get(found["error"]):
        where = f" `aimux limits show user:{found['user']}` shows who set it." if found["user"] else ""
        say(f"  {refused}{where}", hang=2)
    result = found["status"] or "nothing, it had left"
    error = f", {found['error']}" if found["error"] else ""
    say(f"  +{found['seconds']:.3f} s  the client got {result}{error}; {_size(found)}", hang=11)


def _size(found: dict[str, Any]) -> str:
    text = f"{found['bytes_in']} bytes in, {found['bytes_out']} out"
    if tokens := found["tokens"]:
        text += f"; tokens: {tokens['input']} in, {tokens['cache_read']} of the cache, {tokens['output']} out"
        text += " (a part is an estimate)" if found["estimated"] else ""
        cost = found["cost_usd"]
        text += "; no price is known" if cost is None else f"; ${cost:.6f}"
    return text
