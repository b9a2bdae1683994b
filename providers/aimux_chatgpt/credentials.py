"""ChatGPT's credential files: Codex's auth.json with tokens or an API key, ai-mux's flat form, and a bare key.

Files that are visibly another vendor's are refused: many have the form of a flat object with an access token.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from aimux.plugin import Credential, CredentialError, credential_text, load_object
from aimux.plugin.oauth import dump_like, header_safe, jwt_claims, lifetime, read_time, write_time

CLAIMS = "https://api.openai.com/auth"
"""The claim that names account, plan and user."""
_PROFILE = "https://api.openai.com/profile"
"""The access token's claim about the person. An id token has the address at its top."""

_STALE = 8 * 86400.0
"""Without an expiry in the token, Codex renews when the last renewal was this long ago."""
_ASSUMED_LIFETIME = 3600.0
_TOKEN_MODES = ("chatgpt", "chatgptAuthTokens")
"""Values of `auth_mode` that mean `tokens`. Without any, Codex takes the API key if there is one."""
_NOT_OURS = {
    "personal_access_token": "a personal access token",
    "agent_identity": "an agent's identity",
    "bedrock_api_key": "a key for Amazon Bedrock",
}
_OWN_TYPES = ("codex", "openai", "chatgpt", "oauth")
"""`type` in the files of programs that keep several vendors' logins side by side."""


@dataclass(frozen=True, slots=True)
class ChatGPTTokens:
    """A document, and the object within that holds the tokens: `tokens`, an entry of a map, or the document itself."""

    document: dict[str, Any]
    holder: dict[str, Any]

    @property
    def codex(self) -> bool:
        return self.holder is self.document.get("tokens")

    def text(self, key: str) -> str | None:
        value = self.holder.get(key)
        return (value.strip() or None) if isinstance(value, str) else None


def parse(raw: bytes) -> Credential:
    """Raises CredentialError."""
    text = credential_text(raw)
    if text.startswith("sk-"):
        return _of_key(text)
    document = load_object(raw)
    key = document.get("OPENAI_API_KEY") or document.get("api_key")
    tokens = _find(document)
    if isinstance(key, str) and (tokens is None or document.get("auth_mode") not in _TOKEN_MODES):
        return _of_key(key)
    if tokens is None:
        for field, what in _NOT_OURS.items():
            if document.get(field):
                raise CredentialError(f"holds {what}, which aimux can't use; log in with `codex login`")
        raise CredentialError(
            'holds no ChatGPT credential; known are Codex\'s auth.json ({"tokens": {"access_token": …}} or '
            '{"OPENAI_API_KEY": …}), {"access_token": …} and {"api_key": …}'
        )
    access = _not_anthropics(header_safe(tokens.holder["access_token"]))
    who = _identity(tokens, access)
    account_id = tokens.text("account_id") or _text(who, "chatgpt_account_id")
    user_id = _text(who, "chatgpt_user_id") or _text(who, "user_id")
    return Credential(
        kind="oauth",
        secret=access,
        refresh_token=tokens.text("refresh_token"),
        expires_at=_expiry(tokens, access),
        account_id=header_safe(account_id) if account_id else None,
        # Members of a workspace share its account id, but have limits of their own.
        organization=f"{account_id}/{user_id}" if account_id and user_id else account_id,
        email=tokens.text("email") or _email(tokens, access),
        plan=_text(who, "chatgpt_plan_type"),
    )


def renewed(raw: bytes, answer: dict[str, Any]) -> bytes:
    """The file with the token endpoint's answer merged in. Each field of the answer is optional; it has no account
    id."""
    document = load_object(raw)
    tokens = _find(document)
    if tokens is None:
        raise CredentialError("holds no login that can be renewed")
    for key in ("access_token", "refresh_token", "id_token"):
        if isinstance(value := answer.get(key), str) and value:
            tokens.holder[key] = value
    if tokens.codex or "last_refresh" in document:
        document["last_refresh"] = _now_as_codex_writes()
    if not tokens.codex:
        ends = _jwt_expiry(tokens.holder["access_token"]) or time.time() + lifetime(answer, _ASSUMED_LIFETIME)
        tokens.holder["expires_at"] = write_time(ends, tokens.holder.get("expires_at"))
    return dump_like(document, raw)


def from_login(answer: dict[str, Any]) -> bytes:
    """A new file in Codex's own format, from the answer to a code's exchange."""
    tokens = {key: answer.get(key) for key in ("id_token", "access_token", "refresh_token")}
    who = _identity(ChatGPTTokens({}, tokens), answer["access_token"])
    tokens["account_id"] = _text(who, "chatgpt_account_id")
    document = {"OPENAI_API_KEY": None, "tokens": tokens, "last_refresh": _now_as_codex_writes()}
    return json.dumps(document, indent=2).encode()


def is_openai_jwt(token: str) -> bool:
    claims = jwt_claims(token)
    return CLAIMS in claims or "openai.com" in str(claims.get("iss", ""))


def brought_along(token: str, account_id: str | None) -> Credential:
    """The credential that a client sent itself. Raises CredentialError if it is visibly another vendor's."""
    if is_openai_jwt(token):
        return Credential(kind="oauth", secret=token, account_id=account_id)
    return Credential(kind="api_key", secret=_not_anthropics(token))


def _of_key(key: str) -> Credential:
    return Credential(kind="api_key", secret=_not_anthropics(header_safe(key)))


def _not_anthropics(token: str) -> str:
    if token.startswith("sk-ant-"):
        raise CredentialError("holds a token of Anthropic's, not of OpenAI's")
    return token


def _find(document: dict[str, Any]) -> ChatGPTTokens | None:
    if "claudeAiOauth" in document or document.get("type", "codex") not in _OWN_TYPES:
        raise CredentialError("holds another vendor's login, in a form of its own")
    for holder in (document.get("tokens"), document):
        if isinstance(holder, dict) and _token(holder):
            return ChatGPTTokens(document, holder)
    several = {name: value for name, value in document.items() if isinstance(value, dict) and _token(value)}
    if len(several) > 1:
        raise CredentialError(f"holds {len(several)} logins; put each into a file of its own (`aimux migrate` does)")
    for name, holder in several.items():
        told = any(word in name.lower() for word in ("openai", "chatgpt", "codex"))
        if not (told or is_openai_jwt(_token(holder))):
            raise CredentialError(f"holds a login under the name {name[:40]!r}, which need not be ChatGPT's")
        return ChatGPTTokens(document, holder)
    return None


def _token(holder: dict[str, Any]) -> str:
    value = holder.get("access_token")
    return value if isinstance(value, str) else ""


def _identity(tokens: ChatGPTTokens, access: str) -> dict[str, Any]:
    """The claims about account and user, from the id token or else the access token."""
    for token in (tokens.text("id_token"), access):
        who = jwt_claims(token or "").get(CLAIMS)
        if isinstance(who, dict):
            return who
    return {}


def _email(tokens: ChatGPTTokens, access: str) -> str | None:
    profile = jwt_claims(access).get(_PROFILE)
    told = _text(jwt_claims(tokens.text("id_token") or ""), "email")
    return told or (_text(profile, "email") if isinstance(profile, dict) else None)


def _expiry(tokens: ChatGPTTokens, access: str) -> float | None:
    told = _jwt_expiry(access) or read_time(tokens.holder.get("expires_at"))
    if told is not None:
        return told
    renewed_at = read_time(tokens.document.get("last_refresh"))
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
