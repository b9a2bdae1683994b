"""ChatGPT's credential files: Codex's auth.json with tokens or an API key, ai-mux's flat form, and a bare key."""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from aimux.plugin import Credential, CredentialError, load_object
from aimux.plugin.oauth import dump_like, header_safe, jwt_claims, lifetime, read_time, write_time

CLAIMS = "https://api.openai.com/auth"
"""The claim that names account, plan and user."""

_STALE = 8 * 86400.0
"""Without an expiry in the token, Codex renews when the last renewal is that long ago."""
_ASSUMED_LIFETIME = 3600.0


@dataclass(frozen=True, slots=True)
class Login:
    """A document, and the object within that holds the tokens: `tokens`, an entry of a map, or the document itself."""

    document: dict[str, Any]
    holder: dict[str, Any]

    @property
    def codex(self) -> bool:
        return self.holder is self.document.get("tokens")

    def text(self, key: str) -> str | None:
        value = self.holder.get(key)
        return value if isinstance(value, str) and value else None


def parse(raw: bytes) -> Credential:
    """Raises CredentialError."""
    bare = raw.strip()
    if bare.startswith(b"sk-"):
        return _of_key(bare.decode("ascii", "replace"))
    document = load_object(raw)
    key = document.get("OPENAI_API_KEY") or document.get("api_key")
    login = _find(document)
    if login is None or (key and document.get("auth_mode") == "apikey"):
        if not isinstance(key, str):
            raise CredentialError(
                'holds no ChatGPT credential; known are Codex\'s auth.json ({"tokens": {"access_token": …}} or '
                '{"OPENAI_API_KEY": …}), {"access_token": …} and {"api_key": …}'
            )
        return _of_key(key)
    access = header_safe(login.holder["access_token"])
    who = _identity(login, access)
    account_id = login.text("account_id") or _text(who, "chatgpt_account_id")
    user_id = _text(who, "chatgpt_user_id") or _text(who, "user_id")
    return Credential(
        kind="oauth",
        secret=access,
        refresh_token=login.text("refresh_token"),
        expires_at=_expiry(login, access),
        account_id=header_safe(account_id) if account_id else None,
        # Members of a workspace share its account id, but have limits of their own.
        organization=f"{account_id}/{user_id}" if account_id and user_id else account_id,
        email=login.text("email") or _text(jwt_claims(login.text("id_token") or ""), "email"),
        plan=_text(who, "chatgpt_plan_type"),
    )


def renewed(raw: bytes, answer: dict[str, Any]) -> bytes:
    """The file with the token endpoint's answer merged in. Each field of that is optional; it has no account id."""
    document = load_object(raw)
    login = _find(document)
    if login is None:
        raise CredentialError("holds no login that can be renewed")
    for key in ("access_token", "refresh_token", "id_token"):
        if isinstance(value := answer.get(key), str) and value:
            login.holder[key] = value
    if login.codex or "last_refresh" in document:
        document["last_refresh"] = _now_as_codex_writes()
    if not login.codex:
        ends = _jwt_expiry(login.holder["access_token"]) or time.time() + lifetime(answer, _ASSUMED_LIFETIME)
        login.holder["expires_at"] = write_time(ends, login.holder.get("expires_at"))
    return dump_like(document, raw)


def from_login(answer: dict[str, Any]) -> bytes:
    """A new file in Codex's own format, from the answer to a code's exchange."""
    tokens = {key: answer.get(key) for key in ("id_token", "access_token", "refresh_token")}
    login = Login({}, tokens)
    tokens["account_id"] = _text(_identity(login, answer["access_token"]), "chatgpt_account_id")
    document = {"OPENAI_API_KEY": None, "tokens": tokens, "last_refresh": _now_as_codex_writes()}
    return json.dumps(document, indent=2).encode()


def is_openai_jwt(token: str) -> bool:
    claims = jwt_claims(token)
    return CLAIMS in claims or "openai.com" in str(claims.get("iss", ""))


def _of_key(key: str) -> Credential:
    return Credential(kind="api_key", secret=header_safe(key))


def _find(document: dict[str, Any]) -> Login | None:
    for holder in (document.get("tokens"), document):
        if isinstance(holder, dict) and isinstance(holder.get("access_token"), str) and holder["access_token"]:
            return Login(document, holder)
    several = [value for value in document.values() if isinstance(value, dict) and value.get("access_token")]
    if len(several) > 1:
        raise CredentialError(f"holds {len(several)} logins; put each into a file of its own (`aimux migrate` does)")
    return Login(document, several[0]) if several and isinstance(several[0]["access_token"], str) else None


def _identity(login: Login, access: str) -> dict[str, Any]:
    """The claims about account and user, from the id token or else the access token."""
    for token in (login.text("id_token"), access):
        who = jwt_claims(token or "").get(CLAIMS)
        if isinstance(who, dict):
            return who
    return {}


def _expiry(login: Login, access: str) -> float | None:
    told = _jwt_expiry(access) or read_time(login.holder.get("expires_at"))
    if told is not None:
        return told
    renewed_at = read_time(login.document.get("last_refresh"))
    return None if renewed_at is None else renewed_at + _STALE


def _jwt_expiry(token: str) -> float | None:
    expiry = jwt_claims(token).get("exp")
    if isinstance(expiry, bool) or not isinstance(expiry, int | float):
        return None
    return float(expiry) if 0 < expiry < 1e11 and math.isfinite(expiry) else None


def _text(holder: dict[str, Any], key: str) -> str | None:
    value = holder.get(key)
    return value if isinstance(value, str) and value else None


def _now_as_codex_writes() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")
