"""Who may call: users, groups, roles, tokens; what each of them may use; and who changed any of it.

The modules `users`, `groups` and `issuing` hold the changes. Importing this imports no SQLAlchemy.
"""

from aimux.people.audit import Actor
from aimux.people.configured import from_config
from aimux.people.directory import Access, Configured, Denied, Directory
from aimux.people.errors import PeopleError
from aimux.people.models import Group, Role, Token, User
from aimux.people.people import People

__all__ = [
    "Access",
    "Actor",
    "Configured",
    "Denied",
    "Directory",
    "Group",
    "People",
    "PeopleError",
    "Role",
    "Token",
    "User",
    "from_config",
]
