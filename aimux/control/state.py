"""What the handlers of the control plane find in their application."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from aiohttp.web import RequestKey

    from aimux.control.api.api import Api
    from aimux.control.dashboard.sessions import Dashboard
    from aimux.control.key import Key
    from aimux.gateway import Gateway
    from aimux.metering.metering import Metering
    from aimux.storage import Database

else:
    RequestKey = getattr(web, "RequestKey", web.AppKey)  # aiohttp 3.13 has no such class, and takes any key

__all__ = ["CONTROL", "Control", "RequestKey", "control_of", "ends", "unwritten"]


@dataclass(slots=True)
class Control:
    """The running parts that it shows and changes. A reload replaces `key` and the fields after it."""

    gateway: Gateway
    api: Api
    metering: Metering
    database: Database
    dashboard: Dashboard
    key: Key | None
    """None: there is none, and the API lets nobody in."""
    metrics_public: bool
    """`/ready` and `/metrics` are for others than this machine, too."""
    compatibility: frozenset[str] = frozenset()
    """Other gateways whose paths are answered."""
    health: str = ""
    """What `/health` says as text, if one of them did; otherwise it is JSON for everybody."""


CONTROL = web.AppKey("control", Control)


def unwritten(control: Control) -> list[str]:
    """Why the state of accounts is not being written, if it is not."""
    states = {pool.options.state for pool in control.api.parts.pools.values()} - {None}
    return sorted(state.trouble for state in states if state is not None and state.trouble)


def control_of(request: web.Request) -> Control:
    """Works in handlers of sub-applications, too."""
    return request.config_dict[CONTROL]


def ends(request: web.Request) -> tuple[str, str]:
    """The caller's address, and the one of this machine's that it reached; "" for a unix socket's."""
    transport = request.transport
    found = [transport.get_extra_info(name) if transport else None for name in ("peername", "sockname")]
    peer, reached = (str(end[0]) if isinstance(end, tuple) else "" for end in found)
    return peer, reached
