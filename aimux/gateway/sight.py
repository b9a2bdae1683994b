"""/health, /ready and /metrics. They need no token from this machine; `metrics_public` opens them to everyone."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from aimux.front.answer import Answer
from aimux.plugin.errors import ErrorKind, GatewayError

if TYPE_CHECKING:
    from aimux.front.request import Request
    from aimux.gateway.gateway import Gateway

PATHS = frozenset({"/health", "/ready", "/metrics"})


def sight(gateway: Gateway, request: Request, *, public: bool) -> Answer | None:
    """The answer, or None for another path. GatewayError 403 for a caller from elsewhere unless `public`."""
    path = request.head.target.partition("?")[0]
    if path not in PATHS:
        return None
    if request.head.method not in {"GET", "HEAD"}:
        raise GatewayError(ErrorKind.METHOD_NOT_ALLOWED, f"{path} answers GET and HEAD.", retry=False)
    if not public and not gateway.setup.authentication.is_local(request.head.headers, request.connection.peer):
        raise GatewayError(
            ErrorKind.FORBIDDEN, f"{path} is served to this machine only; `metrics_public: true` opens it.", retry=False
        )
    if path == "/health":
        return _json(200, {"status": "ok"})
    if path == "/ready":
        return _ready(gateway)
    body, content_type = gateway.metrics.render()
    return Answer(200, {"content-type": content_type}, body)


def _ready(gateway: Gateway) -> Answer:
    """200 as soon as every provider has an account that can serve, else 503 with what is missing.

    Without `providers:` in the configuration, those that have no account at all don't count.
    """
    now = time.time()
    providers = {}
    for name, route in gateway.setup.routes.items():
        states = [account.state(now).status for account in route.accounts.accounts.values()]
        if not states and not route.required:
            continue
        providers[name] = {
            "ready": route.accounts.ready(now),
            "accounts": {status: states.count(status) for status in sorted(set(states))},
        }
    ready = bool(providers) and all(provider["ready"] for provider in providers.values()) and not gateway.draining
    answer: dict[str, object] = {"ready": ready, "providers": providers}
    if gateway.draining:
        answer["draining"] = True
    return _json(200 if ready else 503, answer)


def _json(status: int, answer: dict[str, object]) -> Answer:
    return Answer(status, {"content-type": "application/json"}, json.dumps(answer).encode() + b"\n")
