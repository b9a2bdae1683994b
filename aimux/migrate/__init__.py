"""Moving in from other gateways: what their files say, as an aimux configuration and credential files.

One module a source. A source is read and never written, and everything in it that has no counterpart becomes a note.
"""

from aimux.migrate.fields import MigrationError
from aimux.migrate.plan import FoundAccount, Note, Plan
from aimux.migrate.sources import NAMES, read_source

__all__ = ["NAMES", "FoundAccount", "MigrationError", "Note", "Plan", "read_source"]
