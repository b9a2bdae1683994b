"""`aimux install-service`, and the service files of deploy/, which it makes as well."""

from __future__ import annotations

import json
import os
import plistlib
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from aimux.cli import service as service_module
from aimux.cli.service import install_service_command
from aimux.cli.units import Service, launchd_agent, systemd_socket, systemd_unit, unit_settings
from aimux.config import Listen, parse_config
from tests.tools import checkout, program

DEPLOY = checkout() / "deploy"
PROGRAM = ("/opt/aimux/bin/aimux",)
CONFIG = Path("/etc/aimux/config.yaml")
PLAIN = Service(PROGRAM, CONFIG, Listen.parse("127.0.0.1:8080"))
WITH_SOCKET = Service(PROGRAM, CONFIG, Listen.parse("127.0.0.1:8080"), socket=True)
LOW_PORT = Service(PROGRAM, CONFIG, Listen.parse(":443"))


def settings(unit: str) -> dict[str, list[str]]:
    """Every assignment of a unit, by name."""
    found: dict[str, list[str]] = {}
    for name, _, value in (line.partition("=") for line in unit.splitlines() if "=" in line):
        found.setdefault(name, []).append(value)
    return found


def test_the_files_of_the_repository_are_what_it_makes() -> None:
    assert (DEPLOY / "systemd/aimux.service").read_text() == systemd_unit(WITH_SOCKET, user=False)
    assert (DEPLOY / "systemd/aimux.socket").read_text() == systemd_socket(Listen.parse("127.0.0.1:8080"))
    agent = launchd_agent(Service(PROGRAM, None), home="/Users/you")
    assert (DEPLOY / "launchd/aimux.plist").read_text() == agent


@pytest.mark.parametrize("user", [False, True])
def test_the_hardening_is_the_one_of_unit_toml(user: bool) -> None:
    """So is the NixOS module's (tests/nix): the two can't drift apart."""
    unit = settings(systemd_unit(PLAIN, user=user))
    source = unit_settings()
    expected = source["service"] | source["hardening"] | ({} if user else source["system"])
    spelled = {True: "yes", False: "no"}
    for name, value in expected.items():
        values = value if isinstance(value, list) else [value]
        assert unit[name] == [spelled.get(one, str(one)) if isinstance(one, bool) else str(one) for one in values]
    assert user == (set(source["system"]) & set(unit) == set())


@pytest.mark.parametrize("user", [False, True])
def test_what_goes_wrong_stays_within_bounds(user: bool) -> None:
    unit = settings(systemd_unit(PLAIN, user=user))
    assert unit["LimitCORE"] == ["0"], "a core holds every credential"
    (memory,) = unit["MemoryMax"]
    largest = parse_config({}, environ={"HOME": "/"}, providers={}).max_body_size
    assert int(memory.removesuffix("G")) << 30 >= 2 * 16 * largest
    (tasks,) = unit["TasksMax"]
    assert int(tasks) >= 2 * 32 + 8, "the threads of a server, and those of a command beside it"


def test_a_unix_socket_is_not_for_everybody() -> None:
    assert settings(systemd_socket(Listen.parse("unix:/run/aimux.sock"))) == {
        "Description": ["aimux's socket"],
        "ListenStream": ["/run/aimux.sock"],
        "SocketMode": ["0660"],
        "WantedBy": ["sockets.target"],
    }


def test_a_low_port_takes_exactly_one_capability() -> None:
    unit = settings(systemd_unit(LOW_PORT, user=False))
    assert unit["CapabilityBoundingSet"] == unit["AmbientCapabilities"] == ["CAP_NET_BIND_SERVICE"]
    assert unit["PrivateUsers"] == ["no"]


@pytest.mark.parametrize("service", [PLAIN, WITH_SOCKET, LOW_PORT], ids=["plain", "socket", "low port"])
def test_systemd_has_nothing_to_say_against_it(service: Service, tmp_path: Path) -> None:
    analyze = program("systemd-analyze", "systemd")
    assert service.listen is not None
    units = {
        "aimux.socket": systemd_socket(service.listen),
        # /opt/aimux is not there, and a program that is missing is a complaint.
        "aimux.service": systemd_unit(Service(("/bin/true",), CONFIG, service.listen, service.socket), user=False),
    }
    for name, text in units.items():
        (tmp_path / name).write_text(text)
    verified = subprocess.run(
        [analyze, "verify", str(tmp_path / "aimux.service")], capture_output=True, text=True, timeout=60
    )
    assert (verified.returncode, verified.stderr) == (0, "")
    security = [analyze, "security", "--offline=yes", "--threshold=20", str(tmp_path / "aimux.service")]
    judged = subprocess.run(security, capture_output=True, text=True, timeout=60)
    assert judged.returncode == 0, judged.stdout


def test_words_of_a_command_line_are_taken_literally() -> None:
    odd = Service(("/opt/my apps/100%/aimux",), Path('/etc/$HOME/"c".yaml'))
    unit = settings(systemd_unit(odd, user=True))
    assert unit["ExecStart"] == ['"/opt/my apps/100%%/aimux" serve --config "/etc/$$HOME/\\"c\\".yaml"']


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setattr(sys, "argv", ["/opt/aimux/bin/aimux"])
    monkeypatch.setattr(service_module, "own_command", lambda: PROGRAM)
    return tmp_path


def install(*args: str) -> Result:
    return CliRunner().invoke(install_service_command, args)


def test_for_a_user(home: Path) -> None:
    done = install("--user")
    assert done.exit_code == 0, done.output
    unit = home / ".config/systemd/user/aimux.service"
    assert unit.read_text() == systemd_unit(Service(PROGRAM, None), user=True)
    assert "systemctl --user enable --now aimux.service" in done.output
    assert "enable-linger" in done.output


def test_with_a_socket_at_the_configured_address(home: Path) -> None:
    config = home / "config.yaml"
    config.write_text("listen: :4711\nusers:\n  - {name: a, token: '${cred:only-the-service-has-it}'}\n")
    done = install("--user", "--socket", "--config", str(config))
    assert done.exit_code == 0, done.output
    assert "ListenStream=4711\n" in (home / ".config/systemd/user/aimux.socket").read_text()
    unit = settings((home / ".config/systemd/user/aimux.service").read_text())
    assert unit["Requires"] == ["aimux.socket"]
    assert unit["ExecStart"] == [f"/opt/aimux/bin/aimux serve --config {config}"]


def test_a_unit_that_somebody_edited_stays(home: Path) -> None:
    assert install("--user").exit_code == 0
    assert install("--user").exit_code == 0  # the same again is no conflict
    unit = home / ".config/systemd/user/aimux.service"
    unit.write_text(unit.read_text() + "# mine\n")
    refused = install("--user")
    assert refused.exit_code == 1
    assert "--force" in refused.output
    assert unit.read_text().endswith("# mine\n")
    assert install("--user", "--force").exit_code == 0
    assert not unit.read_text().endswith("# mine\n")


def test_print_writes_nothing(home: Path) -> None:
    done = install("--print")
    assert done.exit_code == 0, done.output
    assert done.output.startswith("# /etc/systemd/system/aimux.service\n[Unit]\n")
    assert list(home.iterdir()) == []


def test_what_is_written_and_what_comes_next_in_json(home: Path) -> None:
    shown = json.loads(install("--user", "--print", "--json").stdout)
    assert not shown["written"]
    assert list(home.iterdir()) == []
    told = json.loads(install("--user", "--json").stdout)
    [file] = told["files"]
    assert file == shown["files"][0]
    assert Path(file["path"]).read_text() == file["content"]
    assert "systemctl --user daemon-reload" in told["next"]


def test_the_systems_service_sees_no_home_folder(home: Path) -> None:
    refused = install("--print", "--config", "/home/alice/config.yaml")
    assert refused.exit_code == 1
    assert "/home/alice/config.yaml is in a home folder" in refused.output
    assert "--user" in refused.output


def test_a_configuration_with_mistakes_is_not_installed(home: Path) -> None:
    config = home / "config.yaml"
    config.write_text("listn: :1\n")
    refused = install("--user", "--config", str(config))
    assert refused.exit_code == 1
    assert not (home / ".config").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_without_permission_it_says_what_to_do(home: Path) -> None:
    refused = install("--config", "/etc/aimux/config.yaml")
    assert refused.exit_code == 1
    assert "run it as root, or use --user" in refused.output


def test_on_macos(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert install().exit_code == 2
    done = install("--user")
    assert done.exit_code == 0, done.output
    agent = plistlib.loads((home / "Library/LaunchAgents/aimux.plist").read_bytes())
    assert agent["ProgramArguments"] == ["/opt/aimux/bin/aimux", "serve"]
    assert agent["StandardErrorPath"] == f"{home}/Library/Logs/aimux.log"
    assert "launchctl bootstrap" in done.output


def test_the_command_line_is_this_very_aimux(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "aimux"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "argv", [str(script)])
    assert service_module.own_command() == (str(script),)
    monkeypatch.setattr(sys, "argv", ["/usr/lib/python3/site-packages/aimux/cli/main.py"])
    assert service_module.own_command() == (sys.executable, "-m", "aimux.cli.main")
