"""`/health`, `/ready` and `/metrics`, for whoever watches over aimux, and the certificate for its clients."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from aiohttp import web

from aimux.control.api.problems import Refused
from aimux.control.state import control_of, ends, unwritten
from aimux.gateway.client_address import from_foreign_page
from aimux.plugin.parts import CERTIFICATE, HEALTH, METRICS, READY

if TYPE_CHECKING:
    from aimux.gateway import Gateway
    from aimux.metering.metrics import Metrics


def add_routes(app: web.Application) -> None:
    app.router.add_get(HEALTH, health)
    app.router.add_get(READY, ready)
    app.router.add_get(METRICS, metrics)
    app.router.add_get(CERTIFICATE, certificate)


async def health(request: web.Request) -> web.StreamResponse:
    """For everybody: only that it answers."""
    text = control_of(request).health
    if text and "application/json" not in request.headers.get("accept", ""):
        return web.Response(text=text)
    return web.json_response({"status": "ok"})


async def ready(request: web.Request) -> web.StreamResponse:
    """200 as soon as every provider that has accounts has one that can serve, else 503 with what is missing.

    A provider without any account is listed, but does not keep anybody from using the others. Problems of the database
    or the disk, and what waits for them in the ledger, are listed too, but do not make aimux unready: requests are
    served.
    """
    _guard(request)
    control = control_of(request)
    gateway = control.gateway
    providers = _providers(gateway)
    counted = [provider for provider in providers.values() if provider["accounts"]]
    ready = bool(counted) and all(provider["ready"] for provider in counted) and not gateway.open.draining
    answer: dict[str, object] = {"ready": ready, "providers": providers}
    if gateway.open.draining:
        answer["draining"] = True
    if control.database.trouble is not None:
        answer["database"] = control.database.trouble.reason
    if (waiting := control.metering.ledger.status()) is not None:
        answer["ledger"] = waiting
    if troubles := unwritten(control):
        answer["accounts_state"] = "; ".join(troubles)
    return web.json_response(answer, status=200 if ready else 503)


async def metrics(request: web.Request) -> web.StreamResponse:
    _guard(request)
    body, content_type = await asyncio.to_thread(_metrics_page, control_of(request).gateway.metrics)
    return web.Response(body=body, headers={"content-type": content_type})


async def certificate(request: web.Request) -> web.StreamResponse:
    """The self-signed certificate, for everybody: each client sees it anyway."""
    pem = control_of(request).api.parts.running.certificate()
    if pem is None:
        raise Refused(404, "not-found", "This aimux has no certificate of its own making.")
    return web.Response(body=pem, content_type="application/x-pem-file")


def _metrics_page(metrics: Metrics) -> tuple[bytes, str]:
    from aimux.metering.exposition import render  # takes 70 ms, for a scrape only

    return render(metrics)


def _guard(request: web.Request) -> None:
    """Refused 403 for callers from elsewhere unless `metrics_public`: the answers name users, models and accounts.

    Requests that a browser on this machine makes for another site's page count as from elsewhere.
    """
    control = control_of(request)
    if control.metrics_public:
        return
    detail = f"{request.path} is served to this machine only."
    if not control.gateway.setup.authentication.proxies.is_here(request.headers, *ends(request)):
        raise Refused(403, "forbidden", detail, remedy="`metrics_public: true` opens it")
    if from_foreign_page(request.headers):
        detail += " Whether a program here asks or a web page, a host name does not tell."
        raise Refused(403, "forbidden", detail, remedy="ask localhost or the address, or set `metrics_public: true`")


def _providers(gateway: Gateway) -> dict[str, dict[str, object]]:
    now = time.time()
    providers: dict[str, dict[str, object]] = {}
    for name, route in gateway.setup.routes.items():
        states = [account.state(now).status for account in route.accounts.accounts.values()]
        if states or route.required:
            counts = {status: states.count(status) for status in sorted(set(states))}
            providers[name] = {"ready": route.accounts.ready(now), "accounts": counts}
    return providers
