"""`aimux accounts` and `aimux why`: with a running server, and without one."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import NameOID

from aimux.cli.show import COLUMNS, account_row
from aimux.simulator.demo import credential_file
from aimux.tls.selfsigned import ensure
from tests.admin.conftest import MESSAGE, put
from tests.admin.live import Live, running, write_config
from tests.cli.support import Commands
from tests.running import serving
from tests.tls.certificates import DAY, NOW, Issued

ADMIN = "an-admin-token-for-the-tests"


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Live]:
    with running(tmp_path) as served:
        yield served


def commands(live: Live, **environ: str) -> Commands:
    return Commands(live, {"HOME": str(live.folder), "AIMUX_CONFIG": str(live.config), **environ})


@pytest.fixture
def served(live: Live) -> Commands:
    """Commands with a server to talk to."""
    return commands(live)


@pytest.fixture
def unserved(tmp_path: Path) -> Iterator[Commands]:
    """Commands with files only; the same accounts."""
    with running(tmp_path, serve=False) as live:
        for provider in ("claude", "chatgpt"):
            put(live.state_dir, provider, credential_file(live.sim.accounts[provider]))
        yield commands(live)


@pytest.fixture(params=["served", "unserved"])
def aimux(request: pytest.FixtureRequest) -> Commands:
    found: Commands = request.getfixturevalue(request.param)
    return found


# --- with a server and without, the same -----------------------------------------------------------------------------


def test_the_table_tells_what_there_is(aimux: Commands) -> None:
    aimux("accounts", "test", "claude/default")
    said = aimux("accounts")
    head, *rows = said.stdout.splitlines()
    assert head.split("  ")[0] == "PROVIDER"
    assert [row.split()[:5] for row in rows] == [
        ["chatgpt", "default", "oauth", "plus", "healthy"],
        ["claude", "default", "oauth", "max", "healthy"],
    ]
    assert "  5h 0 % (5 h), 7d 0 % (7 d)" in rows[1]
    assert len(said.stderr.splitlines()) == 1


def test_json_is_what_the_api_gives(aimux: Commands) -> None:
    accounts = aimux.json("accounts")
    assert [account["provider"] for account in accounts] == ["chatgpt", "claude"]
    assert aimux.json("accounts", "show", "claude/default") == accounts[1]
    assert {"status", "reason", "limits", "expires_at", "last_used"} <= accounts[0].keys()


def test_show_tells_everything_and_no_secret(aimux: Commands) -> None:
    said = aimux("accounts", "show", "claude/default").stdout
    assert "aimux renews it" in said
    assert "organization" in said
    assert "sk-ant" not in said + aimux("accounts", "--json").stdout


def test_changes_are_made_and_seen(aimux: Commands) -> None:
    assert "claude/default: disabled" in aimux("accounts", "disable", "claude/default").stdout
    assert aimux.account("claude/default")["status"] == "disabled"
    assert "claude/default: healthy" in aimux("accounts", "enable", "claude/default").stdout
    assert "claude/ann: healthy" in aimux("accounts", "rename", "claude/default", "ann").stdout
    assert aimux.names() == ["chatgpt/default", "claude/ann"]
    before = aimux.live.sim.accounts["claude"].access_token
    assert "claude/ann: healthy; expires in 8 h" in aimux("accounts", "refresh", "ann").stdout
    assert aimux.live.sim.accounts["claude"].access_token != before
    assert "say --yes" in aimux("accounts", "remove", "ann", expect=2).stderr
    assert aimux("accounts", "remove", "ann", "--yes").stdout == "claude/ann is removed.\n"
    assert aimux.names() == ["chatgpt/default"]


def test_a_test_tells_whether_it_works(aimux: Commands) -> None:
    assert "claude/default works: 200 after" in aimux("accounts", "test", "claude/default").stdout
    aimux.live.sim.accounts["claude"].script("429:600")
    failed = aimux("accounts", "test", "claude/default", expect=1).stderr
    assert "claude/default does not work (429): " in failed
    shown = aimux.account("claude/default")
    assert (shown["status"], bool(shown["until"])) == ("cooling", True)
    assert aimux("accounts", "test", "chatgpt/default", "--json").exit_code == 0


def test_a_refusal_is_told_with_its_remedy(aimux: Commands) -> None:
    aimux.live.sim.accounts["claude"].revoke()
    refused = aimux("accounts", "refresh", "claude/default", expect=1).stderr
    assert "aimux login claude" in refused
    assert "parked" in aimux("accounts").stdout


def test_a_name_has_to_mean_one_account(aimux: Commands) -> None:
    assert "Which one? chatgpt/default, claude/default" in aimux("accounts", "show", "default", expect=2).stderr
    assert "Did you mean 'claude/default'?" in aimux("accounts", "show", "claude/defualt", expect=2).stderr
    assert "There are: chatgpt/default, claude/default." in aimux("accounts", "test", "zzz", expect=2).stderr
    assert "String should match pattern" in aimux("accounts", "rename", "claude/default", "a b", expect=1).stderr
    put(aimux.live.state_dir, "claude", credential_file(aimux.live.sim.add_account("x", "anthropic")), "x")
    assert "already" in aimux("accounts", "rename", "x", "default", expect=1).stderr


# --- with a server ---------------------------------------------------------------------------------------------------


def ask(live: Live) -> tuple[int, str]:
    """A client's request for Claude over the server's unix socket: status, and id."""
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(live.folder / "socket"))
    headers = {"content-type": "application/json", "anthropic-version": "2023-06-01"}
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
    assert "not among the last 10,000" in served("why", "req_0", expect=1).stderr
    assert "Nothing can have such a name" in served("why", "no id at all", expect=1).stderr


def test_the_key_comes_from_the_variable_first(served: Commands) -> None:
    key = served.live.key
    served.environ["AIMUX_ADMIN_TOKEN"] = "a-wrong-key-that-is-long-enough"
    refused = served("accounts", expect=1).stderr
    assert "does not accept the admin key of AIMUX_ADMIN_TOKEN" in refused
    assert "a-wrong-key" not in refused
    (served.live.state_dir / "admin.key").unlink()
    served.environ["AIMUX_ADMIN_TOKEN"] = key
    served("accounts")
    del served.environ["AIMUX_ADMIN_TOKEN"]
    assert "Another program, or an aimux with another state folder, listens on" in served("accounts").stderr


@pytest.mark.parametrize("how", ["token", "token_file", "environment"])
def test_the_configurations_token_is_shown(tmp_path: Path, how: str) -> None:
    file = tmp_path / "admin-token"
    file.write_text(f"{ADMIN}\n")
    file.chmod(0o600)
    given = {"token": {"token": ADMIN}, "token_file": {"token_file": str(file)}, "environment": {"token": ADMIN}}[how]
    with running(tmp_path, admin=given) as live:
        aimux = commands(live)
        if how == "environment":
            write_config(tmp_path, live.sim)
            aimux.environ["AIMUX_ADMIN__TOKEN"] = ADMIN
        assert aimux.names() == ["chatgpt/default", "claude/default"]


def test_a_hash_alone_opens_nothing(tmp_path: Path) -> None:
    with running(tmp_path, admin={"token_sha256": hashlib.sha256(ADMIN.encode()).hexdigest()}) as live:
        aimux = commands(live)
        assert "set AIMUX_ADMIN_TOKEN" in aimux("accounts", expect=1).stderr
        aimux.environ["AIMUX_ADMIN_TOKEN"] = ADMIN
        aimux("accounts")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def test_a_self_signed_server_is_trusted_by_its_certificate(tmp_path: Path) -> None:
    listen = f"127.0.0.1:{free_port()}"
    with running(tmp_path, listen=listen, tls={"enabled": True, "self_signed": True}) as live:
        aimux = commands(live)
        assert f"Using the server at https://{listen}" in aimux("accounts").stderr
        assert ensure(tmp_path / "cert", tmp_path / "key", "", time.time())
        (live.state_dir / "tls" / "cert.pem").write_bytes((tmp_path / "cert").read_bytes())
        assert "another certificate" in aimux("accounts", expect=1).stderr


def issued(name: str, authority: Issued | None = None) -> Issued:
    """A server's certificate of this authority, or an authority."""
    made = Issued(name)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    made.certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(authority.certificate.subject if authority else subject)
        .public_key(made.key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - DAY)
        .not_valid_after(NOW + DAY)
        .add_extension(x509.BasicConstraints(ca=authority is None, path_length=None), critical=True)
        .sign((authority or made).key, SHA256())
    )
    return made


def test_an_issued_certificate_is_trusted_and_its_issuer_is_not(tmp_path: Path) -> None:
    authority = issued("authority")
    ours, theirs = issued("gateway.example", authority), issued("elsewhere.example", authority)
    cert, key, listen = tmp_path / "chain.pem", tmp_path / "key.pem", f"127.0.0.1:{free_port()}"
    cert.write_bytes(ours.pem + authority.pem)
    key.write_bytes(ours.key_pem())
    key.chmod(0o600)
    with running(tmp_path, listen=listen, tls={"enabled": True, "cert_path": str(cert), "key_path": str(key)}) as live:
        aimux = commands(live)
        assert aimux.names() == ["chatgpt/default", "claude/default"]
        cert.write_bytes(theirs.pem + authority.pem)
        assert "another certificate" in aimux("accounts", expect=1).stderr
        cert.write_bytes(b"nothing of the kind")
        assert "holds no certificate" in aimux("accounts", expect=1).stderr


def test_every_address_includes_this_machine(tmp_path: Path) -> None:
    port = free_port()
    with running(tmp_path, listen=f":{port}", users=[{"name": "a", "token": "a-users-own-token-1"}]) as live:
        assert f"Using the server at http://127.0.0.1:{port}" in commands(live)("accounts").stderr


def test_something_else_on_the_port_is_no_aimux(unserved: Commands) -> None:
    """The simulator is a web server, too."""
    live = unserved.live
    write_config(live.folder, live.sim, listen=f"127.0.0.1:{live.sim.port}")
    (live.state_dir / "admin.key").write_text("a-key-that-is-long-enough")
    assert "is no aimux with an admin API (status 404)" in unserved("accounts", expect=1).stderr


# --- without ---------------------------------------------------------------------------------------------------------


def test_without_a_server_the_next_start_finds_what_was_done(unserved: Commands) -> None:
    said = unserved("accounts", "disable", "claude/default")
    state_dir = unserved.live.state_dir
    assert said.stderr == f"No server listens on unix:{unserved.live.folder}/socket: using {state_dir}.\n"
    saved = json.loads((state_dir / "accounts.json").read_bytes())
    assert saved["accounts"]["claude"]["default"] == {"disabled": True}


def test_looking_writes_nothing(unserved: Commands) -> None:
    before = {path: path.stat().st_mtime_ns for path in unserved.live.state_dir.rglob("*")}
    unserved("accounts")
    unserved("accounts", "show", "claude/default")
    after = {path: path.stat().st_mtime_ns for path in unserved.live.state_dir.rglob("*")}
    assert after == before


def test_without_a_server_nobody_remembers_requests(unserved: Commands) -> None:
    assert "by the running server only" in unserved("why", "req_1", expect=1).stderr


def test_with_no_account_it_says_how_to_get_one(unserved: Commands) -> None:
    for name in unserved.names():
        unserved("accounts", "remove", name, "--yes")
    assert "aimux login PROVIDER, or aimux import" in unserved("accounts").stdout
    assert unserved.json("accounts") == []
    assert "There are: none." in unserved("accounts", "show", "x", expect=2).stderr


def test_another_users_files_are_left_alone(unserved: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4242)
    assert "belongs to another user" in unserved("accounts", expect=1).stderr


def test_a_credential_that_cant_be_read_is_shown_with_the_reason(unserved: Commands) -> None:
    put(unserved.live.state_dir, "claude", b'{"claudeAiOauth": ')
    row = unserved("accounts").stdout.splitlines()[2]
    assert "parked: claude/default: .credentials.json is not valid JSON" in row


def test_the_configuration_may_stand_anywhere_in_the_command(unserved: Commands) -> None:
    config = unserved.environ.pop("AIMUX_CONFIG")
    for arguments in (
        ("--config", config, "accounts", "show", "claude/default"),
        ("accounts", "--config", config, "show", "claude/default"),
        ("accounts", "show", "claude/default", "--config", config),
    ):
        assert "claude/default" in unserved(*arguments).stdout


# --- how it looks ----------------------------------------------------------------------------------------------------

SHOWN_AT = datetime(2030, 1, 1, tzinfo=UTC)


def shown(**changed: Any) -> dict[str, str]:
    account: dict[str, Any] = {
        "provider": "claude", "name": "ann", "kind": "oauth", "plan": "max", "status": "healthy", "reason": "",
        "remedy": "", "until": None, "expires_at": None, "renewable": True, "limits": [], "last_used": None,
    }  # fmt: skip
    return dict(zip(COLUMNS, account_row(account | changed, SHOWN_AT), strict=True))


def test_cells_are_for_people() -> None:
    assert shown(kind="", plan=None) | {"KIND": "-", "PLAN": "-"} == shown(kind="", plan=None)
    assert shown(expires_at="2030-01-01T08:00:00Z")["EXPIRES"] == "in 8 h"
    assert shown(expires_at="2029-12-31T23:00:00Z")["EXPIRES"] == "60 min ago"
    assert shown(expires_at="2030-03-01T00:00:00Z", renewable=False)["EXPIRES"] == "in 59 d (for good)"
    assert shown(last_used="2029-12-31T23:59:30Z")["LAST USED"] == "30 s ago"
    cooling = shown(status="cooling", reason="rate limited", until="2030-01-01T00:48:00Z")
    assert cooling["STATE"] == "cooling for 48 min: rate limited"
    limits = [
        {"name": "5h", "used": 0.421, "status": "allowed", "resets_at": "2030-01-01T03:00:00Z", "scope": None},
        {"name": "overage", "used": None, "status": "rejected", "resets_at": None, "scope": "overage"},
    ]
    assert shown(limits=limits)["LIMITS (RESET IN)"] == "5h 42 % (3 h), overage rejected"
    limits[1]["status"] = "warning"  # of extra usage, which is no limit that was used up
    assert shown(limits=limits)["LIMITS (RESET IN)"] == "5h 42 % (3 h)"


# --- processes of their own ------------------------------------------------------------------------------------------


def test_the_real_commands_and_a_real_server(tmp_path: Path) -> None:
    with running(tmp_path, serve=False) as live:
        put(live.state_dir, "claude", credential_file(live.sim.accounts["claude"]))
        config = json.loads(live.config.read_text()) | {"listen": f"127.0.0.1:{free_port()}"}
        with serving(config, tmp_path):
            aimux = commands(live, AIMUX_CONFIG=str(tmp_path / "aimux.json"))
            with aimux.process("accounts", "disable", "default") as process:
                said, _ = process.communicate(timeout=60)
            assert process.returncode == 0, said
            assert "Using the server at http://127.0.0.1:" in said
            assert aimux.account("default")["status"] == "disabled"
        with aimux.process("accounts", "enable", "default") as process:
            said, _ = process.communicate(timeout=60)
        assert "No server listens" in said
        assert "claude/default: healthy" in said
