"""What both engines do, each in its own way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from sqlalchemy import CursorResult, Dialect, Executable, Row

    from aimux.storage.errors import StorageError

    Heard = Callable[[Collection[str] | None], None]
    """Takes the topics that somebody wrote to; None: unknown, possibly all."""
    Statement = tuple[str, Sequence[tuple[Any, ...]]]
    """In the driver's own words, and the rows for each of which it is executed."""
    Told = Callable[[str, str], None]
    """Takes the id of another node's process, and what it sent."""


class Connection(Protocol):
    """A transaction's connection: of SQLAlchemy's `AsyncConnection` what every engine has."""

    @property
    def dialect(self) -> Dialect: ...

    async def execute(self, statement: Executable, parameters: Any = None) -> CursorResult[*tuple[Any, ...]]: ...

    async def exec_driver_sql(self, statement: str, parameters: Any = None) -> CursorResult[*tuple[Any, ...]]: ...

    def stream(
        self, statement: Executable, *, execution_options: Mapping[str, Any]
    ) -> AbstractAsyncContextManager[Stream]:
        """Rows that need not all be in memory: `yield_per` of them at a time."""
        ...

    async def commit(self) -> None: ...


class Stream(Protocol):
    def partitions(self) -> AsyncIterator[Sequence[Row[*tuple[Any, ...]]]]: ...


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

    async def prepare(self) -> None:
        """Make and migrate the database if that was not done yet. Raises StorageError."""
        ...

    def transaction(self, *, write: bool) -> AbstractAsyncContextManager[Connection]:
        """A connection with a transaction begun, which is rolled back unless it was committed. After `prepare`."""
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

    async def announce(self, connection: Connection, topics: Collection[str]) -> Any:
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

    async def nodes(self, connection: Connection) -> list[str]:
        """Who uses the database now, as "HOST VERSION": see Database.nodes."""
        ...

    async def tell(self, connection: Connection, text: str) -> None:
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
