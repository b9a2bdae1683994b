"""The NixOS module: which unit and which configuration come out of which settings, and what it refuses."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from aimux.app import AFTER_RESTART
from aimux.cli.units import unit_settings
from aimux.config.database import Database
from tests.nix.conftest import REAL_NIXOS, Nix
from tests.tools import program

ALICE = {"users": {"alice": {"tokenFile": "/run/secrets/alice"}}}
FULL: dict[str, Any] = {
    "enable": True,
    "openFirewall": True,
    "settings": {
        "listen": ":8080",
        "log_format": "json",
        "providers": {"chatgpt": {"api_key": "${cred:openai-key}"}, "claude": {}},
        "users": [{"name": "carol", "token_sha256": "c" * 64}],
    },
    "users": {
        "alice": {"tokenFile": "/run/secrets/alice", "groups": ["research"]},
        "bob": {"token_sha256": "b" * 64},
    },
    "providers": {"claude": {"credentialFile": "/run/secrets/claude.json"}},
    "credentials": {"openai-key": "/run/secrets/openai"},
    "environmentFile": "/run/secrets/aimux.env",
}


def unit_text(service: Mapping[str, Any]) -> str:
    """The unit as NixOS writes it: a line for each element of a list."""
    lines = []
    for name, value in service["serviceConfig"].items():
        for one in value if isinstance(value, list) else [value]:
            lines.append(f"{name}={str(one).lower() if isinstance(one, bool) else one}")
    return "\n".join([f"[Unit]\nDescription={service['description']}\n[Service]", *lines, ""])


def test_disabled_it_changes_nothing(nix: Nix, lib: str) -> None:
    made = nix.module({"settings": {"listen": ":1"}}, lib=lib)
    assert made == {"failed": [], "services": {}, "sockets": {}, "ports": [], "postgresql": {}, "config": None}


def test_full(nix: Nix, lib: str) -> None:
    made: Any = nix.module(FULL, lib=lib)
    assert made["failed"] == []
    assert made["ports"] == [8080]
    service = made["services"]["aimux"]["serviceConfig"]
    assert service["Type"] == "notify"
    assert service["WatchdogSec"] > 0
    assert service["StateDirectory"] == "aimux"
    assert service["CapabilityBoundingSet"] == ""
    assert service["EnvironmentFile"] == "/run/secrets/aimux.env"
    assert service["ExecReload"].endswith("/bin/aimux reload --config /etc/aimux/config.json --pid $MAINPID")
    assert service["ExecStartPre"].endswith("claude=%d/provider-claude")
    assert service["LoadCredential"] == [
        "openai-key:/run/secrets/openai",
        "provider-claude:/run/secrets/claude.json",
        "user-alice:/run/secrets/alice",
    ]
    assert made["config"] == {
        "listen": ":8080",
        "log_format": "json",
        "providers": {"chatgpt": {"api_key": "${cred:openai-key}"}, "claude": {}},
        "state_dir": "/var/lib/aimux",
        "users": [
            {"name": "carol", "token_sha256": "c" * 64},
            {"name": "alice", "token": "${cred:user-alice}", "groups": ["research"]},
            {"name": "bob", "token_sha256": "b" * 64},
        ],
    }


def test_the_sandbox_is_the_one_of_unit_toml(nix: Nix) -> None:
    made: Any = nix.module({"enable": True})
    service = made["services"]["aimux"]["serviceConfig"]
    settings = unit_settings()
    expected = settings["service"] | settings["hardening"] | settings["system"]
    assert {name: service[name] for name in expected} == expected


def test_a_low_port_gets_exactly_one_capability(nix: Nix, lib: str) -> None:
    made: Any = nix.module({"enable": True, "settings": {"listen": "[::1]:443"}}, lib=lib)
    service = made["services"]["aimux"]["serviceConfig"]
    assert service["CapabilityBoundingSet"] == service["AmbientCapabilities"] == "CAP_NET_BIND_SERVICE"
    assert service["PrivateUsers"] is False


@pytest.mark.parametrize(
    ("listen", "stream"),
    [
        (":443", "443"),
        ("127.0.0.1:80", "127.0.0.1:80"),
        ("[::1]:8080", "[::1]:8080"),
        ("unix:/run/a.sock", "/run/a.sock"),
    ],
)
def test_with_a_socket_systemd_binds_and_no_capability_is_needed(nix: Nix, listen: str, stream: str) -> None:
    made: Any = nix.module({"enable": True, "socketActivation": True, "settings": {"listen": listen}})
    assert made["failed"] == []
    assert made["sockets"]["aimux"]["listenStreams"] == [stream]
    assert made["sockets"]["aimux"]["socketConfig"] == {"SocketMode": "0660"}
    service = made["services"]["aimux"]
    assert service["requires"] == ["aimux.socket"]
    assert service["stopIfChanged"] is False
    assert service["serviceConfig"]["CapabilityBoundingSet"] == ""


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"settings": {"listen": ":70000"}}, "no port from 1 to 65535"),
        ({"settings": {"listen": ":0"}}, "no port from 1 to 65535"),
        ({"settings": {"listen": "localhost"}}, "no port from 1 to 65535"),
        ({"settings": {"listen": "unix:/run/a.sock"}}, "socketActivation = true"),
        ({"settings": {"listen": "localhost:8080"}, "socketActivation": True}, 'write an address ("127.0.0.1:8080"'),
        ({"settings": {"providers": {"claude": {"api_key": "${cred:nonesuch}"}}}}, "services.aimux.credentials.<name>"),
        ({"settings": {"x": ["$${cred:a}${cred:b}"]}}, "settings.x[0] names ${cred:b}, but"),
        ({"database": {"createLocally": True}}, "database.encryptionKeyFile"),
        ({"settings": {"state_dir": "/srv/aimux"}}, "directly below /var/lib"),
        ({"settings": {"state_dir": "/var/lib/../../etc"}}, "directly below /var/lib"),
        ({"users": {"bob": {}}}, "bob must have exactly one of tokenFile and token_sha256"),
        ({"users": {"b:b": {"tokenFile": "/run/x"}}}, "no credential named user-b:b"),
    ],
)
def test_refused_with_a_reason(nix: Nix, lib: str, settings: dict[str, Any], says: str) -> None:
    made: Any = nix.module({"enable": True, **settings}, lib=lib)
    assert any(says in message for message in made["failed"]), made["failed"]


@pytest.mark.parametrize(
    ("settings", "where"),
    [
        ({"users": [{"name": "a", "token": "in-the-clear-0123456789"}]}, "settings.users[0].token"),
        ({"providers": {"claude": {"api_key": "k"}}}, "settings.providers.claude.api_key"),
        ({"admin": {"token": "t"}}, "settings.admin.token"),
        ({"providers": {"claude": {"headers": {"x": "Bearer abc"}}}}, "settings.providers.claude.headers.x"),
        ({"database": {"url": "postgresql://aimux:secret@db/aimux"}}, "settings.database.url"),
        ({"database": {"encryption_key": "k"}}, "settings.database.encryption_key"),
        (
            {"providers": {"claude": {"headers": {"Authorization": "abc"}}}},
            "settings.providers.claude.headers.Authorization",
        ),
    ],
)
def test_a_secret_in_the_settings_is_refused_and_not_repeated(
    nix: Nix, lib: str, settings: dict[str, Any], where: str
) -> None:
    made: Any = nix.module({"enable": True, "settings": settings}, lib=lib)
    assert len(made["failed"]) == 1
    message = made["failed"][0]
    assert where in message
    assert "services.aimux.users.<name>.tokenFile" in message
    assert "services.aimux.credentials.<name>" in message
    for secret in ("in-the-clear", "Bearer abc", "secret@db"):
        assert secret not in message


def test_references_are_no_secrets(nix: Nix) -> None:
    settings = {
        "users": [{"name": "a", "token": "${cred:a}"}, {"name": "b", "token_file": "/run/b"}],
        "providers": {"claude": {"api_key": "${env:KEY}", "headers": {"x": "Bearer ${cred:x}"}}},
    }
    credentials = {"a": "/run/a", "x": "/run/x"}
    made: Any = nix.module({"enable": True, "settings": settings, "credentials": credentials})
    assert made["failed"] == []


def test_a_secret_file_in_the_store_is_refused(nix: Nix, lib: str) -> None:
    """A path literal becomes one."""
    store = nix.environ["NIX_STORE_DIR"]
    for where, secret in (("settings.tls.key_path", "tls"), ("settings.users[0].token_file", "users")):
        path = f"{store}/0000-key"
        settings = {"tls": {"key_path": path}} if secret == "tls" else {"users": [{"name": "a", "token_file": path}]}
        made: Any = nix.module({"enable": True, "settings": settings}, lib=lib)
        (message,) = made["failed"]
        assert where in message
        assert "services.aimux.credentials.<name>" in message


def test_several_accounts_are_seeded(nix: Nix, lib: str) -> None:
    logins = {"accounts": {name: {"credentialFile": f"/run/{name}"} for name in ("home", "lab")}}
    providers = {"claude": {"credentialFile": "/run/first", **logins}, "chatgpt": logins}
    service = nix.module({"enable": True, "providers": providers}, lib=lib)["services"]["aimux"]["serviceConfig"]  # type: ignore[index]
    assert service["ExecStartPre"].partition(".json ")[2].split() == [
        "chatgpt/home=%d/provider-chatgpt@home",
        "chatgpt/lab=%d/provider-chatgpt@lab",
        "claude=%d/provider-claude",
        "claude/home=%d/provider-claude@home",
        "claude/lab=%d/provider-claude@lab",
    ]
    assert "provider-claude@lab:/run/lab" in service["LoadCredential"]


def test_a_database_of_this_machine(nix: Nix, lib: str) -> None:
    database = {"createLocally": True, "encryptionKeyFile": "/run/key"}
    made: Any = nix.module({"enable": True, "database": database}, lib=lib)
    assert made["failed"] == []
    assert made["postgresql"]["enable"] is True
    assert made["postgresql"]["ensureDatabases"] == ["aimux"]
    assert made["postgresql"]["ensureUsers"] == [{"name": "aimux", "ensureDBOwnership": True}]
    service = made["services"]["aimux"]
    assert "postgresql.target" in service["after"]
    assert service["requires"] == ["postgresql.target"]
    assert service["serviceConfig"]["LoadCredential"] == ["database-key:/run/key"]
    config = made["config"]
    assert config["database"]["encryption_key"] == "${cred:database-key}"
    assert check_database(config["database"]["url"]) == ("aimux", "/run/postgresql", "aimux")


def check_database(url: str) -> tuple[str | None, str, str]:
    """Who asks which socket for which database, as aimux and its driver read the URL."""
    parts = urlsplit(url)
    assert not parts.hostname and not parts.password
    Database.model_validate({"url": url, "encryption_key": "0" * 64})
    return parts.username, parse_qs(parts.query)["host"][0], parts.path.removeprefix("/")


def test_what_a_reload_cannot_take_restarts(nix: Nix, lib: str) -> None:
    def triggers(**settings: Any) -> Any:
        made: Any = nix.module({"enable": True, "settings": settings}, lib=lib)
        return made["services"]["aimux"]["restartTriggers"]

    usual = triggers()
    assert triggers(log_format="json", tls={"self_signed": True}) == usual
    for name in set(AFTER_RESTART) - {"database", "state_dir"}:
        assert triggers(**{name: ":1" if name == "listen" else "1m"}) != usual, name
    assert triggers(state_dir="/var/lib/other") != usual
    assert triggers(database={"url": "${env:X}"}) != usual
    assert triggers(tls={"enabled": True}) != usual


def test_the_command_on_the_path_knows_the_services_configuration(
    nix: Nix, flake: Path, stub: Path, tmp_path: Path
) -> None:
    expression = f"""
      let
        pkgs = import {stub}/pkgs.nix {{ system = builtins.currentSystem; }};
        machine = pkgs.nixosSystem {{ modules = [ {flake}/nix/module.nix {{ services.aimux.enable = true; }} ]; }};
      in
      pkgs.lib.last machine.config.environment.systemPackages
    """
    link = tmp_path / "command"
    nix.run("nix-build", "--out-link", str(link), "--expr", expression)
    command = [str(link / "bin/aimux"), "check-config", "--without-secrets"]
    environ = {"PATH": nix.environ["PATH"], "HOME": str(tmp_path)}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "/etc/aimux/config.json" in done.stderr
    (tmp_path / "own.yaml").write_text("listen: ':1'\n")
    environ["AIMUX_CONFIG"] = str(tmp_path / "own.yaml")
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)
    assert done.stdout == f"{tmp_path}/own.yaml: ok\n", done.stderr


@pytest.mark.parametrize("lib", ["real"], indirect=True)
@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"tokenfile": "/run/x"}, "tokenfile"),
        ({"users": {"a": {"tokenFile": "/nix/store/00000000000000000000000000000000-x/token"}}}, "tokenFile"),
        ({"environmentFile": "relative"}, "environmentFile"),
        ({"credentials": {"a": 1}}, "credentials"),
        ({"settings": {"listen": 8080}}, "listen"),
    ],
)
def test_the_real_lib_refuses_wrong_types(nix: Nix, lib: str, settings: dict[str, Any], says: str) -> None:
    # Where the store is not at its usual place, a path in it has to be written as that place has it.
    store = nix.environ["NIX_STORE_DIR"]
    text = {name: _in_store(value, store) for name, value in settings.items()}
    made: Any = nix.module({"enable": True, **text}, lib=lib, check=False)
    assert says in made["error"]


def _in_store(value: Any, store: str) -> Any:
    if isinstance(value, dict):
        return {name: _in_store(one, store) for name, one in value.items()}
    return value.replace("/nix/store", store) if isinstance(value, str) else value


@pytest.mark.parametrize("settings", [{}, FULL, {"settings": {"listen": ":443"}}], ids=["plain", "full", "low port"])
def test_systemd_has_nothing_to_say_against_the_unit(nix: Nix, tmp_path: Path, settings: dict[str, Any]) -> None:
    analyze = program("systemd-analyze", "systemd")
    made: Any = nix.module({**settings, "enable": True})
    service = made["services"]["aimux"]
    for name in ("ExecStart", "ExecStartPre", "ExecReload"):  # nothing was built, so the programs are stand-ins
        if command := service["serviceConfig"].get(name):
            service["serviceConfig"][name] = f"/bin/true {command.partition(' ')[2]}"
    unit = tmp_path / "aimux.service"
    unit.write_text(unit_text(service))
    verified = subprocess.run([analyze, "verify", str(unit)], capture_output=True, text=True, timeout=60)
    assert (verified.returncode, verified.stderr) == (0, "")
    security = [analyze, "security", "--offline=yes", "--threshold=20", str(unit)]
    judged = subprocess.run(security, capture_output=True, text=True, timeout=60)
    assert judged.returncode == 0, judged.stdout


def test_a_wrong_setting_fails_the_build(nix: Nix, flake: Path, stub: Path) -> None:
    """Not at the service's start: the rendered configuration goes through the packaged `aimux check-config`."""
    expression = f"""
      let
        pkgs = import {stub}/pkgs.nix {{ system = builtins.currentSystem; }};
        wrong = {{ services.aimux = {{ enable = true; settings.listn = ":8080"; }}; }};
        machine = pkgs.nixosSystem {{ modules = [ {flake}/nix/module.nix wrong ]; }};
      in
      machine.config.environment.etc."aimux/config.json".source
    """
    done = nix.run("nix-build", "--no-out-link", "--expr", expression, check=False)
    assert done.returncode != 0
    assert "listn" in done.stderr
    assert "did you mean" in done.stderr


@pytest.mark.skipif(REAL_NIXOS is None, reason="AIMUX_NIXOS names no copy of nixpkgs' lib/ and nixos/")
def test_among_all_of_nixos_own_modules(nix: Nix) -> None:
    """Its types, its assertions, and the units that it writes."""
    machine = """{
      services.aimux = {
        enable = true;
        openFirewall = true;
        socketActivation = true;
        settings.listen = ":8080";
        users.alice.tokenFile = "/run/secrets/alice";
        database = { createLocally = true; encryptionKeyFile = "/run/secrets/key"; };
      };
    }"""
    args = ["--read-write-mode", "--eval", "--strict", "--json", "nix/tests/nixos.nix"]
    done = nix.run("nix-instantiate", *args, "--arg", "nixpkgs", str(REAL_NIXOS), "--arg", "machine", machine)
    made = json.loads(done.stdout)
    assert made["failed"] == []
    assert made["ports"] == [8080]
    assert made["postgresql"]["enable"] is True
    assert "Requires=aimux.socket postgresql.target" in made["unit"]
    assert "X-StopIfChanged=false" in made["unit"]
    assert "LoadCredential=user-alice:/run/secrets/alice" in made["unit"]
    assert "ListenStream=8080" in made["socket"]
