"""The admin API under `/api/v1`. See docs/api.md."""

from aimux.admin.api import Api
from aimux.admin.desk import Desk
from aimux.admin.door import Admin
from aimux.admin.key import KEY_FILE, Key, ensure_key

__all__ = ["KEY_FILE", "Admin", "Api", "Desk", "Key", "ensure_key"]
