"""People of each role, and how they show who they are."""

from __future__ import annotations

MEMBER = "members-token-0123456789"


VIEWER = "viewers-token-0123456789"


ADMIN = "admins-token-0123456789"


USERS = [
    {"name": "mia", "token": MEMBER, "groups": ["dev"]},
    {"name": "vic", "token": VIEWER, "role": "viewer"},
    {"name": "ada", "token": ADMIN, "role": "admin", "email": "ada@example.com"},
]


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}
