"""What both engines do, each in its own way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from aimux.storage.errors import StorageError

    Heard = Callable[[Collection[str] | None], None]
    """Takes the topics that somebody wrote to; None: nobody knows which, it may be all."""


class Engine(Protocol):
    """A database as SQLAlchemy sees it, and what is particular to its kind."""

    name: str
    """Where it is, fit to be shown: a path, or an address without the password."""

    async def look(self) -> bool:
        """Check what can be checked cheaply, and migrate what is behind. False: there is no database yet.

        Raises StorageError.
        """
        ...

    async def engine(self) -> AsyncEngine:
        """Connections to the database, which is made and migrated where that was not done yet. Raises StorageError."""
        ...

    def touched(self, topic: str) -> bool:
        """Whether anything of the topic was ever written, as of `look`."""
        ...

    async def announce(self, connection: AsyncConnection, topics: Collection[str]) -> None:
        """Let every other node know of these topics when the connection's transaction is committed."""
        ...

    async def watch(self, heard: Heard) -> None:
        """Listen for what others wrote until cancelled, whatever happens to the database meanwhile."""
        ...

    def explain(self, error: Exception) -> StorageError:
        """An exception of the driver's or SQLAlchemy's in words. Holds no parameter of a statement."""
        ...

    async def close(self) -> None:
        """Close every connection."""
        ...
