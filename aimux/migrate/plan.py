"""What a migration found: an aimux configuration, accounts, and what did not come along."""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aimux.config.tokens import MIN_LENGTH, SAMPLE_TOKENS
from aimux.migrate.fields import local_path

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from aimux.plugin import Provider

    MakeCredential = Callable[[Provider], bytes]


_TAKEN = ("claude", "chatgpt", "compatible", "health", "ready", "metrics", "api")
"""Providers that are installed, and paths of aimux's own."""


@dataclass(frozen=True, slots=True)
class Note:
    """Something of the source that aimux does not take over, and what that means. Never holds a value.

    `essential`: something that was served there is not served here until a person acts.
    """

    what: str
    why: str
    essential: bool = False


@dataclass(slots=True)
class FoundAccount:
    """One credential. `make` turns it into the content of that provider's credential file.

    `file` is where it is already, if it is a file of its own. `vendors`: it is the vendor's own CLI's, which goes on
    renewing it. `settings` are the account's in the configuration.
    """

    instance: str
    name: str
    make: MakeCredential = field(repr=False)
    origin: str = ""
    """Where it came from, for a person."""
    file: Path | None = None
    vendors: bool = False
    disabled: bool = False
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def full_name(self) -> str:
        return f"{self.instance}/{self.name}"


@dataclass(slots=True)
class Plan:
    """An aimux configuration, accounts for the state folder, and what is left over."""

    source: str
    config: dict[str, Any] = field(default_factory=dict)
    accounts: list[FoundAccount] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    warnings: list[Note] = field(default_factory=list)
    """What was taken over but is not yet as it should be."""
    revoked: dict[str, str] = field(default_factory=dict)
    """Subjects of signed tokens that are no longer accepted, with their labels."""
    issued: dict[str, str] = field(default_factory=dict, repr=False)
    """New tokens by user name, in place of those that could not be taken over."""
    closed: bool = False
    """The source served nobody without a token: nor must the result, whatever became of its tokens."""

    def note(self, what: str, why: str) -> None:
        self.notes.append(Note(what, why))

    def loss(self, what: str, why: str) -> None:
        """A note about something essential."""
        self.notes.append(Note(what, why, essential=True))

    def warn(self, what: str, why: str) -> None:
        self.warnings.append(Note(what, why))

    # --- users -------------------------------------------------------------------------------------------------------

    def add_user(self, name: str, token: str, *, where: str, groups: tuple[str, ...] = ()) -> None:
        """Give the owner of `token` access. The configuration gets its SHA-256, so that the token stays with its
        owner."""
        if not token or token in SAMPLE_TOKENS:
            why = "is one that everybody knows" if token else "is empty"
            self.replace_token(name, where=where, why=why, groups=groups)
            return
        digest = hashlib.sha256(token.encode()).hexdigest()
        for user in self.config.get("users", []):
            if user["token_sha256"] == digest:
                self.note(where, "is the same token as another user's")
                return
        user = self._user(name, digest, groups)
        if len(token) < MIN_LENGTH:
            user["weak"] = True
            advice = f"it can be guessed: give {user['name']!r} one of at least {MIN_LENGTH} when you can"
            self.warn(where, f"has {len(token)} characters. It came along as a weak token; {advice}")

    def replace_token(self, name: str, *, where: str, why: str, groups: tuple[str, ...] = ()) -> None:
        """Give a user a new token, because the old one can't be taken over."""
        token = secrets.token_urlsafe(32)
        user = self._user(name, hashlib.sha256(token.encode()).hexdigest(), groups)
        self.issued[user["name"]] = token
        self.loss(where, f"{why}: {user['name']!r} gets a new token")

    def _user(self, name: str, digest: str, groups: tuple[str, ...]) -> dict[str, Any]:
        users = self.config.setdefault("users", [])
        free = unique(clean(name, "user"), [user["name"] for user in users])
        users.append({"name": free, "token_sha256": digest} | ({"groups": list(groups)} if groups else {}))
        added: dict[str, Any] = users[-1]
        return added

    def administrator(self, setting: str, key: str) -> None:
        """Let whoever has this key administer, as it did there."""
        if not key:
            return
        if len(key) < MIN_LENGTH or key in SAMPLE_TOKENS:
            self.note(setting, "can be guessed, and opens nothing here: aimux makes an admin key of its own")
        else:
            self.config["admin"] = {"token_sha256": hashlib.sha256(key.encode()).hexdigest()}

    # --- accounts ----------------------------------------------------------------------------------------------------

    def add_account(
        self, instance: str, name: str, make: MakeCredential, *, origin: str, file: Path | None = None
    ) -> FoundAccount:
        taken = [account.name for account in self.accounts if account.instance == instance]
        account = FoundAccount(instance, unique(clean(name, "account"), taken), make, origin, file)
        self.accounts.append(account)
        return account

    def settle_names(self) -> None:
        """A provider's only account is its default one. Write no account names before this."""
        instances = [account.instance for account in self.accounts]
        for account in self.accounts:
            if instances.count(account.instance) == 1:
                account.name = "default"

    def drop(self, account: FoundAccount, why: str) -> None:
        """Leave out an account whose provider can't read its credential, and what would lead to it."""
        self.loss(f"account {account.name!r} from {account.origin}", why)
        self._forget(account)
        models = self.config.get("models", {})
        for name, targets in list(models.items()):
            models[name] = [target for target in targets if target.get("account") != account.full_name]
            if not models[name]:
                del models[name]
                self.loss(f"model {name!r}", "was served by that account only")
        if not models:
            self.config.pop("models", None)

    def merge(self, account: FoundAccount, kept: FoundAccount) -> None:
        """Leave out an account that is a copy of `kept`: both would be renewed with the same token, which works once.

        Whatever led to it leads to `kept`, which serves if one of them did.
        """
        why = f"is the same login as {kept.full_name}, and of two copies the one that is renewed second is logged out"
        self.note(f"account {account.name!r} from {account.origin}", why)
        self._forget(account)
        kept.disabled = kept.disabled and account.disabled
        for name, targets in self.config.get("models", {}).items():
            led = [t | {"account": kept.full_name} if t.get("account") == account.full_name else t for t in targets]
            self.config["models"][name] = [target for i, target in enumerate(led) if target not in led[:i]]

    def _forget(self, account: FoundAccount) -> None:
        self.accounts.remove(account)
        settings = self.settings(account.instance)
        settings.get("accounts", {}).pop(account.name, None)
        if settings.get("accounts") == {}:
            del settings["accounts"]

    # --- the rest ----------------------------------------------------------------------------------------------------

    def settings(self, instance: str) -> dict[str, Any]:
        """The settings of a provider in the configuration, to be changed."""
        settings: dict[str, Any] = self.config.setdefault("providers", {}).setdefault(instance, {})
        return settings

    def new_instance(self, name: str, **settings: Any) -> str:
        """Another provider of the configuration, under a name of its own."""
        wanted = re.sub(r"[^A-Za-z0-9]+", "-", name)[:50].strip("-") or "provider"
        found = unique(wanted, [*self.config.get("providers", {}), *_TAKEN])
        self.settings(found).update(settings)
        return found

    def tls(self, certificate: str, key: str, folder: Path) -> None:
        """HTTPS with files that may be given relative to the source's folder."""
        files = {"cert_path": certificate, "key_path": key}
        if not certificate or not key:
            self.loss("TLS", "has no certificate and key in files: set `tls`, or clients must use http")
            return
        self.config["tls"] = {"enabled": True} | {
            name: str(folder.absolute() / local_path(path)) for name, path in files.items()
        }

    def finish(self) -> Plan:
        """Switch on every provider that has accounts or a mount; if there were users, nobody else gets access."""
        self.settle_names()
        mounted = self.config.get("mounts", {}).values()
        for instance in dict.fromkeys([*self.config.get("providers", {}), *mounted]):
            self.settings(instance)
        for account in self.accounts:
            settings = self.settings(account.instance)
            if account.settings:
                settings.setdefault("accounts", {})[account.name] = account.settings
        self.config.setdefault("providers", {})
        if not self.config.get("users"):
            self.config.pop("users", None)
            if "auth" in self.config:
                pass  # whoever has a signed token
            elif self.closed:
                self.replace_token("owner", where="users", why="none has a token there that came along")
            else:
                self.note("no user's token", "aimux then serves this machine only; add `users` to let others in")
        return self


def clean(name: str, otherwise: str) -> str:
    """A name in the form that aimux accepts for accounts and users."""
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
