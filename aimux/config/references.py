"""`${env:NAME}`, `${file:/path}` and `${cred:NAME}` in strings, so that no secret has to stand in the file itself."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from aimux.config.files import local_path, read_text

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from aimux.config.problems import Where

_REFERENCE = re.compile(r"\$\$\{|\$\{([^{}]*)\}|\$\{")


class Unresolved:
    """Takes the place of a reference that led nowhere, so that the rest can still be checked. No field accepts it."""

    def __repr__(self) -> str:
        return "<unresolved>"


UNRESOLVED = Unresolved()


class ReferenceFailed(Exception):
    """What is wrong with a reference, and what to do."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy


class References:
    """Resolves references, and remembers what it met.

    `failures`: what went wrong, by path. `values`: what references stood for, never to be shown. `names`: the
    environment variables they named. With `read=False` nothing is read, and everything with a reference in it becomes
    UNRESOLVED without being a failure: for checking a file on a machine that does not have its secrets.
    """

    def __init__(self, environ: Mapping[str, str], folder: Path, *, read: bool = True) -> None:
        self._environ = environ
        self._folder = folder
        self._read = read
        self.failures: dict[Where, ReferenceFailed] = {}
        self.values: set[str] = set()
        self.names: set[str] = set()

    def resolve(self, value: Any, path: Where = ()) -> Any:
        """A copy of `value` with every string in it resolved."""
        if isinstance(value, str):
            # Nearly every string; 10,000 users have 20,000 of them.
            return self._text(value, path) if "${" in value else value
        if isinstance(value, dict):
            return {key: self.resolve(item, (*path, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [self.resolve(item, (*path, index)) for index, item in enumerate(value)]
        return value

    def _text(self, text: str, path: Where) -> str | Unresolved:
        try:
            return _REFERENCE.sub(self._one, text)
        except ReferenceFailed as failed:
            self.failures[path] = failed
        except _NotRead:
            pass
        return UNRESOLVED

    def _one(self, match: re.Match[str]) -> str:
        if match[0] == "$${":
            return "${"
        kind, _, name = (match[1] or "").partition(":")
        if match[1] is None or kind not in {"env", "file", "cred"} or not name:
            raise ReferenceFailed(
                "holds a reference that can't be read",
                "write ${env:NAME}, ${file:/path} or ${cred:NAME}; a literal ${ is written $${",
            )
        if kind == "env":
            self.names.add(name)
        if not self._read:
            raise _NotRead
        value = {"env": self._env, "file": self._file, "cred": self._credential}[kind](name)
        self.values.add(value)
        return value

    def _env(self, name: str) -> str:
        if (value := self._environ.get(name)) is None:
            raise ReferenceFailed(f"the environment variable {name} is not set", f"set {name} where aimux is started")
        return value

    def _file(self, name: str) -> str:
        try:
            return read_text(local_path(name, self._folder, self._environ))
        except OSError as error:
            raise ReferenceFailed(str(error), "check the path, and that aimux may read it") from None

    def _credential(self, name: str) -> str:
        folder = self._environ.get("CREDENTIALS_DIRECTORY")
        if not folder:
            raise ReferenceFailed(
                f"there is no credential {name}, because CREDENTIALS_DIRECTORY is not set",
                f"start aimux by systemd with LoadCredential={name}:/path/of/the/secret",
            )
        if "/" in name or name in {".", ".."}:
            raise ReferenceFailed("holds a credential's name with a path in it", "write ${cred:NAME}, or ${file:/path}")
        try:
            return read_text(self._folder / folder / name)
        except OSError as error:
            raise ReferenceFailed(str(error), f"add LoadCredential={name}:/path/of/the/secret to the unit") from None


class _NotRead(Exception):
    """A reference that is not to be read."""
