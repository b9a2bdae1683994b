"""`aimux health`: what a container's health check runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

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
