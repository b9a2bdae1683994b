"""SIGHUP takes the configuration again, but for what takes a restart."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest

from aimux.app import AFTER_RESTART
from aimux.app.setup import refuse_lost_file
from aimux.config import ConfigError, find_config, load_config
from tests.tools import ROOT

from .conftest import Start

DOCUMENTED = re.search(r"changes nothing\.\n(.*) need a restart", (ROOT / "docs/configuration.md").read_text())


@pytest.mark.parametrize("name", [*AFTER_RESTART, "tls.enabled"])
async def test_what_takes_a_restart_is_named_and_stays(start: Start, name: str) -> None:
    aimux = await start()
    file, other = aimux.folder / "config.json", aimux.folder / "other"
    changes: dict[str, Any] = {
        "listen": "127.0.0.1:1",
        "state_dir": str(other),
        "database": {"encryption_key": "0f" * 32},
        "tls": {"enabled": True, "self_signed": True},
    }
    section = name.partition(".")[0]
    file.write_text(json.dumps(json.loads(file.read_text()) | {section: changes.get(section, "1m")}))
    before = aimux.app.config
    assert await aimux.app.reload()
    assert re.findall(r"`([\w.]+)` changed: that needs a restart", aimux.log) == [name]
    assert [getattr(aimux.app.config, each) for each in AFTER_RESTART] == [
        getattr(before, each) for each in AFTER_RESTART
    ]
    assert not other.exists()
    assert DOCUMENTED is not None
    assert f"`{name}`" in DOCUMENTED[1]


async def test_what_takes_no_restart_is_taken(start: Start) -> None:
    aimux = await start()
    app, file = aimux.app, aimux.folder / "config.json"
    assert not app.control.metrics_public, "the control plane is made by now"
    changes = {
        "metrics": {"per_user": True},
        "metrics_public": True,
        "notices": {"webhooks": [{"url": "https://example.com/hook"}]},
        "limits": {"fair_share": True, "time_zone": "Asia/Tokyo"},
        "ledger": {"keep_requests": "3d"},
        "prices": {"some-model": {"input": 1}},
        "connect_timeout": "7s",
        "stream_idle_timeout": "8s",
        "log_level": "debug",
    }
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    assert await app.reload()
    assert app.metrics.per_user
    assert app.control.metrics_public
    assert [hook.url.get_secret_value() for hook in app.notices.settings.webhooks] == ["https://example.com/hook"]
    assert app.fair.on
    assert str(app.metering.calendar.zone) == "Asia/Tokyo"
    assert app.metering.ledger.keep == 3 * 86400
    assert app.metering.prices.configured_kinds("some-model")
    assert (app.gateway.pool.connect_timeout, app.gateway.pool.idle_timeout) == (7, 8)
    assert app.config.log_level == "debug"
    assert logging.getLogger().level == logging.DEBUG


async def test_a_file_that_was_emptied_leaves_the_users_as_they_are(start: Start) -> None:
    aimux = await start()
    file = aimux.folder / "config.json"
    users = aimux.app.config.users
    assert users
    file.write_text("\n")
    assert not await aimux.app.reload()
    assert aimux.app.config.users == users
    assert f"{file}: holds no setting any more (write it again, or restart aimux" in aimux.log
    file.write_text("{}")  # this is meant
    assert await aimux.app.reload()
    assert not aimux.app.config.users


async def test_a_reload_that_fails_as_nobody_expects_ends_nothing(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGHUP ended the server then, and every stream with it."""
    aimux = await start()

    def load() -> Any:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(aimux.app, "load", load)
        assert not await aimux.app.reload()
    assert "the configuration could not be taken again" in aimux.log
    assert await aimux.app.reload()


@pytest.mark.parametrize("other", [False, True])
def test_a_file_that_is_gone_is_not_replaced_by_what_else_is_found(tmp_path: Path, other: bool) -> None:
    environ = {"HOME": str(tmp_path)}
    here, at_home = tmp_path / "config.yaml", tmp_path / ".config/aimux/config.yaml"

    def load() -> Any:
        return load_config(find_config(None, environ, tmp_path), environ=environ, providers={})

    here.write_text("log_level: debug\n")
    before = load()
    if other:
        at_home.parent.mkdir(parents=True)
        at_home.write_text("log_level: error\n")
    refuse_lost_file(load(), before)
    here.unlink()
    with pytest.raises(ConfigError) as refused:
        refuse_lost_file(load(), before)
    assert f"{here}: is gone" in str(refused.value)
    assert (str(at_home) in str(refused.value)) == other
