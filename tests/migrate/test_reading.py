"""How sources are recognised and read: whatever a file holds, it gives a plan or one clear refusal."""

from __future__ import annotations

import copy
import json
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aimux.accounts.kept import kept_logins
from aimux.cli.migrate import migrate_command
from aimux.migrate import NAMES, MigrationError, read_source
from aimux.migrate.credentials import timestamp
from aimux.migrate.dotenv import read_environment
from aimux.migrate.plan import address, clean, unique

FIXTURES = Path(__file__).parent / "fixtures"
FILES = {
    "ai-mux": "ai-mux/config.yaml",
    "claude-code-mux": "claude-code-mux/config.toml",
    "claude-proxy": "claude-proxy/config.yaml",
    "cli-proxy-api": "cli-proxy-api/config.yaml",
    "link-assistant-router": "link-router/router.env",
    "maxmux": "maxmux/config.yaml",
    "sing-box": "sing-box/config.json",
}


def document(name: str) -> dict[str, Any]:
    path = FIXTURES / FILES[name]
    text = path.read_text()
    if path.suffix == ".toml":
        return tomllib.loads(text)
    if path.suffix == ".env":
        return dict(read_environment(text))
    loaded: dict[str, Any] = yaml.safe_load(text.replace("@", "x"))
    return loaded


def test_there_is_a_fixture_for_every_source() -> None:
    assert set(FILES) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_each_file_is_recognised_as_what_it_is(name: str) -> None:
    assert read_source(FIXTURES / FILES[name]).source == name


@pytest.mark.parametrize("name", NAMES)
def test_editors_of_windows_may_have_written_it(tmp_path: Path, name: str) -> None:
    """A byte order mark, and CRLF."""
    shutil.copytree((FIXTURES / FILES[name]).parent, tmp_path, dirs_exist_ok=True)
    file = tmp_path / Path(FILES[name]).name
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n"))
    assert read_source(file).source == name


def test_a_folder_of_logins_alone_is_cli_proxy_apis() -> None:
    plan = read_source(FIXTURES / "cli-proxy-api/auth")
    assert plan.source == "cli-proxy-api"
    assert {(account.instance, account.name) for account in plan.accounts} == {
        ("claude", "default"),
        ("chatgpt", "default"),
    }


def test_a_folder_with_a_configuration_is_read_by_it() -> None:
    assert read_source(FIXTURES / "claude-proxy").source == "claude-proxy"


@pytest.mark.parametrize(
    ("files", "source"),
    [
        ({".env": "TOKEN_SECRET=s3cret\n"}, "link-assistant-router"),
        ({"config.yaml": "virtual_keys: [k]\n"}, "maxmux"),
        ({"config.json": '{"theme": "dark"}', "accounts.json": "[]", "tokens.json": "[]"}, "claude-proxy"),
        ({"account_1.json": '{"access_token": "x"}'}, "claude-proxy"),
        ({"x.json": '{"type": "codex", "access_token": "x"}', "y.json": "{"}, "cli-proxy-api"),
    ],
)
def test_a_folder_is_what_it_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], source: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    try:
        assert read_source(tmp_path).source == source
    except MigrationError as error:
        assert "y.json is not valid JSON" in str(error)


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({}, "holds neither a configuration nor logins"),
        ({"package.json": '{"name": "x", "type": "module"}', "notes.json": "[]"}, "holds neither"),
        ({".credentials.json": "{}", "config.json": "{}"}, "aimux import --link"),
        ({"auth.json": '{"OPENAI_API_KEY": null, "tokens": {"access_token": "x"}}'}, "aimux import --link"),
        (
            {"auth.json": '{"openai": {"type": "api", "key": "k"}}'},
            "auth.json holds logins and no gateway's configuration",
        ),
    ],
)
def test_a_folder_of_something_else_is_refused(tmp_path: Path, files: dict[str, str], says: str) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(MigrationError, match=says):
        read_source(tmp_path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def places(data: object, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    steps = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [path] * bool(path) + [place for key, value in steps for place in places(value, (*path, key))]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
@pytest.mark.parametrize("name", NAMES)
def test_any_value_anywhere_gives_a_plan_or_a_refusal(name: str, tmp_path: Path, data: st.DataObject) -> None:
    wrong = copy.deepcopy(document(name))
    path = data.draw(st.sampled_from(places(wrong)))
    holder: Any = wrong
    for step in path[:-1]:
        holder = holder[step]
    holder[path[-1]] = data.draw(JSON)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(wrong))
    try:
        plan = read_source(file, name)
    except MigrationError as error:
        assert "\n" not in str(error)
    else:
        assert plan.config["providers"] is not None


@settings(max_examples=60)
@given(entry=JSON)
def test_any_value_in_what_another_program_keeps_is_a_login_or_none(entry: object) -> None:
    tokens = {"type": "oauth", "access": entry, "refresh": "r"}
    sub2api = {"platform": "openai", "name": entry, "credentials": {"access_token": entry}, "extra": entry}
    for content in (entry, [entry], {"accounts": [entry, sub2api]}, {"x": entry, "y": tokens}, {"data": entry}):
        for login in kept_logins(json.dumps(content).encode()):
            assert isinstance(json.loads(login.raw), dict)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("x.yaml", "a: [", "not valid YAML (line 1)"),
        ("x.toml", "a =", "not valid TOML"),
        ("x.json", "{", "not valid JSON (line 1, column 2)"),
        ("x.yaml", "just words", "holds no configuration"),
        ("x.yaml", "something: else", "is of no gateway that is known here; name it with --from"),
        (
            "x.json",
            '{"openai": {"type": "api", "key": "k"}}',
            "holds logins and no gateway's configuration: `aimux import ",
        ),
        (
            "x.json",
            '[{"type": "codex", "access_token": "x"}]',
            "holds logins and no gateway's configuration: `aimux import ",
        ),
    ],
)
def test_a_file_of_something_else_is_refused(tmp_path: Path, name: str, text: str, says: str) -> None:
    (tmp_path / name).write_text(text)
    done = CliRunner().invoke(migrate_command, [str(tmp_path / name), "--dry-run"])
    assert done.exit_code == 1
    assert says in done.output


def test_an_account_that_differs_is_not_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    source = tmp_path / "maxmux.yaml"
    source.write_text("oauth_token: sk-ant-oat01-the-new-one\nvirtual_keys: []\n")
    there = tmp_path / "state/claude/.credentials.json"
    there.parent.mkdir(parents=True, mode=0o700)
    there.write_text('{"claudeAiOauth": {"accessToken": "sk-ant-oat01-the-old-one"}}')
    there.chmod(0o600)
    output = tmp_path / "aimux.yaml"
    args = [str(source), "--output", str(output), "--state-dir", str(tmp_path / "state")]
    done = CliRunner().invoke(migrate_command, args)
    assert done.exit_code == 1
    assert "has a different account claude/default already" in done.output
    assert not output.exists()
    assert "the-old-one" in there.read_text()


def test_a_credential_that_its_provider_can_not_read_is_reported(tmp_path: Path) -> None:
    (tmp_path / "claude-a.json").write_text('{"type": "claude", "email": "a@example.org", "access_token": ""}')
    args = [str(tmp_path), "--from", "cli-proxy-api", "--dry-run", "--state-dir", str(tmp_path / "state")]
    done = CliRunner().invoke(migrate_command, args)
    assert done.exit_code == 1, done.output
    assert "! account 'default' from claude-a.json" in done.output
    assert "! accounts: none came along" in done.output


@pytest.mark.parametrize(
    ("text", "variables"),
    [
        ("A=1\n# c\nexport B='two words'  # d\n", {"A": "1", "B": "two words"}),
        ("token-secret = abc # x\n", {"TOKEN_SECRET": "abc"}),
        ('A="1\n', {"A": '"1'}),
        ("a: 1\n", {}),
        ("", {}),
    ],
)
def test_environments(text: str, variables: dict[str, str]) -> None:
    assert read_environment(text) == variables


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("2026-01-01T00:00:00Z", 1767225600.0),
        ("2026-01-01T01:00:00.123456789+01:00", 1767225600.123456),
        ("2026-01-01T00:00:00", 1767225600.0),
        (1767225600000, 1767225600.0),
        (1767225600, 1767225600.0),
        ("1767225600000", 1767225600.0),
        ("1767225600", 1767225600.0),
        (0, None),
        ("0001-01-01T00:00:00Z", None),
        ("soon", None),
        (None, None),
        (True, None),
    ],
)
def test_times(written: object, seconds: float | None) -> None:
    assert timestamp(written) == seconds


@pytest.mark.parametrize(
    ("host", "listen"),
    [("", ":1"), ("0.0.0.0", ":1"), ("::", ":1"), ("127.0.0.1", "127.0.0.1:1"), ("::1", "[::1]:1")],
)
def test_addresses(host: str, listen: str) -> None:
    assert address(host, "1") == listen


@given(st.lists(st.text(max_size=80), max_size=6))
def test_names_become_usable_and_stay_apart(names: list[str]) -> None:
    from aimux.accounts.vault import ACCOUNT_NAME

    taken: list[str] = []
    for name in names:
        taken.append(unique(clean(name, "account"), taken))
    assert len(set(taken)) == len(names)
    assert all(ACCOUNT_NAME.fullmatch(name) for name in taken)
