"""What a gateway needs to use the simulator as its upstream: provider settings and credentials."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aimux.simulator.accounts import Account
    from aimux.simulator.server import Simulator


@dataclass(frozen=True, slots=True)
class DemoFiles:
    """`settings`: provider name → its settings, all of which point to the simulator. `credentials`: provider name →
    content of the credential file of its OAuth account. `api_keys`: provider name → an API key."""

    settings: Mapping[str, Mapping[str, str]]
    credentials: Mapping[str, bytes] = field(repr=False)
    api_keys: Mapping[str, str] = field(repr=False)


def demo_files(sim: Simulator) -> DemoFiles:
    """For the simulator's own accounts, as they stand now. Call it after `start`, when the port is known."""
    keys = {"claude": sim.accounts["claude-key"].api_key, "chatgpt": sim.accounts["openai-key"].api_key}
    return DemoFiles(
        settings=provider_settings(sim.url),
        credentials={name: credential_file(sim.accounts[name]) for name in ("claude", "chatgpt")},
        api_keys={name: key for name, key in keys.items() if key},
    )


def provider_settings(url: str) -> dict[str, dict[str, str]]:
    """The settings of the providers `claude` and `chatgpt` for a simulator at `url`."""
    claude, chatgpt = f"{url}/oauth/anthropic", f"{url}/oauth/openai"
    return {
        "claude": {
            "base_url": f"{url}/anthropic",
            "authorize_url": f"{claude}/cai/oauth/authorize",
            "token_url": f"{claude}/v1/oauth/token",
            "redirect_url": f"{claude}/oauth/code/callback",
        },
        "chatgpt": {
            "base_url": f"{url}/chatgpt/backend-api/codex",
            "api_base_url": f"{url}/openai",
            "issuer": chatgpt,
            "authorize_url": f"{chatgpt}/oauth/authorize",
            "token_url": f"{chatgpt}/oauth/token",
        },
    }


def credential_file(account: Account) -> bytes:
    """An OAuth account's newest login, as the vendor's own client would have saved it."""
    content = _claude(account) if account.vendor == "anthropic" else _chatgpt(account)
    return json.dumps(content, indent=2).encode()


def _claude(account: Account) -> dict[str, object]:
    login: dict[str, object] = {
        "accessToken": account.access_token,
        "refreshToken": account.refresh_token,
        "expiresAt": round(account.expires_at * 1000),
        "scopes": account.family.scope.split(),
        "subscriptionType": account.plan,
        "rateLimitTier": "default_claude_max_5x",
        "accountUuid": account.account_id,
        "organizationUuid": account.organization,
    }
    return {"claudeAiOauth": login}


def _chatgpt(account: Account) -> dict[str, object]:
    from aimux.simulator.tokens import id_claims, jwt  # nothing else here needs them

    now = datetime.now(UTC)
    tokens = {
        "id_token": jwt(id_claims(account.family, now.timestamp(), account.user_id)),
        "access_token": account.access_token,
        "refresh_token": account.refresh_token,
        "account_id": account.account_id,
    }
    saved = now.isoformat(timespec="microseconds").replace("+00:00", "Z")
    return {"auth_mode": "chatgpt", "OPENAI_API_KEY": None, "tokens": tokens, "last_refresh": saved}
