"""What only a running server can do: obey at once, and say why."""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path

from tests.cli.support import Commands
from tests.control.conftest import MESSAGE
from tests.control.live import Live, running


def ask(live: Live, **fields: str) -> tuple[int, str]:
    """A client's request for Claude over the server's unix socket: status, and id."""
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(live.folder / "socket"))
    headers = {"content-type": "application/json", "anthropic-version": "2023-06-01", **fields}
    connection.request("POST", "/claude/v1/messages", json.dumps(MESSAGE), headers)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status, answer.headers["x-request-id"]


def test_a_running_server_obeys_at_once(served: Commands) -> None:
    live = served.live
    assert ask(live)[0] == 200
    served("accounts", "disable", "claude/default")
    assert ask(live)[0] == 503
    served("accounts", "enable", "claude/default")
    assert ask(live)[0] == 200
    assert served.account("claude/default")["last_used"] is not None
    served("accounts", "remove", "claude/default", "--yes")
    assert ask(live)[0] == 503


def test_why_explains_a_request(served: Commands) -> None:
    live = served.live
    live.sim.accounts["claude"].script("429:600")
    status, request_id = ask(live)
    assert status == 429
    said = served("why", request_id).stdout
    assert "POST /claude/v1/messages, model claude-sonnet-5" in said
    assert "claude/default: 429, cool_down (" in said
    assert "the client got 429" in said
    assert served.json("why", request_id)["attempts"] == 1
    assert "is not in the ledger" in served("why", "req_0", expect=1).stderr
    assert "Nothing can have such a name" in served("why", "no id at all", expect=1).stderr


def test_why_tells_the_vendors_id_and_finds_by_it_and_the_model_that_was_asked_for(tmp_path: Path) -> None:
    models = {MESSAGE["model"]: {"provider": "claude", "model": "claude-opus-5"}}
    with running(tmp_path, models=models) as live:
        aimux = Commands(live, {"HOME": str(tmp_path), "AIMUX_CONFIG": str(live.config)})
        _, request_id = ask(live)
        (step,) = aimux.json("why", request_id)["steps"]
        assert step["model"] == "claude-opus-5"
        assert step["upstream_id"] not in {"", request_id}
        said = aimux("why", step["upstream_id"]).stdout
        assert "model claude-sonnet-5" in said
        assert f"claude/default as claude-opus-5: 200, relay, there {step['upstream_id']}" in said


def test_why_says_what_limits_forbade(tmp_path: Path) -> None:
    users = [{"name": "ann", "token": "ann-token-0123456789abcdef"}]
    with running(tmp_path, users=users, limits={"default": {"overage": "forbid"}}) as live:
        aimux = Commands(live, {"HOME": str(tmp_path), "AIMUX_CONFIG": str(live.config)})
        live.sim.accounts["claude"].script("overage")
        token = {"authorization": f"Bearer {users[0]['token']}"}
        assert ask(live, **token)[0] == 200
        status, request_id = ask(live, **token)
        assert status == 429
        said = " ".join(aimux("why", request_id).stdout.split())
        assert "What is included was used up, and limits forbid paid extra usage (overage: forbid)." in said
        assert "`aimux limits show user:ann` shows who set it." in said
        assert "claude refuses every model since " in aimux("limits", "show", "user:ann").stdout


def test_enable_ends_a_cooldown(served: Commands) -> None:
    served.live.sim.accounts["claude"].script("429:600")
    assert ask(served.live)[0] == 429
    assert served.account("claude/default")["status"] == "cooling"
    assert "claude/default: healthy" in served("accounts", "enable", "claude/default").stdout
    assert ask(served.live)[0] == 200
