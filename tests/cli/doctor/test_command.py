"""`aimux doctor` itself: what it looks at, and how it tells it."""

from __future__ import annotations

import json
import logging
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

from aimux.cli.doctor import examine, setup
from aimux.plugin.loader import Plugin, Plugins
from tests.cli.doctor.support import PLUGINS, answering, login, not_found

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Aimux


def test_a_fresh_machine_lacks_an_account(aimux: Aimux) -> None:
    done = aimux("doctor", "--offline")
    assert done.returncode == 1
    assert "error: accounts: there is none → aimux login PROVIDER, aimux import, or put a login at" in done.stdout
    assert "ok: state_dir:" in done.stdout
    assert done.stderr == ""


def test_json_says_the_same(aimux: Aimux) -> None:
    done = aimux("doctor", "--offline", "--json", AIMUX_LISTEN="127.0.0.1:0")
    findings = json.loads(done.stdout)
    assert done.returncode == 1
    assert [finding["status"] for finding in findings] == ["ok", "ok", "ok", "ok", "error"]
    assert {*findings[-1]} == {"status", "subject", "message", "remedy"}


def test_a_live_look_needs_a_token_where_the_database_has_users(aimux: Aimux) -> None:
    assert "There is no token" not in aimux("doctor", "--live", "--json").stderr
    aimux("users", "add", "ann")
    done = aimux("doctor", "--live", "--json")
    assert (done.returncode, "There is no token: set AIMUX_TOKEN" in done.stderr) == (2, True)


def test_a_wrong_configuration_is_told_whole(aimux: Aimux, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("listen: nowhere\nlog_levle: info\n")
    done = aimux("doctor")
    assert done.returncode == 1
    assert [line.split(": ")[2] for line in done.stdout.splitlines()] == [
        f"{tmp_path}/config.yaml:1",
        f"{tmp_path}/config.yaml:2",
    ]


async def test_an_address_that_notices_would_never_reach_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Apprise:
        def add(self, url: str) -> bool:
            return url.startswith("json:")

    fake = ModuleType("apprise")
    fake.__spec__ = ModuleSpec("apprise", None)
    fake.__dict__["Apprise"] = Apprise
    monkeypatch.setitem(sys.modules, "apprise", fake)
    monkeypatch.setattr(logging.getLogger("apprise"), "disabled", False)
    (tmp_path / "config.yaml").write_text('notices: {apprise: ["json://127.0.0.1:1", "nonsense://secret"]}\n')
    found = await examine(tmp_path / "config.yaml", offline=True)
    (told,) = [finding for finding in found if finding.subject == "notices"]
    assert (told.status, told.message) == ("error", "notices.apprise[1]: is no address that apprise understands")
    assert "secret" not in str(told)


async def test_all_is_well(state_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aimux.plugin.loader.load_plugins", lambda: PLUGINS)
    login(state_dir)
    async with answering(not_found) as origin:
        settings = {"fake": {"base_url": origin, "token_url": f"{origin}/token"}}
        document = {"state_dir": str(state_dir), "listen": "127.0.0.1:0", "providers": settings}
        (tmp_path / "config.json").write_text(json.dumps(document))
        findings = await examine(tmp_path / "config.json", offline=False)
    assert [finding.subject for finding in findings] == [
        "configuration",
        "state_dir",
        "listen 127.0.0.1:0",
        "database",
        "account fake/default",
        f"upstream {origin}",
        "clock",
    ]
    assert {finding.status for finding in findings} == {"ok"}


def test_a_plugin_that_fails() -> None:
    broken = Plugin("odd", "aimux-odd", "2.0", error="ImportError: no module named odd")
    (finding,) = setup.of_plugins(Plugins([*PLUGINS.plugins, broken], PLUGINS.providers))
    assert finding.status == "error"
    assert "aimux-odd 2.0 can't be loaded: ImportError" in finding.message
    assert setup.of_plugins(Plugins([], {}))[0].status == "error"


async def test_a_file_without_the_signers_keys_is_found(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("auth: {jwt: {key_file: away.pem}}\n")
    found = await examine(tmp_path / "config.yaml", offline=True)
    (told,) = [finding for finding in found if finding.subject == "auth"]
    assert told.status == "error"
    assert "auth.jwt.key_file" in told.message
    assert "does not exist" in told.message
