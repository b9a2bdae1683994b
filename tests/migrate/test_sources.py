"""Each gateway that people move from: what its files become, and a request by one of its clients, unchanged."""

from __future__ import annotations

import asyncio
import json
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from aimux.cli.migrate import migrate_command
from aimux.simulator import Simulator, credential_file, provider_settings
from tests.running import PROMPT, serving_file

FIXTURES = Path(__file__).parent / "fixtures"

# Signed with openssl, from the claims in tokens.lino and the secret in router.env.
ROUTER_TOKEN = (
    "la_sk_eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9."
    "eyJzdWIiOiI2ZTJhOWE1Mi02ZjBhLTRhMmMtOWE1NS0wYjZmMGEzZjlkMDEiLCJpYXQiOjE3NjAwMDAwMDAsImV4cCI6NDA3MDkwODgwMCwibGFiZWwi"
    "OiJhbGljZSBcImF0IGhvbWVcIiJ9.vL3V0aIXVKfSM9-rbaT9OEArcO5R8x-MelniVe8R0p0"
)


@dataclass(frozen=True)
class Case:
    """One source: its file, who calls and how, and what must have come along."""

    folder: str
    file: str
    path: str
    """The path of the messages (or responses) API for a client of that gateway."""
    headers: dict[str, str]
    users: set[str]
    accounts: set[str]
    notes: set[str] = field(default_factory=set)
    """What the report must name as left behind."""
    essential: bool = False
    """Whether somebody has to see to one of them: then the exit code says so."""
    secrets: set[str] = field(default_factory=set)
    """Beside the credentials: what must be nowhere but in the state folder."""


CASES = [
    Case(
        "maxmux",
        "config.yaml",
        "/v1/messages",
        {"authorization": "Bearer a-virtual-key-long-enough"},
        {"key-1", "key-2"},
        {"claude/.credentials.json"},
        {"virtual_keys[1]: has 12 characters. It came along as a weak token"},
        secrets={"a-virtual-key-long-enough", "sk-short-key"},
    ),
    Case(
        "ai-mux",
        "config.yaml",
        "/claude/v1/messages",
        {"authorization": "Bearer alices-token-in-ai-mux"},
        {"alice"},
        {"claude/.credentials.json", "chatgpt/auth.json"},
        secrets={"alices-token-in-ai-mux"},
    ),
    Case(
        "claude-proxy",
        "config.yaml",
        "/v1/messages",
        {"x-api-key": "adas-key-in-claude-proxy"},
        {"Ada-Lovelace"},
        {"claude/Team-A-max/.credentials.json", "claude/team-b/.credentials.json"},
        {
            "account   claude/team-b, disabled",
            "admin     whoever has the admin key",
            "oauth.token_url: is gone",
            "account 'empty': holds no token",
            "token 'gone': is revoked",
            "the admin role of token 'Ada Lovelace'",
            "retry: has no counterpart",
            "session: has no counterpart",
            "telegram: has no counterpart",
        },
        secrets={"a-secret-of-telegram", "adas-key-in-claude-proxy", "the-admin-key-of-claude-proxy"},
    ),
    Case(
        "claude-code-mux",
        "config.toml",
        "/v1/messages",
        {"authorization": "Bearer the-key-of-claude-code-mux"},
        {"api-key"},
        {"claude/.credentials.json", "kimi-for-coding/credential.json", "zai/credential.json"},
        {
            "provider 'old': is switched off there",
            "models of provider 'kimi for coding': have no counterpart",
            "oauth_tokens.json: gemini",
            "router.think",
            "router.background",
        },
        secrets={"a-key-of-kimi", "a-key-of-zai", "a-key-of-openrouter", "of-google"},
    ),
    Case(
        "link-router",
        "router.env",
        "/api/latest/anthropic/v1/messages",
        {"authorization": f"Bearer {ROUTER_TOKEN}"},
        set(),
        {"claude/claude/.credentials.json", "claude/second/.credentials.json"},
        {
            "missing: no credential file is there",
            "account   claude/claude, shared with ",
            "whoever has a token that was signed there",
            "ROUTING_MODE: has no counterpart",
        },
        essential=True,
        secrets={"the secret that signs tokens", "the-admin-key-of-the-router", ROUTER_TOKEN},
    ),
    Case(
        "sing-box",
        "config.json",
        "/v1/messages",
        {"authorization": "Bearer ak-ccm-hello-world"},
        {"alice", "bob", "alice-2"},
        {"claude/.credentials.json", "chatgpt/auth.json"},
        {
            "user 'bob' of the claude: has 5 characters",
            "ocm service at :8081: its clients move to :8080 and the prefix /chatgpt",
            "services[2]: is of type 'resolved'",
            "services[0].detour",
            "services[0].usages_path",
            "log: has no counterpart",
        },
        essential=True,
        secrets={"ak-ccm-hello-world", "sk-ocm-hello-world"},
    ),
    Case(
        "cli-proxy-api",
        "config.yaml",
        "/v1/messages",
        {"x-api-key": "a-key-of-a-client-of-the-api"},
        {"key-1"},
        {
            "claude/ada@example.org/.credentials.json",
            "claude/claude-key/.credentials.json",
            "claude-example-org/credential.json",
            "chatgpt/auth.json",
        },
        {
            "gemini-carol@example.org.json: aimux has no provider for 'gemini'",
            "account   chatgpt/default, disabled",
            "clients of claude-example-org: they add /claude-example-org",
            "proxy-url",
            "gemini-api-key",
            "remote-management",
        },
        essential=True,
        secrets={"AIzaSy-of-google", "pass@192.0.2.1", "a-key-for-elsewhere", "of-the-management-api"},
    ),
]


def fill(folder: Path, upstream: Simulator) -> set[str]:
    """Put the simulator's logins into the files. The secrets among them."""
    claude = json.loads(credential_file(upstream.accounts["claude"]))["claudeAiOauth"]
    codex = json.loads(credential_file(upstream.accounts["chatgpt"]))["tokens"]
    expires = claude["expiresAt"] / 1000
    values = {
        "@SETUP_TOKEN@": upstream.accounts["claude-setup"].access_token,
        "@ACCESS@": claude["accessToken"],
        "@REFRESH@": claude["refreshToken"],
        "@EXPIRES_MS@": str(claude["expiresAt"]),
        "@EXPIRES_RFC@": datetime.fromtimestamp(expires, UTC).isoformat().replace("+00:00", "Z"),
        "@CHATGPT_ACCESS@": codex["access_token"],
        "@CHATGPT_REFRESH@": codex["refresh_token"],
        "@CHATGPT_ID@": codex["id_token"],
        "@CHATGPT_ACCOUNT@": codex["account_id"],
        "@CHATGPT_EXPIRES@": str(int(expires)),
    }
    for file in folder.rglob("*"):
        if file.is_file():
            text = file.read_text()
            for placeholder, value in values.items():
                text = text.replace(placeholder, value)
            file.write_text(text)
            file.chmod(0o600)
    return {value for name, value in values.items() if "EXPIRES" not in name and "ACCOUNT" not in name}


def snapshot(folder: Path) -> dict[str, tuple[bytes, int, float]]:
    return {
        str(path): (path.read_bytes(), path.stat().st_mode, path.stat().st_mtime)
        for path in folder.rglob("*")
        if path.is_file()
    }


def migrate(*args: str | Path) -> Result:
    return CliRunner().invoke(migrate_command, [str(arg) for arg in args])


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """A copy of a fixture, and a home without any logins."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for variable in ("CLAUDE_CONFIG_DIR", "CLAUDE_SECURESTORAGE_CONFIG_DIR", "CODEX_HOME"):
        monkeypatch.delenv(variable, raising=False)

    def copy(name: str) -> Path:
        return Path(shutil.copytree(FIXTURES / name, tmp_path / name))

    return copy


@pytest.mark.parametrize("case", CASES, ids=[case.folder for case in CASES])
async def test_moving_in(case: Case, fresh: Callable[[str], Path], tmp_path: Path) -> None:
    async with Simulator() as upstream:
        await asyncio.to_thread(moved, case, upstream, fresh(case.folder), tmp_path)


def moved(case: Case, upstream: Simulator, folder: Path, tmp_path: Path) -> None:
    secrets = fill(folder, upstream) | case.secrets
    before = snapshot(folder)
    output, state = tmp_path / "aimux.yaml", tmp_path / "state"

    tried = migrate(folder / case.file, "--output", output, "--state-dir", state, "--dry-run")
    assert tried.exit_code == case.essential, tried.output
    assert not output.exists()
    assert not state.exists()

    done = migrate(folder / case.file, "--output", output, "--state-dir", state)
    assert done.exit_code == case.essential, done.output
    assert snapshot(folder) == before

    config = yaml.safe_load(output.read_text())
    assert output.stat().st_mode & 0o777 == 0o600
    assert {user["name"] for user in config.get("users", [])} == case.users
    stored = {str(path.relative_to(state)): path for path in state.rglob("*/*.json")}
    assert set(stored) == case.accounts
    assert {path.stat().st_mode & 0o777 for path in stored.values()} == {0o600}
    for note in case.notes:
        assert note in done.output
    for secret in secrets:
        assert secret not in done.output
        assert secret not in output.read_text()

    again = migrate(folder / case.file, "--output", output, "--state-dir", state)
    assert again.exit_code == 1
    assert "nothing is overwritten" in again.output

    served(case, upstream, output, tmp_path)


def served(case: Case, upstream: Simulator, config: Path, folder: Path) -> None:
    """One of that gateway's clients sends what it always sent, to aimux with the migrated configuration."""
    environ = {"AIMUX_LISTEN": "127.0.0.1:0", "AIMUX_TLS__ENABLED": "false", "OPENAI_API_KEY": "sk-of-the-environment"}
    for provider, settings in provider_settings(upstream.url).items():
        if any(account.startswith(f"{provider}/") for account in case.accounts):
            environ |= {f"AIMUX_PROVIDERS__{provider}__{name}".upper(): value for name, value in settings.items()}
    headers = {**case.headers, "content-type": "application/json", "anthropic-version": "2023-06-01"}
    with serving_file(config, folder, environ) as address:
        request = urllib.request.Request(address + case.path, json.dumps(PROMPT).encode(), headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert json.load(answer)["content"][0]["type"] == "text"
        stranger = urllib.request.Request(address + case.path, b"{}", {"authorization": "Bearer nobodys-token-at-all"})
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(stranger, timeout=30)
        assert refused.value.code == 401
        refused.value.close()
