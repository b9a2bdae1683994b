"""Claude's credential files: where the tokens lie in each format, and how new ones are merged in.

Formats: Claude Code's `{"claudeAiOauth": {…}}`, flat objects in either spelling, the `{provider: {…}}` map of
claude-code-mux if it names one login, aimux's `{"api_key": …}`, and a file that holds a token and nothing else.
Files that are visibly another vendor's are refused: many have the form of a flat object with an access token.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from aimux.plugin import Credential, CredentialError, credential_text, load_object
from aimux.plugin.oauth import dump_like, header_safe, jwt_claims, lifetime, read_time, write_time

SETUP_TOKEN = "sk-ant-oat01-"  # noqa: S105 - how such tokens begin
API_KEY = "sk-ant-api"

_ACCESS = ("accessToken", "access_token", "oauthToken", "oauth_token")
_REFRESH = ("refreshToken", "refresh_token")
_EXPIRES = ("expiresAt", "expires_at", "expired")
_LOGIN_ENDS = "refreshTokenExpiresAt"
"""About a month after the login. The vendor says it then, and no renewal moves it (realiti4/claude-swap#347)."""
_OPENAI_KEYS = ("sk-proj-", "sk-svcacct-", "sk-admin-")
_CODEX_FIELDS = frozenset({"OPENAI_API_KEY", "auth_mode"})
_OWN_TYPES = ("claude", "anthropic", "oauth")
"""`type` in the files of programs that keep several vendors' logins side by side."""
_ASSUMED_LIFETIME = 3600.0


@dataclass(frozen=True, slots=True)
class ClaudeTokens:
    """A document, and the object within that holds the tokens (often the document itself)."""

    document: dict[str, Any]
    holder: dict[str, Any]
    access: str
    """The access token's key; other keys follow its spelling if the holder has none of them."""

    def key(self, spellings: tuple[str, ...]) -> str:
        for spelling in spellings:
            if spelling in self.holder:
                return spelling
        return spellings["_" in self.access]

    def text(self, *keys: str) -> str | None:
        for key in keys:
            value = self.holder.get(key)
            if isinstance(value, str) and (text := value.strip()):
                return text
        return None


def parse(raw: bytes) -> Credential:
    """Raises CredentialError."""
    text = credential_text(raw)
    if text.startswith("sk-"):
        return _of_token(text)
    document = load_object(raw)
    tokens = _find(document)
    if tokens is None:
        key = document.get("api_key")
        if not isinstance(key, str):
            if "mcpOAuth" in document:
                raise CredentialError("holds logins of MCP servers only, none of Claude; log in with Claude Code")
            raise CredentialError(
                'holds no Claude credential; known are Claude Code\'s {"claudeAiOauth": {"accessToken": …}}, '
                '{"access_token": …} and {"api_key": …}'
            )
        return _of_token(key)
    token = header_safe(tokens.holder[tokens.access])
    if token.startswith(API_KEY):
        return _of_token(token)
    if not _says_claude(document) and (claims := jwt_claims(token)) and not _by_anthropic(claims):
        raise CredentialError("holds a JWT that Anthropic has not issued: it is another vendor's login")
    refresh_token, ends = tokens.text(*_REFRESH), read_time(tokens.holder.get(tokens.key(_EXPIRES)))
    if refresh_token is None and ends is not None and ends <= 0:
        ends = None  # some programs write that for a setup token, whose end they don't know
    return Credential(
        kind="oauth",
        secret=token,
        refresh_token=refresh_token,
        expires_at=ends,
        account_id=tokens.text("accountUuid", "account_uuid", "account_id"),
        organization=_limits_owner(tokens),
        email=tokens.text("emailAddress", "email"),
        plan=tokens.text("subscriptionType", "subscription_type"),
        scopes=_scopes(tokens),
        login_ends_at=_login_ends_at(tokens) if refresh_token is not None else None,
    )


def renewed(raw: bytes, answer: dict[str, Any]) -> bytes:
    """The file with the token endpoint's answer merged in: what the answer doesn't name stays."""
    document = load_object(raw)
    tokens = _find(document)
    if tokens is None:
        raise CredentialError("holds no login that can be renewed")
    holder = tokens.holder
    _store(holder, tokens.access, answer.get("access_token"))
    _store(holder, tokens.key(_REFRESH), answer.get("refresh_token"))
    expires = tokens.key(_EXPIRES)
    notation = holder.get(expires) if read_time(holder.get(expires)) is not None else _notation(expires)
    holder[expires] = write_time(time.time() + lifetime(answer, _ASSUMED_LIFETIME), notation)
    left = lifetime({"expires_in": answer.get("refresh_token_expires_in")}, 0)
    if left and _LOGIN_ENDS in holder:  # Claude Code reads it: nothing said must not end its login, or prolong it
        ends = time.time() + left
        holder[_LOGIN_ENDS] = write_time(min(ends, _login_ends_at(tokens) or ends), holder[_LOGIN_ENDS])
    granted = answer.get("scope")
    # Claude Code takes its login for none without them, and may have left them out itself at its last renewal.
    known = isinstance(holder.get("scopes"), list) or (holder is document.get("claudeAiOauth"))
    if known and isinstance(granted, str) and (scopes := granted.split()):
        holder["scopes"] = scopes
    _owner(tokens, answer)
    fresh = dump_like(document, raw)
    try:
        parse(fresh)
    except CredentialError:  # it was recognized by the form of its token, which vendors may change
        fresh = dump_like({**document, "type": "claude"}, raw)
    return fresh


def from_login(answer: dict[str, Any], scopes: tuple[str, ...]) -> bytes:
    """A new file in Claude Code's own format, from the answer to a code's exchange."""
    granted = answer.get("scope")
    holder: dict[str, Any] = {
        "accessToken": answer["access_token"],
        "refreshToken": answer.get("refresh_token"),
        "expiresAt": write_time(time.time() + lifetime(answer, _ASSUMED_LIFETIME), _notation("expiresAt")),
        "scopes": granted.split() if isinstance(granted, str) else list(scopes),
    }
    if left := lifetime({"expires_in": answer.get("refresh_token_expires_in")}, 0):
        holder[_LOGIN_ENDS] = write_time(time.time() + left, _notation("expiresAt"))
    document = {"claudeAiOauth": holder}
    _owner(ClaudeTokens(document, holder, "accessToken"), answer)
    return json.dumps(document, indent=2).encode()


def from_setup_token(token: str) -> bytes:
    """A long-lived token. When it ends isn't known (after about a year), so nothing is claimed."""
    return json.dumps({"claudeAiOauth": {"accessToken": token, "scopes": ["user:inference"]}}, indent=2).encode()


def brought_along(token: str) -> Credential:
    """The credential that a client sent itself. Raises CredentialError if it is visibly another vendor's."""
    if token.count(".") == 2:
        raise CredentialError("is a JWT, which Anthropic's tokens are not: it is another vendor's login")
    return _of_token(token)


def _of_token(token: str) -> Credential:
    token = header_safe(token)
    if token.startswith(_OPENAI_KEYS):
        raise CredentialError("holds an OpenAI API key; Anthropic's begin with sk-ant-")
    if token.startswith(SETUP_TOKEN):
        return Credential(kind="oauth", secret=token, scopes=("user:inference",))
    return Credential(kind="api_key", secret=token)


def _find(document: dict[str, Any]) -> ClaudeTokens | None:
    """Where the login is. Raises CredentialError if there are several and none is Claude Code's own."""
    own = document.get("claudeAiOauth")
    if isinstance(own, dict):
        if access := _access(own):
            return ClaudeTokens(document, own, access)
        raise CredentialError("`claudeAiOauth` holds no access token; log in again")
    if _CODEX_FIELDS & document.keys() or document.get("type", "claude") not in _OWN_TYPES:
        raise CredentialError("holds another vendor's login, in a form of its own")
    if access := _access(document):
        return ClaudeTokens(document, document, access)
    several = {name: value for name, value in document.items() if isinstance(value, dict) and _access(value)}
    if len(several) > 1:
        raise CredentialError(f"holds {len(several)} logins; put each into a file of its own (`aimux migrate` does)")
    for name, holder in several.items():
        access = _access(holder) or ""
        known = "claude" in name.lower() or "anthropic" in name.lower() or holder[access].startswith("sk-ant-")
        if not known and not _says_claude(document):
            raise CredentialError(f"holds a login under the name {name[:40]!r}, which need not be Claude's")
        return ClaudeTokens(document, holder, access)
    return None


def _says_claude(document: dict[str, Any]) -> bool:
    """Whether it says itself whose login it is, so that the tokens need not show it."""
    return "claudeAiOauth" in document or document.get("type") == "claude"


def _by_anthropic(claims: dict[str, Any]) -> bool:
    try:
        issuer = urlsplit(str(claims.get("iss", ""))).hostname or ""
    except ValueError:
        return False
    return f".{issuer}".endswith((".anthropic.com", ".claude.ai", ".claude.com"))


def _access(holder: dict[str, Any]) -> str | None:
    for key in _ACCESS:
        if isinstance(holder.get(key), str) and holder[key]:
            return key
    return None


def _limits_owner(tokens: ClaudeTokens) -> str | None:
    """The owner of the limits: the organization, or on a plan with seats a member of it."""
    organization = tokens.text("organizationUuid", "organization_uuid")
    member = tokens.text("accountUuid", "account_uuid", "account_id")
    seats = tokens.text("subscriptionType", "subscription_type") in {"team", "enterprise"}
    return f"{organization}/{member}" if organization and member and seats else organization


def _login_ends_at(tokens: ClaudeTokens) -> float | None:
    ends = read_time(tokens.holder.get(_LOGIN_ENDS))
    return ends if ends is not None and ends > 0 else None


def _scopes(tokens: ClaudeTokens) -> tuple[str, ...]:
    scopes = tokens.holder.get("scopes", tokens.holder.get("scope"))
    if isinstance(scopes, str):
        return tuple(scopes.split())
    return tuple(scope for scope in scopes if isinstance(scope, str)) if isinstance(scopes, list) else ()


def _notation(key: str) -> object:
    """How a time is written if the file has none yet: milliseconds as in Claude Code, or RFC 3339."""
    return time.time() * 1000 if key == "expiresAt" else None


def _store(holder: dict[str, Any], key: str, value: object) -> None:
    if isinstance(value, str) and value:
        holder[key] = value


def _owner(tokens: ClaudeTokens, answer: dict[str, Any]) -> None:
    """The person whom the login belongs to."""
    account, organization = answer.get("account"), answer.get("organization")
    if isinstance(account, dict):
        _store(tokens.holder, tokens.key(("accountUuid", "account_uuid")), account.get("uuid"))
        _store(tokens.holder, tokens.key(("emailAddress", "email")), account.get("email_address"))
    if isinstance(organization, dict):
        _store(tokens.holder, tokens.key(("organizationUuid", "organization_uuid")), organization.get("uuid"))
