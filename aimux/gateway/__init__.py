"""One request's way through aimux."""

from aimux.gateway.auth import Authentication
from aimux.gateway.call import Route
from aimux.gateway.gateway import Gateway, Setup
from aimux.gateway.models import ModelRoutes
from aimux.gateway.mounts import MountTable

__all__ = ["Authentication", "Gateway", "ModelRoutes", "MountTable", "Route", "Setup"]
