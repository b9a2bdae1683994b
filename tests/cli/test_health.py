"""`aimux health`: what a container's health check runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from aimux.cli.demo import RunningDemo
from aimux.cli.health import health_command
from tests.cli.accounts.conftest import commands
from tests.control.live import running
from tests.running import free_port

USERS = [{"name": "ann", "token": "a-users-own-token-1"}]


@pytest.mark.parametrize(
    "settings",
    [
        {"listen": "127.0.0.1:{port}"},
        {"listen": ":{port}", "users": USERS},
        {"listen": "127.0.0.1:{port}", "tls": {"enabled": True, "self_signed": True}},
        {"listen": "unix:{folder}/aimux.sock"},
        {"listen": "127.0.0.1:{port}", "compatibility": ["link-assistant-router"]},
    ],
    ids=["address", "every address", "TLS", "unix socket", "another gateway's answer"],
)
def test_it_answers(tmp_path: Path, settings: dict[str, Any]) -> None:
    listen = settings["listen"].format(port=free_port(), folder=tmp_path)
    with running(tmp_path, **{**settings, "listen": listen}) as live:
        aimux = commands(live)
        assert aimux("health").stdout == "ok\n"
        assert aimux.json("health") == {"status": "ok"}
    assert f"no aimux answers at {listen}" in aimux("health", expect=1).stderr


def test_it_needs_none_of_the_secrets(tmp_path: Path) -> None:
    """A health check sees neither the service's credentials nor its variables."""
    listen = f"127.0.0.1:{free_port()}"
    with running(tmp_path, listen=listen) as live:
        aimux = commands(live)
        config = Path(aimux.environ["AIMUX_CONFIG"])
        config.write_text(f"listen: {listen}\nusers: [{{name: a, token: '${{cred:a}}'}}]\n")
        assert aimux("health").stdout == "ok\n"


def test_a_demo_is_found_where_nothing_is_configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As all other commands find it."""
    for name in [name for name in os.environ if name.startswith("AIMUX_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.chdir(tmp_path)

    async def nothing(_config: object) -> None:
        """Whatever has the usual port on this machine."""

    monkeypatch.setattr("aimux.cli.remote.listening", nothing)
    (tmp_path / "demo").mkdir()
    with running(tmp_path / "demo", listen=f"127.0.0.1:{free_port()}") as live:
        demo = RunningDemo(live.app.addresses[0].removeprefix("http://"), live.state_dir)
        monkeypatch.setattr("aimux.cli.backend.running_demo", lambda: demo)
        found = CliRunner().invoke(health_command, [])
        assert (found.stdout, found.stderr) == ("ok\n", f"This is the demo at http://{demo.listen}.\n")
        monkeypatch.setenv("AIMUX_LISTEN", f"127.0.0.1:{free_port()}")
        assert "no aimux answers" in CliRunner().invoke(health_command, []).output
