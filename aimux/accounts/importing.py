"""Whose a login is that a person brings in a file: a vendor's own, or one of several that another program keeps there.

`NotTaken` says why one is left, in words that follow the place where it was.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from aimux.accounts.credentials import parse_credential
from aimux.accounts.kept import kept_logins
from aimux.plugin import CredentialError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from aimux.plugin import Credential, Provider

MAX_SIZE = 1024 * 1024


class NotTaken(Exception):
    """`unclear`: several providers could take it, and somebody has to say which."""

    def __init__(self, reason: str, *, unclear: bool = False) -> None:
        super().__init__(reason)
        self.unclear = unclear


@dataclass(frozen=True, slots=True)
class Login:
    """A credential file's content, and the provider that can read it."""

    provider: Provider
    credential: Credential
    raw: bytes = field(repr=False)


def read(raw: bytes, provider: Provider) -> Login:
    """Raises NotTaken."""
    if len(raw) > MAX_SIZE:
        raise NotTaken("is not a credential file: it is larger than 1 MiB")
    try:
        return Login(provider, parse_credential(provider, raw), raw)
    except CredentialError as error:
        raise NotTaken(str(error)) from None


def recognize(raw: bytes, providers: Mapping[str, Provider], *, path: Path | None = None) -> Login:
    """The login, with its provider. `path`: where it was, which may tell whose it is. Raises NotTaken."""
    found, reasons = [], {}
    for name, provider in providers.items():
        try:
            found.append(read(raw, provider))
        except NotTaken as error:
            reasons[name] = str(error)
    # `{"api_key": …}` and `{"access_token": …}` fit everywhere: then choose the provider that recognizes its tokens, or
    # whose CLI keeps its login in such a place.
    if len(found) > 1:
        found = [login for login in found if _by_looks(login)] or found
    if len(found) > 1 and path is not None:
        found = [login for login in found if _by_place(login, path)] or found
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(login.provider.instance for login in found)
        raise NotTaken(f"could be a login of {names}", unclear=True)
    why = "; ".join(f"{name}: it {reason}" for name, reason in reasons.items())
    raise NotTaken(f"can't be read as a login. {why}")


def taken_apart(
    raw: bytes, providers: Mapping[str, Provider], *, path: Path | None = None
) -> Iterator[tuple[str, Login | NotTaken]]:
    """What another program keeps in a file: where each login is there, and the login. None if it is no such file."""
    for kept in kept_logins(raw):
        try:
            login = recognize(kept.raw, providers, path=path)
            if kept.off:
                raise NotTaken("is switched off there")
            _refuse_another_server(login, kept.base_url)
        except NotTaken as error:
            yield kept.where, error
        else:
            yield kept.where, login


def _refuse_another_server(login: Login, base_url: str) -> None:
    """A key is sent to the server only that it is for."""
    provider = login.provider
    request, _ = provider.cheapest_request(login.credential)
    ours, theirs = provider.prepare(request, login.credential).base_url, base_url
    if theirs and urlsplit(theirs).hostname != urlsplit(ours).hostname:
        raise NotTaken(
            f"is a key for {urlsplit(theirs).hostname}, and {provider.instance} asks {urlsplit(ours).hostname}: add a"
            " provider of type compatible for it"
        )


def _by_looks(login: Login) -> bool:
    return login.provider.vendor_token_advice(login.credential.secret) is not None


def _by_place(login: Login, path: Path) -> bool:
    known = login.provider.vendor_logins({}, Path.home())
    return (path.parent.name, path.name) in {(path.parent.name, path.name) for path in known}
