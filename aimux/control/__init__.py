"""Everything outside the mounts."""

from aimux.control.door import Admin
from aimux.control.key import KEY_FILE, Key, ensure_key

__all__ = ["KEY_FILE", "Admin", "Key", "ensure_key"]
