"""`aimux connect`: what it shows, and what becomes of files that are there already."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimux.control.client_files import MergeError, dump, merged
from aimux.control.clients import CLIENTS
from tests.cli.conftest import Aimux
from tests.cli.support import read_until, type_hidden
from tests.running import free_port
from tests.tools import child_environ

TOKEN = "ann-token-0123456789abcdef"
OTHER = "bob-token-0123456789abcdef"


@pytest.fixture(autouse=True)
def config(tmp_path: Path) -> Path:
    users = [{"name": "ann", "token": TOKEN}, {"name": "bob", "token": OTHER}]
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps({"users": users}))
    path.chmod(0o600)
    return path


def change(config: Path, **settings: Any) -> None:
    config.write_text(json.dumps(json.loads(config.read_text()) | settings))


# --- shown -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("client", CLIENTS)
def test_what_is_shown_holds_the_address_and_no_token(aimux: Aimux, client: str) -> None:
    done = aimux("connect", client, AIMUX_TOKEN=TOKEN)
    assert (done.returncode, done.stderr) == (0, "")
    assert "http://127.0.0.1:8080/c" in done.stdout
    assert TOKEN not in done.stdout


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("options", [(), ("--write", "--user", "ann")])
def test_what_is_shown_or_written_in_json(aimux: Aimux, client: str, options: tuple[str, ...]) -> None:
    done = aimux("connect", client, "--json", *options, AIMUX_TOKEN=TOKEN)
    if options and CLIENTS[client].file is None:
        assert done.returncode == 2
        return
    told = json.loads(done.stdout)
    assert (told["client"], told["address"]) == (client, "http://127.0.0.1:8080")
    assert TOKEN not in done.stdout + done.stderr
    if (file := told["file"]) is not None:
        assert file["written"] is bool(options)
        assert Path(file["path"]).exists() is bool(options)
        assert "http://127.0.0.1:8080/c" in json.dumps(file["settings"])


def test_what_is_shown_is_a_whole_file(aimux: Aimux, tmp_path: Path) -> None:
    shown = aimux("connect", "claude-code").stdout
    assert f"{tmp_path}/.claude/settings.json" in shown
    settings, _ = json.JSONDecoder().raw_decode(shown, shown.index("{"))
    assert settings["env"]["ANTHROPIC_BASE_URL"] == "http://127.0.0.1:8080/claude"
    shown = aimux("connect", "codex", CODEX_HOME=str(tmp_path / "codex")).stdout
    assert f"{tmp_path}/codex/config.toml" in shown
    entry = tomllib.loads(shown[shown.index("model_provider") : shown.index("With `env_key`")])
    aimux_entry = entry["model_providers"]["aimux"]
    assert aimux_entry["env_key"] == "AIMUX_TOKEN"
    assert aimux_entry["model_catalog_url"] == f"{aimux_entry['base_url']}/models"
    assert entry["features"] == {"api_key_model_discovery": True}


@pytest.mark.parametrize(
    ("settings", "arguments", "url"),
    [
        ({"listen": "[::1]:9000"}, [], "http://[::1]:9000/claude"),
        ({"mounts": {"/": "claude"}}, [], 'http://127.0.0.1:8080"'),
        ({"mounts": {"/a": "chatgpt", "/b/c": "claude"}}, [], "http://127.0.0.1:8080/b/c"),
        ({"mounts": {"/a": "claude", "/b": "claude"}}, ["--mount", "/b/"], "http://127.0.0.1:8080/b"),
        ({"listen": "unix:/run/aimux.sock"}, ["--url", "https://aimux.example/"], "https://aimux.example/claude"),
        ({"tls": {"enabled": True, "self_signed": True}}, [], "https://127.0.0.1:8080/claude"),
    ],
)
def test_the_address(aimux: Aimux, config: Path, settings: dict[str, Any], arguments: list[str], url: str) -> None:
    change(config, **settings)
    done = aimux("connect", "claude-code", *arguments, "--config", str(config))
    assert done.returncode == 0, done.stderr
    assert url in done.stdout
    assert ("NODE_EXTRA_CA_CERTS" in done.stdout) == ("tls" in settings)


@pytest.mark.parametrize(
    ("client", "says"),
    [
        ("claude-code", "should be unset"),
        ("codex", "export CODEX_CA_CERTIFICATE="),
        ("opencode", "export NODE_EXTRA_CA_CERTS="),
    ],
)
def test_what_is_written_tells_what_is_still_needed(
    aimux: Aimux, config: Path, tmp_path: Path, client: str, says: str
) -> None:
    change(config, tls={"enabled": True, "self_signed": True})
    done = aimux("connect", client, "--write", AIMUX_TOKEN=TOKEN)
    assert done.returncode == 0, done.stderr
    assert "uses https://127.0.0.1:8080 from its next start on" in done.stdout
    assert says in done.stdout
    assert "https://127.0.0.1:8080/certificate.pem" in done.stdout
    assert "aimux makes it at its first start" in done.stderr


def test_a_certificate_that_was_fetched(aimux: Aimux, tmp_path: Path) -> None:
    (tmp_path / "their.pem").write_text("a certificate")
    done = aimux("connect", "claude-code", "--url", "https://gateway.lan", "--certificate", "their.pem")
    assert f'"NODE_EXTRA_CA_CERTS": "{tmp_path}/their.pem"' in done.stdout, done.stderr


def test_a_token_of_the_database(aimux: Aimux, config: Path, tmp_path: Path) -> None:
    change(config, users=[], listen=f"127.0.0.1:{free_port()}")
    assert aimux("users", "add", "dora").returncode == 0
    token = json.loads(aimux("tokens", "issue", "--user", "dora", "--json").stdout)["token"]
    assert "nobody's here" in aimux("connect", "claude-code", "--write", AIMUX_TOKEN=OTHER).stderr
    done = aimux("connect", "claude-code", "--write", "--user", "dora", AIMUX_TOKEN=token)
    assert done.returncode == 0, done.stderr
    assert token in (tmp_path / ".claude" / "settings.json").read_text()


def test_a_host_with_a_mounts_name(aimux: Aimux) -> None:
    assert "http://claude/claude" in aimux("connect", "claude-code", "--url", "http://claude").stdout


def test_every_address_is_this_machine_here(aimux: Aimux, config: Path) -> None:
    change(config, listen=":8080")
    done = aimux("connect", "sdk")
    assert "http://localhost:8080/claude" in done.stdout
    assert "add --url" in done.stderr


# --- written ---------------------------------------------------------------------------------------------------------


def test_a_file_is_made_for_its_owner_alone(aimux: Aimux, tmp_path: Path) -> None:
    done = aimux("connect", "claude-code", "--write", "--user", "ann", AIMUX_TOKEN=TOKEN)
    assert done.returncode == 0, done.stderr
    path = tmp_path / ".claude" / "settings.json"
    env = {"ANTHROPIC_BASE_URL": "http://127.0.0.1:8080/claude", "ANTHROPIC_AUTH_TOKEN": TOKEN}
    assert json.loads(path.read_text()) == {"env": env}
    assert path.stat().st_mode & 0o777 == 0o600
    assert TOKEN not in done.stdout + done.stderr
    assert [file.name for file in path.parent.iterdir()] == ["settings.json"]


def test_what_is_there_stays_and_is_kept(aimux: Aimux, tmp_path: Path) -> None:
    path = tmp_path / ".codex" / "config.toml"
    path.parent.mkdir()
    before = (
        "# mine\nmodel = 'gpt-5.5'  # the best\nmodel_provider = \"other\"\n\n"
        "[model_providers.other]\nname = 'Other'\n\n[tui]\nsounds = false\n"
    )
    path.write_text(before)
    done = aimux("connect", "codex", "--write", AIMUX_TOKEN=TOKEN)
    assert done.returncode == 0, done.stderr
    after = path.read_text()
    read = tomllib.loads(after)
    assert after.startswith("# mine\nmodel = 'gpt-5.5'  # the best\n")
    assert read["model_provider"] == "aimux"
    assert read["model_providers"]["aimux"]["experimental_bearer_token"] == TOKEN
    assert (read["model_providers"]["other"], read["tui"]) == ({"name": "Other"}, {"sounds": False})
    (backup,) = path.parent.glob("*.bak")
    assert backup.read_text() == before
    assert str(backup) in done.stdout
    assert aimux("connect", "codex", "--write", AIMUX_TOKEN=TOKEN).returncode == 0
    assert path.read_text() == after, "a second time changes nothing"
    assert len(list(path.parent.glob("*.bak"))) == 1


def test_a_link_stays_one(aimux: Aimux, tmp_path: Path) -> None:
    real = tmp_path / "dotfiles.json"
    real.write_text('{"theme": "dark"}')
    link = tmp_path / ".claude" / "settings.json"
    link.parent.mkdir()
    link.symlink_to(real)
    assert aimux("connect", "claude-code", "--write", AIMUX_TOKEN=TOKEN).returncode == 0
    assert link.is_symlink()
    assert json.loads(real.read_text())["theme"] == "dark"


def test_the_token_comes_by_standard_input_too(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "aimux.cli.main", "connect", "opencode", "--write"],
        input=f"{TOKEN}\n",
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=child_environ(tmp_path),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    settings = json.loads((tmp_path / ".config" / "opencode" / "opencode.json").read_text())
    options = {"baseURL": "http://127.0.0.1:8080/claude/v1", "apiKey": TOKEN}
    assert settings["provider"]["anthropic"]["options"] == options


def test_a_terminal_is_asked_and_shows_nothing(tmp_path: Path) -> None:
    outside, inside = pty.openpty()
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "aimux.cli.main", "connect", "claude-code", "--write", "--user", "ann"],
            stdin=inside,
            stdout=inside,
            stderr=inside,
            cwd=tmp_path,
            env=child_environ(tmp_path, TERM="dumb"),
            start_new_session=True,
        )
        shown = read_until(outside, "Token of ann:")
        type_hidden(outside, TOKEN)
        assert process.wait(60) == 0
        shown += os.read(outside, 4096).decode()
    finally:
        os.close(outside)
        os.close(inside)
    assert TOKEN not in shown
    assert TOKEN in (tmp_path / ".claude" / "settings.json").read_text()


def test_without_users_no_token_is_asked_for(aimux: Aimux, config: Path, tmp_path: Path) -> None:
    config.write_text("{}")
    assert aimux("connect", "claude-code", "--write").returncode == 0
    assert "no-token-is-needed" in (tmp_path / ".claude" / "settings.json").read_text()


# --- refused ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "token", "says"),
    [
        (["claude-code", "--user", "carol"], TOKEN, "there is no 'carol'; there are ann, bob"),
        (["claude-code", "--user", "ann"], OTHER, "not the token of ann"),
        (["claude-code"], "nobody-knows-this-token", "is nobody's here"),
        (["claude-code"], "sk-ant-oat01-0123456789-a-login", "not an aimux token"),
        (
            ["claude-code", "--url", "https://elsewhere.example"],
            "sk-ant-oat01-0123456789-a-login",
            "not an aimux token",
        ),
        (["claude-code"], "", "There is no token: set AIMUX_TOKEN"),
        (["claude-code", "--url", "aimux.example"], TOKEN, "does not begin with http"),
        (["claude-code", "--url", "https://aimux.example/claude"], TOKEN, "leave /claude out"),
        (["claude-code", "--url", "https://aimux.example/ai/chatgpt/v1/"], TOKEN, "leave /chatgpt out"),
        (["claude-code", "--mount", "/nowhere"], TOKEN, "there is no '/nowhere'; there are /"),
        (["sdk"], TOKEN, "can't be set up by a file"),
        (["cursor"], TOKEN, "can't be set up by a file"),
    ],
)
def test_a_wrong_call_writes_nothing(aimux: Aimux, tmp_path: Path, arguments: list[str], token: str, says: str) -> None:
    done = aimux("connect", *arguments, "--write", AIMUX_TOKEN=token)
    assert done.returncode in {1, 2}
    assert says in " ".join(done.stderr.split())
    assert not token or token not in done.stdout + done.stderr
    assert not (tmp_path / ".claude").exists()


@pytest.mark.parametrize(
    ("settings", "client", "says"),
    [
        ({"listen": "unix:/run/aimux.sock"}, "claude-code", "--url"),
        ({"providers": ["chatgpt"]}, "claude-code", "needs a mount of Claude"),
        ({"providers": ["claude"]}, "codex", "needs a mount of ChatGPT"),
        ({"providers": ["claude"]}, "cursor", "needs a mount of ChatGPT"),
    ],
)
def test_a_gateway_that_the_client_can_not_use(
    aimux: Aimux, config: Path, settings: dict[str, Any], client: str, says: str
) -> None:
    change(config, **settings)
    done = aimux("connect", client)
    assert done.returncode in {1, 2}
    assert says in " ".join(done.stderr.split())


@pytest.mark.parametrize("text", ["{ // mine\n}", "[]", '{"env": 1}', "\xff"])
def test_a_file_that_can_not_be_merged_is_left_alone(aimux: Aimux, tmp_path: Path, text: str) -> None:
    path = tmp_path / ".claude" / "settings.json"
    path.parent.mkdir()
    path.write_bytes(text.encode("latin-1"))
    done = aimux("connect", "claude-code", "--write", AIMUX_TOKEN=TOKEN)
    assert done.returncode == 1
    assert str(path) in done.stderr
    assert "Without --write the settings are shown" in " ".join(done.stderr.split())
    assert path.read_bytes() == text.encode("latin-1")
    assert len(list(path.parent.iterdir())) == 1


# --- merging ---------------------------------------------------------------------------------------------------------

KEYS = st.text("abc-_ \"'.é", min_size=1, max_size=4)
VALUES = st.recursive(
    st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=10,
)
DOCUMENTS = st.dictionaries(KEYS, VALUES, max_size=4)
SETTINGS = {"model_provider": "aimux", "model_providers": {"aimux": {"name": "aimux", "base_url": "http://x"}}}


def read(text: str, file_format: str) -> Any:
    return json.loads(text) if file_format == "json" else tomllib.loads(text)


@pytest.mark.parametrize("file_format", ["json", "toml"])
@given(document=DOCUMENTS)
def test_merging_changes_what_it_sets_and_nothing_else(file_format: Any, document: dict[str, Any]) -> None:
    text = dump(document, file_format)
    after = read(merged(text, SETTINGS, file_format), file_format)
    assert after["model_provider"] == "aimux"
    assert after["model_providers"] == SETTINGS["model_providers"]
    assert {key: value for key, value in after.items() if key not in SETTINGS} == document
    again = merged(text, SETTINGS, file_format)
    assert merged(again, SETTINGS, file_format) == again


def dotted() -> Iterator[str]:
    yield 'model_providers.aimux.name = "old"\n'
    yield 'model_providers = { aimux = { name = "old" } }\n'
    yield '[model_providers]\naimux = { name = "old" }\n'
    yield '[model_providers.aimux]\nname = "old"\n[model_providers.aimux.http_headers]\na = "b"\n[[x]]\n'
    yield "[[x]]\na = 1\n[model_providers.b]\n"


@pytest.mark.parametrize("text", list(dotted()))
def test_toml_in_any_spelling(text: str) -> None:
    after = tomllib.loads(merged(text, SETTINGS, "toml"))
    assert after["model_provider"] == "aimux"
    assert after["model_providers"]["aimux"].items() >= {"name": "aimux", "base_url": "http://x"}.items()


def test_what_is_no_toml() -> None:
    with pytest.raises(MergeError, match="is not TOML"):
        merged("model = ", SETTINGS, "toml")
