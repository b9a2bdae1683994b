"""The credentials, and how long they will do."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from aimux.accounts import ControlHttp
from aimux.cli.doctor import accounts
from aimux.cli.doctor.finding import Finding
from aimux.config import parse_config, provider_instances

if TYPE_CHECKING:
    from pathlib import Path

from tests.cli.doctor.support import PLUGINS, SECRET, config_of, login


async def look_at_accounts(state_dir: Path, **fields: Any) -> list[Finding]:
    config = config_of(state_dir, **fields)
    providers = provider_instances(config, PLUGINS.providers)
    found, _ = await accounts.of_accounts(config, providers, ControlHttp())
    assert not any(SECRET[9:] in str(finding) for finding in found)
    return found


@pytest.mark.parametrize(
    ("fields", "status", "message"),
    [
        ({}, "ok", "oauth; does not expire"),
        ({"plan": "max", "expires_in": 7300, "refresh_token": "r"}, "ok", "oauth, max; expires in 2 hours, aimux"),
        ({"expires_in": -7300, "refresh_token": "r"}, "ok", "expired 2 hours ago, aimux renews it"),
        ({"expires_in": 30 * 86400 + 60}, "ok", "expires in 30 days and can't be renewed"),
        ({"expires_in": 3 * 86400 + 60}, "warning", "expires in 3 days and can't be renewed"),
        ({"expires_in": -86400 * 3}, "error", "parked: its credential expired on 2"),
    ],
)
async def test_credentials_and_their_end(state_dir: Path, fields: dict[str, Any], status: str, message: str) -> None:
    if "expires_in" in fields:
        fields = {name: value for name, value in fields.items() if name != "expires_in"} | {
            "expires_at": time.time() + fields["expires_in"]
        }
    login(state_dir, **fields)
    (finding,) = await look_at_accounts(state_dir)
    assert (finding.status, finding.subject) == (status, "account fake/default")
    assert message in finding.message


async def test_a_credential_that_is_no_credential(state_dir: Path) -> None:
    login(state_dir, "team").write_text(f'{{"secret": "{SECRET}", ')
    (finding,) = await look_at_accounts(state_dir)
    assert (finding.status, finding.subject) == ("error", "account fake/team")
    assert "JSON" in finding.message


async def test_a_credential_that_others_could_read(state_dir: Path) -> None:
    file = login(state_dir, mode=0o644)
    account, told = await look_at_accounts(state_dir)
    assert account.status == "ok"
    assert (told.status, told.message) == ("warning", f"{file} could be read by others; it is 0600 now")


async def test_an_account_that_is_switched_off(state_dir: Path) -> None:
    login(state_dir)
    saved = {"version": 1, "accounts": {"fake": {"default": {"disabled": True}}}}
    (state_dir / "accounts.json").write_text(json.dumps(saved))
    (finding,) = await look_at_accounts(state_dir)
    assert finding.status == "warning"
    assert "disabled" in finding.message


async def test_no_account(state_dir: Path) -> None:
    (finding,) = await look_at_accounts(state_dir)
    assert finding.status == "error"
    assert finding.remedy == (
        f"aimux login fake, or put a login at {state_dir}/fake/credential.json, or set providers.fake.api_key"
    )
    config = parse_config({"state_dir": str(state_dir)}, environ={}, providers=PLUGINS.providers)
    found, used = await accounts.of_accounts(config, provider_instances(config, PLUGINS.providers), ControlHttp())
    assert [finding.status for finding in found] == ["error"]
    assert used == []


async def test_looking_changes_nothing(state_dir: Path) -> None:
    login(state_dir, expires_at=1.0, refresh_token="r")
    before = {path: path.stat().st_mtime_ns for path in state_dir.rglob("*")}
    await look_at_accounts(state_dir)
    assert {path: path.stat().st_mtime_ns for path in state_dir.rglob("*")} == before
