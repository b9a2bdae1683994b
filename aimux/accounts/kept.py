"""Logins that other programs keep side by side in one file, taken apart.

opencode's auth.json, an export of sub2api, a list of files such as CLIProxyAPI's, or one of those. Each becomes a flat
object whose `type` is what that program calls the vendor: by that, providers know their own.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aimux.plugin import CredentialError, credential_text

if TYPE_CHECKING:
    from collections.abc import Iterable

_TOKENS = ("access_token", "refresh_token", "api_key")


@dataclass(frozen=True, slots=True)
class KeptLogin:
    """`where` it is in the file, for people. `base_url` is the server that a key is for, "" if that is not said."""

    where: str
    raw: bytes = field(repr=False)
    base_url: str = ""
    off: bool = False
    """It is switched off there."""


def kept_logins(raw: bytes) -> list[KeptLogin]:
    """The logins in a file, whoever's they are; none if it is no such file."""
    try:
        document = json.loads(credential_text(raw))
    except (CredentialError, ValueError, RecursionError):
        return []
    if isinstance(document, dict) and isinstance(document.get("data"), dict):
        document = document["data"]  # an answer of sub2api's API
    entries: Iterable[tuple[str, object]]
    if isinstance(document, list):
        entries = ((f"[{number}]", entry) for number, entry in enumerate(document))
    elif not isinstance(document, dict):
        entries = ()
    elif isinstance(document.get("accounts"), list):
        entries = ((f"accounts[{number}]", entry) for number, entry in enumerate(document["accounts"]))
    elif one := _one("", document):
        return [one]
    else:
        entries = document.items()
    return [login for where, entry in entries if (login := _one(where, entry)) is not None]


def _one(where: str, entry: object) -> KeptLogin | None:
    if not isinstance(entry, dict):
        return None
    kind, credentials = entry.get("type"), entry.get("credentials")
    if isinstance(entry.get("platform"), str) and isinstance(credentials, dict):
        name = str(entry.get("name") or "")
        told = f"{where} {name!r}".strip() if name else where
        base_url = credentials.get("base_url")
        document = _of_sub2api(entry["platform"], name, credentials, entry.get("extra"))
        return KeptLogin(told, document, base_url if isinstance(base_url, str) else "")
    if kind == "oauth" and {"access", "refresh"} & entry.keys():
        tokens = {"access_token": entry.get("access"), "refresh_token": entry.get("refresh")}
        more = {"expires_at": entry.get("expires"), "account_id": entry.get("accountId")}
        return KeptLogin(where, _flat(where, tokens | more))
    if kind == "api" and "key" in entry:
        base_url = entry.get("baseURL")
        return KeptLogin(where, _flat(where, {"api_key": entry["key"]}), base_url if isinstance(base_url, str) else "")
    if isinstance(kind, str) and any(entry.get(token) for token in (*_TOKENS, "token")):
        return KeptLogin(where, json.dumps(entry, indent=2).encode(), off=entry.get("disabled") is True)
    return None


def _of_sub2api(platform: str, name: str, credentials: dict[str, Any], extra: object) -> bytes:
    about = credentials | (extra if isinstance(extra, dict) else {})
    tokens = {key: credentials.get(key) for key in (*_TOKENS, "id_token", "expires_at", "scope")}
    owner = {
        "account_id": about.get("chatgpt_account_id") or about.get("account_uuid"),
        "organization_uuid": about.get("org_uuid"),
        "email": about.get("email") or about.get("email_address") or (name if "@" in name else None),
    }
    return _flat(platform, tokens | owner)


def _flat(vendor: str, fields: dict[str, Any]) -> bytes:
    said = {key: value for key, value in fields.items() if value not in (None, "", 0)}
    return json.dumps({"type": vendor} | said, indent=2).encode()
