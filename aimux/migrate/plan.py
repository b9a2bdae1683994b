"""What a migration found, and how a source's fields are read without losing sight of any."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

from aimux.config.tokens import MIN_LENGTH

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator

    from aimux.plugin import Provider

    MakeCredential = Callable[[Provider], bytes]


class MigrationError(Exception):
    """The source can't be read as what it was taken for. Holds no secret."""


@dataclass(frozen=True, slots=True)
class Note:
    """Something of the source that aimux does not take over, and what that means. Never holds a value."""

    what: str
    why: str


@dataclass(frozen=True, slots=True)
class FoundAccount:
    """One credential. `make` turns it into the content of that provider's credential file."""

    instance: str
    name: str
    make: MakeCredential = field(repr=False)
    origin: str = ""
    """Where it came from, for a person."""


@dataclass(slots=True)
class Plan:
    """An aimux configuration, accounts for the state folder, and what is left over."""

    source: str
    config: dict[str, Any] = field(default_factory=dict)
    accounts: list[FoundAccount] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)

    def note(self, what: str, why: str) -> None:
        self.notes.append(Note(what, why))

    def add_user(self, name: str, token: str, *, where: str) -> None:
        """Let the owner of `token` in. The configuration gets its SHA-256, so that the token stays with its owner."""
        users = self.config.setdefault("users", [])
        digest = hashlib.sha256(token.encode()).hexdigest()
        if len(token) < MIN_LENGTH:
            self.note(where, f"has {len(token)} characters and aimux wants {MIN_LENGTH}: give {name!r} a new token")
            return
        if any(user["token_sha256"] == digest for user in users):
            self.note(where, "is the same token as another user's")
            return
        users.append({"name": unique(clean(name, "user"), [user["name"] for user in users]), "token_sha256": digest})

    def add_account(self, instance: str, name: str, make: MakeCredential, *, origin: str) -> None:
        taken = [account.name for account in self.accounts if account.instance == instance]
        self.accounts.append(FoundAccount(instance, unique(clean(name, "account"), taken), make, origin))

    def finish(self) -> Plan:
        """The sole account of a provider is its default one, and a provider that has accounts is switched on."""
        instances = [account.instance for account in self.accounts]
        self.accounts = [
            FoundAccount(one.instance, "default", one.make, one.origin) if instances.count(one.instance) == 1 else one
            for one in self.accounts
        ]
        providers = self.config.get("providers") or {}
        if isinstance(providers, Mapping):
            self.config["providers"] = {name: dict(providers.get(name) or {}) for name in [*providers, *instances]}
        if not self.config.get("users"):
            self.config.pop("users", None)
            self.note("no user's token", "aimux then serves this machine only; add `users` to let others in")
        return self


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
        """The value as it is, None where there is none."""
        self._used.add(name)
        return self._data.get(name)

    def text(self, name: str) -> str:
        """A string or number as text, "" where there is none. Raises MigrationError for anything else."""
        value = self.take(name)
        if value is None:
            return ""
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            self._refuse(name, "is no text")
        return str(value).strip()

    def number(self, name: str) -> float | None:
        """A number, also written as text; None where there is none."""
        text = self.text(name)
        try:
            return float(text) if text else None
        except ValueError:
            self._refuse(name, "is no number")

    def texts(self, name: str) -> list[str]:
        """A list of strings, each not empty."""
        values = self.take(name) or []
        if not isinstance(values, list) or any(isinstance(one, list | dict) for one in values):
            self._refuse(name, "is no list of texts")
        return [str(one) for one in values if one not in (None, "")]

    def section(self, name: str) -> Fields:
        """A mapping within this one; an empty one where there is none."""
        self._used.add(name)
        inner = Fields(self._data.get(name), self.where(name))
        self._inner.append(inner)
        return inner

    def sections(self, name: str) -> Iterator[Fields]:
        """The mappings of a list; none where there is none."""
        values = self.take(name) or []
        if not isinstance(values, list):
            self._refuse(name, "is no list")
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
    return value not in (None, "", False, [], {}, 0)


def clean(name: str, otherwise: str) -> str:
    """A name as aimux takes one for accounts and users."""
    kept = re.sub(r"[^A-Za-z0-9._@+-]+", "-", name).strip("-._@+")[:64]
    return kept or otherwise


def unique(name: str, taken: list[str]) -> str:
    if name not in taken:
        return name
    return next(f"{name[:60]}-{n}" for n in range(2, 1000) if f"{name[:60]}-{n}" not in taken)


def address(host: str, port: str) -> str:
    """`listen` from a host and a port; no host means all interfaces."""
    if host in {"", "0.0.0.0", "::", "*"}:  # noqa: S104 - it is what the source listened on
        return f":{port}"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
