"""A login with a device code."""

from __future__ import annotations

import signal

import pytest

from aimux.simulator.answers import Call, SimulatedAnswer
from tests.cli.support import Commands


def test_a_device_code_is_shown_and_waited_for(aimux: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    server = aimux.live.sim.oauth_openai
    server.consent.mode = "ask"
    asked, statuses = server.device_poll, []

    def then_typed(call: Call) -> SimulatedAnswer:
        """The person types the code after the first poll."""
        answer = asked(call)
        statuses.append(answer.status)
        for device in list(server.devices.values()):
            server.decide_device(device.user_code)
        return answer

    monkeypatch.setattr(server, "device_poll", then_typed)
    said = aimux("login", "chatgpt", "--device")
    assert f"{aimux.live.sim.url}/oauth/openai/codex/device" in said.stdout
    assert "chatgpt/default: healthy" in said.stdout
    assert statuses == [403, 200]


def test_a_device_code_that_is_declined_ends_the_login(aimux: Commands) -> None:
    aimux.live.sim.oauth_openai.consent.mode = "deny"
    assert "start again" in aimux("login", "chatgpt", "--device", expect=1).stderr
    assert aimux.names() == []


def test_ctrl_c_ends_a_login_that_waits(aimux: Commands) -> None:
    aimux.live.sim.oauth_openai.consent.mode = "ask"
    with aimux.process("login", "chatgpt", "--device") as process:
        assert process.stdout is not None
        while "Waiting for the code" not in process.stdout.readline():
            pass
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in said
