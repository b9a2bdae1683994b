"""One request's way through aimux."""

from aimux.gateway.auth import Authentication
from aimux.gateway.epoch import Epoch
from aimux.gateway.gateway import Gateway
from aimux.gateway.models import ModelRoutes
from aimux.gateway.mounts import MountTable
from aimux.gateway.route import Route
from aimux.gateway.setup import Setup

__all__ = ["Authentication", "Epoch", "Gateway", "ModelRoutes", "MountTable", "Route", "Setup"]
