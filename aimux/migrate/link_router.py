"""Link.Assistant.Router: its environment, the Claude homes that it names, and the tokens that it issued."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aimux.migrate.credentials import as_it_is
from aimux.migrate.plan import Fields, Plan, address, clean

if TYPE_CHECKING:
    from collections.abc import Mapping

NAME = "link-assistant-router"
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


def recognise(data: Mapping[str, Any]) -> bool:
    return len(_NAMES & set(data)) >= 2


def read(fields: Fields, path: Path) -> Plan:
    plan = Plan(NAME)
    fields.forget(but=_NAMES | _OTHERS)
    plan.config["listen"] = address(fields.text("ROUTER_HOST"), fields.text("ROUTER_PORT") or "8080")
    plan.config["mounts"] = {"/api/latest/anthropic": "claude", "/": "claude", "/claude": "claude"}
    if (upstream := fields.text("UPSTREAM_BASE_URL").rstrip("/")) not in {"", "https://api.anthropic.com"}:
        plan.config["providers"] = {"claude": {"base_url": upstream}}
    if fields.text("VERBOSE").lower() in {"1", "true", "yes"}:
        plan.config["log_level"] = "debug"
    home = path.parent / Path(fields.text("CLAUDE_CODE_HOME") or "~/.claude").expanduser()
    extra = [part.strip() for part in fields.text("ADDITIONAL_ACCOUNT_DIRS").split(",") if part.strip()]
    for folder in [home, *(path.parent / Path(part).expanduser() for part in extra)]:
        _account(plan, folder)
    data = path.parent / Path(fields.text("DATA_DIR") or home / "router-data").expanduser()
    _tokens(plan, fields.text("TOKEN_SECRET"), data / "tokens.lino")
    if fields.text("TOKEN_ADMIN_KEY"):
        plan.note("TOKEN_ADMIN_KEY", "opens the API that issues tokens; here `admin` of the configuration does")
    return plan


def _account(plan: Plan, folder: Path) -> None:
    file = next((folder / name for name in _FILES if (folder / name).is_file()), None)
    if file is None:
        plan.note(f"the account in {folder}", "no credential file is there")
        return
    plan.add_account("claude", clean(folder.name, "account"), as_it_is(file), origin=str(file))


def _tokens(plan: Plan, secret: str, file: Path) -> None:
    """The tokens are not stored, but they are their claims, signed: with the secret they can be made again."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError:
        plan.note("the issued tokens", f"{file} can't be read: give their owners new ones")
        return
    for line in lines:
        if not line.strip() or line.startswith("#"):
            continue
        record = _RECORD.fullmatch(line.strip())
        if record is None:
            plan.note(f"a record of {file.name}", "is not of the known form")
            continue
        label = json.loads(f'"{record["label"]}"')
        who = f"token {label or record['sub']!r}"
        expires = int(record["exp"])
        if record["revoked"] == "true" or expires <= time.time():
            plan.note(who, "is revoked or expired and was left out")
        elif not secret:
            plan.note(who, "can't be carried over without TOKEN_SECRET: give its owner a new one")
        else:
            claims = {"sub": record["sub"], "iat": int(record["iat"]), "exp": expires, "label": label}
            plan.add_user(label or record["sub"], _issued(claims, secret), where=who)
            plan.note(who, f"would expire on {time.strftime('%Y-%m-%d', time.gmtime(expires))}; aimux's do not")


def _issued(claims: Mapping[str, Any], secret: str) -> str:
    """The token as it was issued: a JWT (HS256) whose claims come in this order, after a prefix."""
    head, body = (_base64(_compact(part)) for part in ({"typ": "JWT", "alg": "HS256"}, claims))
    signature = hmac.digest(secret.encode(), f"{head}.{body}".encode(), hashlib.sha256)
    return f"la_sk_{head}.{body}.{_base64(signature)}"


def _compact(data: Mapping[str, Any]) -> bytes:
    return json.dumps(data, separators=(",", ":"), ensure_ascii=False).encode()


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
