"""Every table, one module a room.

Conventions, the same for all:
- **Times** are whole milliseconds since 1970 in UTC (`base.moment`, `storage.times`), and so are durations.
- **Money** is whole billionths of a dollar, in a BigInteger.
- **Secrets** are SHA-256 digests (LargeBinary, 32 bytes) or encrypted (LargeBinary); never text.
- **Lists and free mappings** are `base.Json`; a list is never null: an empty one says "none".
- Constraints have names (below), so that a later migration can speak of them.

A table that is added here gets a revision in migrations/versions/ in the same commit, and is moved between the engines
by itself (`aimux db export`), unless its `info` says `LOCAL`.
"""

from aimux.storage.schema import accounts, audit, base, deposits, ledger, limits, people
from aimux.storage.schema.base import METADATA

__all__ = ["METADATA", "accounts", "audit", "base", "deposits", "ledger", "limits", "people"]
