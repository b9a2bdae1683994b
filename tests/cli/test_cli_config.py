from __future__ import annotations

import json
import os
from pathlib import Path

import yaml
from jsonschema import Draft202012Validator

from tests.cli.conftest import Aimux
from tests.cli.support import on_terminal

TOKEN = "a-token-of-some-length"
GOOD = f"""listen: 127.0.0.1:0
users:
  - {{name: alice, token: {TOKEN}}}
"""
BAD = """listn: x
users:
  - {name: alice, token: tiny-secret}
log_level: loud
"""


def write(folder: Path, text: str, name: str = "config.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    path.chmod(0o600)
    return path


def test_a_good_configuration(aimux: Aimux, tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    for done in (
        aimux("check-config"),
        aimux("check-config", AIMUX_CONFIG=str(path)),
        aimux("check-config", "--config", str(path)),
    ):
        assert (done.returncode, done.stdout, done.stderr) == (0, f"{path}: ok\n", "")


def test_who_reaches_what_is_told_where_groups_make_a_difference(aimux: Aimux, tmp_path: Path) -> None:
    path = write(
        tmp_path,
        f"""
providers:
  claude: {{accounts: {{paid: {{groups: [ci]}}, lab: {{groups: [dev]}}}}}}
  chatgpt:
users:
  - {{name: ann, token: {TOKEN}, groups: [dev]}}
  - {{name: bot, token: {TOKEN}2, groups: [ci], scopes: [claude]}}
  - {{name: cod, token: {TOKEN}3}}
groups:
  ci: {{reserved: true}}
""",
    )
    done = aimux("check-config")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        f"{path}: ok",
        "  claude: paid serves ci alone: bot",
        "  claude: lab serves dev, and users in no group: ann, cod",
        "  claude: every other account serves everybody: ann, bot, cod",
        "  chatgpt: every account serves everybody: ann, cod",
    ]


def test_no_configuration_at_all_is_fine(aimux: Aimux) -> None:
    done = aimux("check-config")
    assert (done.returncode, done.stderr) == (0, "")
    assert "there is no file" in done.stdout


def test_every_problem_in_a_pipe_is_a_line(aimux: Aimux, tmp_path: Path) -> None:
    path = write(tmp_path, BAD)
    for done in (aimux("check-config"), aimux("--config", str(path), "check-config"), aimux("serve")):
        assert done.returncode == 1
        assert done.stdout == ""
        assert done.stderr.splitlines() == [
            f"{path}:1: listn: is not a known setting (did you mean listen?)",
            f"{path}:3: users[0].token: has 11 characters, and at least 16 are needed (make one: openssl rand -hex 32)",
            f"{path}:4: log_level: must be one of debug, info, warning, error",
        ]


def test_a_file_that_is_not_there(aimux: Aimux, tmp_path: Path) -> None:
    done = aimux("check-config", "--config", "no.yaml")
    assert done.returncode == 1
    assert f"{tmp_path / 'no.yaml'} does not exist" in done.stderr
    assert "--config or AIMUX_CONFIG" in done.stderr


def test_warnings_do_not_fail(aimux: Aimux, tmp_path: Path) -> None:
    path = write(tmp_path, "listen: ':1'\n")
    done = aimux("check-config")
    assert done.returncode == 0
    assert done.stderr.startswith(f"Warning: {path}:1: listen: there are no users")


def test_what_would_do_nothing_is_warned_about(aimux: Aimux, tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """compatibility: [claude-proxy, claude-prox]
providers: {claude: {api_key: sk-proj-of-openai}, chatgpt: {api_key: "sk-a-key"}}
""",
    )
    known = "known are claude-code-mux, claude-proxy, link-assistant-router"
    done = aimux("check-config")
    assert done.returncode == 0
    assert done.stderr.splitlines() == [
        f"Warning: {path}:2: providers.claude.api_key: holds an OpenAI API key; Anthropic's begin with sk-ant- "
        "(set it to a key of this provider, or remove it)",
        f"Warning: {path}:1: compatibility[1]: no plugin knows 'claude-prox' ({known})",
    ]
    path.unlink()
    [warning] = json.loads(aimux("check-config", "--json", AIMUX_COMPATIBILITY="claude-prox").stdout)["warnings"]
    assert (warning["file"], warning["path"]) == ("AIMUX_COMPATIBILITY", "compatibility[0]")


def test_the_effective_configuration_is_printed_without_secrets(aimux: Aimux, tmp_path: Path) -> None:
    write(tmp_path, GOOD + "providers: {claude: {api_key: '${env:KEY}'}}\n")
    done = aimux("check-config", "--print", AIMUX_LOG_LEVEL="debug", KEY="sk-very-secret-key")
    assert done.returncode == 0
    shown = yaml.safe_load(done.stdout)
    assert shown["log_level"] == "debug"
    assert shown["request_timeout"] == "10m"
    assert shown["users"] == [
        {
            "name": "alice",
            "token": "********",
            "role": "member",
            "groups": [],
            "scopes": [],
            "weak": False,
            "pin_accounts": False,
            "own_login": False,
        }
    ]
    assert shown["providers"]["claude"]["api_key"] == "********"
    assert "secret" not in done.stdout + done.stderr
    assert TOKEN not in done.stdout + done.stderr


def test_a_build_without_secrets_can_check(aimux: Aimux, tmp_path: Path) -> None:
    path = write(tmp_path, "users: [{name: a, token: '${cred:a}'}, {name: b, token_file: /run/secrets/b}]")
    assert aimux("check-config").returncode == 1
    done = aimux("check-config", "--without-secrets")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{path}: ok\n", "")
    write(tmp_path, "users: [{name: a, tokn: '${cred:a}'}]")
    assert "did you mean token?" in aimux("check-config", "--without-secrets").stderr
    assert aimux("check-config", "--without-secrets", "--print").returncode == 2


def test_on_a_terminal_problems_are_laid_out(tmp_path: Path) -> None:
    path = write(tmp_path, BAD)
    code, text = on_terminal(tmp_path, "check-config", columns=70)
    assert code == 1
    assert "\x1b[" in text
    for part in (
        str(path.name),
        "3 errors",
        "users[0].token",
        "line 3",
        "→ did you mean listen?",
        "→ make one: openssl",
    ):
        assert part in text
    assert "tiny-secret" not in text


def test_the_schema_is_printed(aimux: Aimux) -> None:
    done = aimux("config-schema")
    assert done.returncode == 0
    schema = json.loads(done.stdout)
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema).validate(yaml.safe_load(GOOD))
    assert {"claude", "chatgpt"} <= set(json.dumps(schema).replace('"', " ").split())


# --- providers -------------------------------------------------------------------------------------------------------


def broken_plugin(folder: Path) -> str:
    """A distribution whose plugin can't be imported, for PYTHONPATH."""
    info = folder / "plugins" / "aimux_broken-1.2.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: aimux-broken\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text("[aimux]\nbroken = aimux_broken\n")
    (folder / "plugins" / "aimux_broken.py").write_text("raise RuntimeError('out of order')\n")
    return os.pathsep.join([str(folder / "plugins"), *filter(None, [os.environ.get("PYTHONPATH")])])


def test_providers_are_listed(aimux: Aimux) -> None:
    done = aimux("providers")
    assert (done.returncode, done.stderr) == (0, "")
    head, *rows = [line.split() for line in done.stdout.splitlines()]
    assert head == ["PLUGIN", "BRINGS", "DISTRIBUTION", "VERSION", "STATE"]
    assert {row[0] for row in rows} >= {"claude", "chatgpt"}
    assert all(row[-1] == "loaded" for row in rows)


def test_a_plugin_that_fails_is_named_and_the_others_go_on(aimux_process: Aimux, tmp_path: Path) -> None:
    path = broken_plugin(tmp_path)
    done = aimux_process("providers", PYTHONPATH=path)
    assert done.returncode == 1
    [row] = [line for line in done.stdout.splitlines() if line.startswith("broken")]
    assert row.split()[1:] == ["-", "aimux-broken", "1.2", "failed:", "RuntimeError:", "out", "of", "order"]

    done = aimux_process("providers", "--json", PYTHONPATH=path)
    plugins = {plugin["name"]: plugin for plugin in json.loads(done.stdout)}
    assert plugins["broken"]["error"] == "RuntimeError: out of order"
    assert plugins["claude"]["providers"] == ["claude"]
    assert plugins["claude"]["error"] is None

    done = aimux_process("check-config", PYTHONPATH=path)
    assert done.returncode == 0
    assert "Warning: The plugin broken (aimux-broken) is left out: RuntimeError: out of order" in done.stderr
