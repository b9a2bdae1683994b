"""One schema on two engines: SQLite beside the other state, or PostgreSQL for several nodes.

Importing this imports no SQLAlchemy (0.3 s): that happens at the first read or write.
"""

from aimux.storage.database import MOST_TOLD, Database
from aimux.storage.errors import Conflict, StorageError, Unusable

__all__ = ["MOST_TOLD", "Conflict", "Database", "StorageError", "Unusable"]
