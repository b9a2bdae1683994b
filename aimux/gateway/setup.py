"""What a configuration comes to for the gateway."""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 - compiled, a dataclass's annotations are looked up
from dataclasses import dataclass

from aimux.gateway.auth import Authentication  # noqa: TC001 - as above
from aimux.gateway.cors import Cors  # noqa: TC001
from aimux.gateway.models import ModelRoutes  # noqa: TC001
from aimux.gateway.mounts import MountTable  # noqa: TC001
from aimux.gateway.route import Route  # noqa: TC001


@dataclass(slots=True)
class Setup:
    """What a reload replaces as a whole. A request keeps the one it began with."""

    authentication: Authentication
    mounts: MountTable
    routes: Mapping[str, Route]
    models: ModelRoutes
    cors: Cors
    max_body_size: int
    max_websocket_message: int
    request_timeout: float
    stream_start_timeout: float
    shared_storage: bool = False
    """What vendors keep is shared by everybody who may use the provider."""

    def patience(self, *, streamed: bool) -> float:
        """Seconds until the head of the answer has to be there."""
        return min(self.request_timeout, self.stream_start_timeout) if streamed else self.request_timeout
