"""The REST API under `/api/v1`. See docs/api.md."""

from aimux.control.api.api import Api
from aimux.control.api.parts import Parts

__all__ = ["Api", "Parts"]
