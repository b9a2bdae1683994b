"""Reads a source's fields without losing sight of any."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Container, Iterator


class MigrationError(Exception):
    """The source can't be read as what it was taken for. Holds no secret."""


def local_path(given: str) -> Path:
    """A path of the source, in which `~` is somebody's home. Raises MigrationError."""
    try:
        return Path(given).expanduser()
    except RuntimeError:
        raise MigrationError(
            f"{given} begins with a home that this machine doesn't know: write the whole path"
        ) from None


class Fields:
    """A mapping of the source that knows which of its fields were used, so that the rest can be listed."""

    def __init__(self, data: object, path: str = "") -> None:
        if data is not None and not isinstance(data, Mapping):
            raise MigrationError(f"{path or 'the file'} holds no fields")
        self._data: dict[str, Any] = {str(key): value for key, value in (data or {}).items()}
        self._path = path
        self._used: set[str] = set()
        self._inner: list[Fields] = []

    def __contains__(self, name: str) -> bool:
        return name in self._data

    def forget(self, *, but: Container[str]) -> None:
        """Pass over fields that are not the source's at all (an environment has many)."""
        self._used.update(name for name in self._data if name not in but)

    def where(self, name: str) -> str:
        return f"{self._path}.{name}" if self._path else name

    def take(self, name: str) -> Any:
        """The value as it is, None if there is none."""
        self._used.add(name)
        return self._data.get(name)

    def text(self, name: str) -> str:
        """A string or number as text, "" if there is none. Raises MigrationError for anything else."""
        value = self.take(name)
        if value is None:
            return ""
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            self._refuse(name, "is not text")
        return str(value).strip()

    def flag(self, name: str) -> bool:
        """True if it says so, also in the words of YAML 1.1."""
        value = self.take(name)
        return value is True or (isinstance(value, str) and value.lower() in {"true", "yes", "on", "1"})

    def number(self, name: str) -> float | None:
        """A number, even if written as text; None if there is none."""
        text = self.text(name)
        try:
            return float(text) if text else None
        except ValueError:
            self._refuse(name, "is not a number")

    def texts(self, name: str) -> list[str]:
        """A list of strings, each not empty."""
        values = self.take(name) or []
        if not isinstance(values, list) or any(isinstance(one, list | dict) for one in values):
            self._refuse(name, "is not a list of texts")
        return [str(one) for one in values if one not in (None, "")]

    def section(self, name: str) -> Fields:
        """A mapping within this one; an empty one if there is none."""
        self._used.add(name)
        inner = Fields(self._data.get(name), self.where(name))
        self._inner.append(inner)
        return inner

    def sections(self, name: str) -> Iterator[Fields]:
        """The mappings of a list; none if there is no list."""
        values = self.take(name) or []
        if not isinstance(values, list):
            self._refuse(name, "is not a list")
        for position, data in enumerate(values):
            inner = Fields(data, f"{self.where(name)}[{position}]")
            self._inner.append(inner)
            yield inner

    def left(self) -> list[str]:
        """The paths of all fields that nobody took, apart from empty ones."""
        mine = [self.where(name) for name, value in self._data.items() if name not in self._used and _says(value)]
        return mine + [path for inner in self._inner for path in inner.left()]

    def _refuse(self, name: str, why: str) -> NoReturn:
        raise MigrationError(f"{self.where(name)} {why}")


def _says(value: object) -> bool:
    return value not in (None, "", "0", False, [], {}, 0)
