"""The admin API under `/api/v1`. See docs/api.md."""

from aimux.control.api.api import Api
from aimux.control.api.desk import Desk

__all__ = ["Api", "Desk"]
