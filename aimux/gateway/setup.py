"""What a configuration comes to for the gateway."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aimux.gateway.auth import Authentication
    from aimux.gateway.cors import Cors
    from aimux.gateway.models import ModelRoutes
    from aimux.gateway.mounts import MountTable
    from aimux.gateway.route import Route


@dataclass(frozen=True, slots=True)
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
    """What vendors keep is everybody's who may use the provider."""

    def patience(self, *, streamed: bool) -> float:
        """Seconds until the head of the answer has to be there."""
        return min(self.request_timeout, self.stream_start_timeout) if streamed else self.request_timeout
