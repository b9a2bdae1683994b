"""What both engines do, each in its own way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from aimux.storage.errors import StorageError

    Heard = Callable[[Collection[str] | None], None]
    """Takes the topics that somebody wrote to; None: unknown, possibly all."""
    Statement = tuple[str, Sequence[tuple[Any, ...]]]
    """In the driver's own words, and the rows for each of which it is executed."""
    Told = Callable[[str, str], None]
    """Takes the id of another node's process, and what it sent."""


class Engine(Protocol):
    """A database as SQLAlchemy sees it, and what is specific to its kind."""

    name: str
    """Where it is, fit to be shown: a path, or an address without the password."""
    trouble: StorageError | None
    """Why writes of others are not noticed now; None if they are."""
    on_told: Told
    """See Database.hear."""
    failures: tuple[type[Exception], ...]
    """What a faulty connection raises that SQLAlchemy passes on as it is."""

    @property
    def writing(self) -> AbstractAsyncContextManager[Any]:
        """What a write in this process waits for."""
        ...

    async def look(self) -> bool:
        """Check what can be checked cheaply, migrate an older schema, begin to listen. False: there is no database yet.

        Raises StorageError.
        """
        ...

    async def engine(self) -> AsyncEngine:
        """Connections to the database, which is made and migrated if that was not done yet. Raises StorageError."""
        ...

    async def quick(self, queries: Sequence[str]) -> list[list[Mapping[str, Any]]] | None:
        """See Database.quick."""
        ...

    async def at_once(self, statements: Iterable[Statement]) -> bool:
        """See Database.at_once."""
        ...

    def touched(self, topic: str) -> bool:
        """Whether anything of the topic was ever written, as far as is known."""
        ...

    async def announce(self, connection: AsyncConnection, topics: Collection[str]) -> Any:
        """Notify every other node of these topics when the connection's transaction is committed.

        Returns what `settle` takes then.
        """
        ...

    def settle(self, receipt: Any, *, committed: bool) -> None:
        """The transaction has ended. If it is not known to be committed, it may still be."""
        ...

    async def watch(self, heard: Heard) -> None:
        """Report what others wrote until cancelled, whatever happens to the database meanwhile."""
        ...

    async def nodes(self, connection: AsyncConnection) -> list[str]:
        """Who uses the database now, as "HOST VERSION": see Database.nodes."""
        ...

    async def tell(self, connection: AsyncConnection, text: str) -> None:
        """See Database.tell."""
        ...

    def lock(self, name: str, patience: float) -> AbstractAsyncContextManager[None]:
        """Exclusive over tasks and nodes; see Database.lock."""
        ...

    def explain(self, error: BaseException) -> StorageError:
        """Words for an exception of the driver or of SQLAlchemy, without parameters of a statement."""
        ...

    async def close(self) -> None:
        """Close every connection."""
        ...
