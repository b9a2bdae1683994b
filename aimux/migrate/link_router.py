"""Link.Assistant.Router: its environment, the Claude homes that it names, and the tokens that it issued."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aimux.config.auth import MIN_SECRET
from aimux.migrate.credentials import as_it_is
from aimux.migrate.fields import MigrationError, local_path
from aimux.migrate.plan import Plan, address, clean

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from aimux.migrate.fields import Fields

NAME = "link-assistant-router"
PREFIX = "la_sk_"
_NAMES = {"TOKEN_SECRET", "CLAUDE_CODE_HOME", "ROUTER_PORT", "ROUTER_HOST"}
_OTHERS = {
    "ADDITIONAL_ACCOUNT_DIRS",
    "CLAUDE_CLI_BIN",
    "DATA_DIR",
    "DISABLE_ANTHROPIC_API",
    "DISABLE_METRICS",
    "DISABLE_OPENAI_API",
    "EXPERIMENTAL_COMPATIBILITY",
    "ROUTING_MODE",
    "STORAGE_POLICY",
    "TOKEN_ADMIN_KEY",
    "UPSTREAM_API_FORMAT",
    "UPSTREAM_BASE_URL",
    "VERBOSE",
}
_FILES = ("credentials.json", ".credentials.json", "auth.json", "oauth.json", "config.json")
_RECORD = re.compile(
    r'\(token (?P<sub>\S+) \(label "(?P<label>(?:[^"\\]|\\.)*)"\) \(issued_at (?P<iat>\d+)\)'
    r" \(expires_at (?P<exp>\d+)\) \(revoked (?P<revoked>true|false)\).*\)"
)
_BINARY = b"LARTOK01"


def recognise(data: Mapping[str, Any]) -> bool:
    return "TOKEN_SECRET" in data or len(_NAMES & set(data)) >= 2


def read(fields: Fields, path: Path) -> Plan:
    plan = Plan(NAME, closed=True)
    fields.forget(but=_NAMES | _OTHERS)
    plan.config["listen"] = address(fields.text("ROUTER_HOST"), fields.text("ROUTER_PORT") or "8080")
    plan.config["mounts"] = {"/api/latest/anthropic": "claude", "/": "claude", "/claude": "claude"}
    if (upstream := fields.text("UPSTREAM_BASE_URL").rstrip("/")) not in {"", "https://api.anthropic.com"}:
        plan.settings("claude")["base_url"] = upstream
    if fields.text("VERBOSE").lower() in {"1", "true", "yes"}:
        plan.config["log_level"] = "debug"
    home = path.parent / local_path(fields.text("CLAUDE_CODE_HOME") or "~/.claude")
    extra = [part.strip() for part in fields.text("ADDITIONAL_ACCOUNT_DIRS").split(",") if part.strip()]
    for folder in [home, *(path.parent / local_path(part) for part in extra)]:
        _account(plan, folder)
    given = fields.text("DATA_DIR")
    usual = (Path("~/.link-assistant-router").expanduser(), home / "router-data")
    _tokens(plan, fields.text("TOKEN_SECRET"), [path.parent / local_path(given)] if given else usual)
    plan.administrator("TOKEN_ADMIN_KEY", fields.text("TOKEN_ADMIN_KEY"))
    return plan


def _account(plan: Plan, folder: Path) -> None:
    """A home of Claude Code's: it reads the login there and leaves its renewal to Claude Code."""
    file = next((folder / name for name in _FILES if (folder / name).is_file()), None)
    if file is None:
        plan.loss(f"the account in {folder}", "no credential file is there")
        return
    name = clean(folder.name, "account")
    plan.add_account("claude", name, as_it_is(file), origin=str(file), file=file).vendors = True


# --- tokens ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Token:
    """What is stored of an issued token: its claims, not the token."""

    sub: str
    label: str
    issued: int
    expires: int
    revoked: bool


def _tokens(plan: Plan, secret: str, folders: Iterable[Path]) -> None:
    """A token is its signed claims. With the secret, aimux accepts it as it is; a secret that is too short for aimux
    can still recreate each token, whose hash is then taken over."""
    files = [folder / name for folder in folders for name in ("tokens.lino", "tokens.bin")]
    file = next((file for file in files if file.is_file()), None)
    if len(secret) >= MIN_SECRET:
        jwt = {"secret": secret, "prefix": PREFIX, "user_claim": ["label", "sub"]}
        plan.config |= {"auth": {"jwt": jwt}, "compatibility": [NAME]}
        if file is None:
            what = (
                f"revoked ones are not known, because {files[0]} is not there: they are valid again until they expire"
            )
            plan.loss("the issued tokens", what)
            return
        for token in _stored(plan, file, "if it was revoked, it is valid again"):
            if token.revoked and token.expires > time.time():
                plan.revoked[token.sub] = token.label
        return
    if secret:
        plan.warn(
            "TOKEN_SECRET", f"has {len(secret)} characters and can be guessed: aimux signs and takes nothing by it"
        )
    if file is None:
        plan.loss("the issued tokens", f"{files[0]} is not there, so that their owners need new ones")
        return
    for token in _stored(plan, file, "its owner needs a new token"):
        name = token.label or token.sub
        who = f"token {name!r}"
        if token.revoked or token.expires <= time.time():
            plan.note(who, "is revoked or expired and was left out")
            continue
        if not secret:
            plan.replace_token(name, where=who, why="can't be made again without TOKEN_SECRET")
            continue
        claims = {"sub": token.sub, "iat": token.issued, "exp": token.expires, "label": token.label}
        plan.add_user(name, _issued(claims, secret), where=who)
        plan.note(who, f"would expire on {time.strftime('%Y-%m-%d', time.gmtime(token.expires))}; aimux's do not")


def _stored(plan: Plan, file: Path, otherwise: str) -> Iterator[_Token]:
    """`otherwise`: what an unreadable record means for its token."""
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise MigrationError(f"can't read {file}: {error.strerror}") from None
    read = _binary(raw) if raw.startswith(_BINARY) else _text(raw.decode("utf-8", "replace"))
    for token in read:
        if token is None:
            plan.loss(f"a record of {file.name}", f"is not of the known form: {otherwise}")
        else:
            yield token


def _text(text: str) -> Iterator[_Token | None]:
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        record = _RECORD.fullmatch(line.strip())
        try:
            yield record and _Token(
                record["sub"],
                json.loads(f'"{record["label"]}"'),
                int(record["iat"]),
                int(record["exp"]),
                record["revoked"] == "true",
            )
        except ValueError:
            yield None


def _binary(raw: bytes) -> Iterator[_Token | None]:
    """JSON records, each after its length in four bytes."""
    rest = raw[len(_BINARY) :]
    while rest:
        size = int.from_bytes(rest[:4], "little")
        record, rest = rest[4 : 4 + size], rest[4 + size :]
        try:
            data = json.loads(record)
            yield _Token(
                str(data["id"]), str(data["label"]), int(data["issued_at"]), int(data["expires_at"]), data["revoked"]
            )
        except (ValueError, TypeError, KeyError, RecursionError):
            yield None


def _issued(claims: Mapping[str, Any], secret: str) -> str:
    """The token as it was issued: a JWT (HS256) whose claims come in this order, after a prefix."""
    head, body = (_base64(_compact(part)) for part in ({"typ": "JWT", "alg": "HS256"}, claims))
    signature = hmac.digest(secret.encode(), f"{head}.{body}".encode(), hashlib.sha256)
    return f"{PREFIX}{head}.{body}.{_base64(signature)}"


def _compact(data: Mapping[str, Any]) -> bytes:
    return json.dumps(data, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
