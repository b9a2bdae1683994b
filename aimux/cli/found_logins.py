"""Logins that other programs keep on this machine, for `aimux import`."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import click

from aimux.accounts.importing import MAX_SIZE, NotTaken, read, recognize, taken_apart
from aimux.accounts.kept import kept_logins
from aimux.cli.words import say, sentence, visible

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from aimux.plugin import Credential, Provider


@dataclass(frozen=True, slots=True)
class FoundLogin:
    """A credential file that a provider can read. `part`: where it was in a file of another program's that keeps
    several, which can't be shared."""

    path: Path
    provider: Provider
    credential: Credential
    raw: bytes = field(repr=False)
    part: str | None = None

    @property
    def where(self) -> str:
        return f"{self.path} ({self.part})" if self.part else str(self.path)


def find(path: Path | None, providers: Mapping[str, Provider]) -> list[FoundLogin]:
    """The logins in that file or folder, or on this machine. Ends the command if a file holds none, or it is unclear
    whose it is; what else can't be taken is said."""
    if path is not None and path.is_file():
        return _read_given(path, providers)
    found = list(_search(path, providers))
    return list(_in_folder(path, providers)) if path is not None and not found else found


def _search(folder: Path | None, providers: Mapping[str, Provider]) -> Iterator[FoundLogin]:
    """The vendors' own logins on this machine, or in a folder (a home, or a CLI's own). The first good file in each
    place counts: others there are older. Each file belongs to the one provider whose format it has."""
    # Of several instances of one plugin, take the one with its own name; --provider names another.
    first: dict[str, Provider] = {}
    for provider in sorted(providers.values(), key=lambda provider: provider.instance != provider.name):
        first.setdefault(provider.name, provider)
    taken: set[Path] = set()
    refused: list[tuple[Path, str]] = []
    for provider in first.values():
        seen: set[str] = set()
        for files in _places(folder, provider).values():
            for path in files:
                raw = b""
                try:
                    raw = _content(path)
                    login = _read(path, raw, provider)
                    if _whose(path, raw, first).provider is not provider:
                        continue
                except click.UsageError as unclear:
                    refused.append((path, f"{path} {unclear.message}"))
                    continue
                except click.ClickException as error:
                    if folder is None or not kept_logins(raw):
                        refused.append((path, f"{path} is not a login of {provider.instance}: it {error.message}"))
                    continue
                taken.add(path)
                if login.credential.secret not in seen:
                    seen.add(login.credential.secret)
                    yield login
                break
    places = {path.parent for path in taken}
    for path, line in dict.fromkeys(refused):
        if path.parent not in places:
            say(sentence(line), err=True)


def _places(folder: Path | None, provider: Provider) -> dict[Path, list[Path]]:
    """Files that are there, by the folder that they are in."""
    if folder is None:
        paths = provider.vendor_logins(os.environ, Path.home())
    else:
        in_home = provider.vendor_logins({}, folder)
        paths = [*in_home, *(folder / path.name for path in in_home)]
    found: dict[Path, list[Path]] = {}
    for path in dict.fromkeys(paths):
        if path.is_file():
            found.setdefault(path.parent, []).append(path)
    return found


def _read_given(path: Path, providers: Mapping[str, Provider]) -> list[FoundLogin]:
    """The logins in a file that the person named. Ends the command if there is none, or it is unclear whose it is."""
    raw = b""
    try:
        raw = _content(path)
        return [_whose(path, raw, providers)]
    except click.ClickException as error:
        if not kept_logins(raw):
            raise type(error)(f"{path} {error.message}") from None
    return _kept_in(path, raw, providers)


def _kept_in(path: Path, raw: bytes, providers: Mapping[str, Provider]) -> list[FoundLogin]:
    """What another program keeps in a file, as far as a provider can read it; the rest is said."""
    found = []
    for place, login in taken_apart(raw, providers, path=path):
        part = visible(place)
        if isinstance(login, NotTaken):
            where = f"{path} ({part})" if part else str(path)
            say(f"Not taken: {where} {_told(login).message}", err=True)
        else:
            found.append(FoundLogin(path, login.provider, login.credential, login.raw, part))
    return found


def _in_folder(folder: Path, providers: Mapping[str, Provider]) -> Iterator[FoundLogin]:
    """The logins of a folder in which another program keeps them."""
    for path in sorted(folder.glob("*.json")):
        try:
            yield from _kept_in(path, _content(path), providers)
        except click.ClickException as error:
            say(f"Not taken: {path} {error.message}", err=True)


def _whose(path: Path, raw: bytes, providers: Mapping[str, Provider]) -> FoundLogin:
    """The login in a file, with its provider. Raises ClickException (UsageError if several fit), in words that follow
    the path."""
    try:
        login = recognize(raw, providers, path=path)
    except NotTaken as error:
        raise _told(error) from None
    return FoundLogin(path, login.provider, login.credential, login.raw)


def _told(error: NotTaken) -> click.ClickException:
    return click.UsageError(f"{error}: say --provider") if error.unclear else click.ClickException(str(error))


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_SIZE + 1)
    except OSError as error:
        raise click.ClickException(f"can't be read: {error.strerror}") from None


def _read(path: Path, raw: bytes, provider: Provider) -> FoundLogin:
    """Raises ClickException, in words that follow the path."""
    try:
        login = read(raw, provider)
    except NotTaken as error:
        raise _told(error) from None
    return FoundLogin(path, provider, login.credential, raw)
