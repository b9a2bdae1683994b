"""`aimux seed`: first credentials, put in place by whatever sets a machine up."""

from __future__ import annotations

import asyncio
import json
import pwd
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from aimux.cli.seed import seed_command
from aimux.simulator import Simulator, credential_file, provider_settings
from tests.running import ask, serving_file
from tests.tools import child_environ

LOGIN = {"claudeAiOauth": {"accessToken": "sk-ant-oat01-first", "refreshToken": "sk-ant-ort01-first", "expiresAt": 1}}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a login and a state folder of its own."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AIMUX_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "login.json").write_text(json.dumps(LOGIN))
    return tmp_path


def seed(*args: str) -> Result:
    return CliRunner().invoke(seed_command, args)


def test_a_login_is_put_in_place_once(place: Path) -> None:
    stored = place / "state/claude/.credentials.json"
    assert seed("claude=login.json").output == "claude/default comes from login.json.\n"
    assert json.loads(stored.read_text()) == LOGIN
    assert stored.stat().st_mode & 0o777 == 0o600
    stored.write_text(stored.read_text().replace("first", "renewed"))
    again = seed("claude=login.json")
    assert (again.exit_code, again.output) == (0, "claude/default already exists.\n")
    assert "renewed" in stored.read_text()


def test_a_user_that_no_file_names_may_do_it(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as OpenShift gives a pod: it has neither a name nor, sometimes, a home."""

    def nobody(_: int) -> None:
        raise KeyError

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    assert seed("claude=login.json").output == "claude/default comes from login.json.\n"


def test_what_was_put_in_place_in_json(place: Path) -> None:
    item = {"provider": "claude", "name": "default"}
    assert json.loads(seed("claude=login.json", "--json").stdout) == {"items": [item | {"added": True}]}
    assert json.loads(seed("claude=login.json", "--json").stdout) == {"items": [item | {"added": False}]}


def test_what_is_there_is_not_even_compared(place: Path) -> None:
    assert seed("claude=login.json").exit_code == 0
    assert seed("claude=no-such-file").exit_code == 0


def test_several_accounts_and_instances(place: Path) -> None:
    (place / "config.yaml").write_text(yaml.safe_dump({"providers": {"lab": {"type": "claude"}, "claude": {}}}))
    assert seed("lab=login.json", "claude/work=login.json").exit_code == 0
    state = place / "state"
    assert {str(path.relative_to(state)) for path in state.rglob("*.json")} == {
        "lab/.credentials.json",
        "claude/work/.credentials.json",
    }


def test_the_users_tokens_are_not_needed(place: Path) -> None:
    """A container's init has the login alone; the key that would encrypt it is."""
    config = place / "config.yaml"
    config.write_text("users:\n  - {name: ann, token: '${file:/nowhere}'}\nproviders: [claude]\n")
    assert seed("claude=login.json").output == "claude/default comes from login.json.\n"
    config.write_text("database: {url: 'postgresql://127.0.0.1:9/x', encryption_key: '${file:/nowhere}'}\n")
    refused = seed("claude/b=login.json")
    assert refused.exit_code == 1
    assert "encryption_key" in refused.output


def test_the_standard_input_is_one_accounts(place: Path) -> None:
    """A login that only its owner can read reaches the user of a container that way."""
    done = CliRunner().invoke(seed_command, ["claude=-"], input=json.dumps(LOGIN))
    assert done.output == "claude/default comes from the standard input.\n"
    assert json.loads((place / "state/claude/.credentials.json").read_text()) == LOGIN
    assert CliRunner().invoke(seed_command, ["claude=-"], input="").output == "claude/default already exists.\n"
    bad = CliRunner().invoke(seed_command, ["claude/b=-"], input="secret")
    assert (bad.exit_code, bad.output) == (1, "Error: the standard input is not valid JSON (line 1, column 1)\n")


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        ([], 2, "Missing argument"),
        (["claude"], 2, "'claude' is not PROVIDER=FILE"),
        (["claude/=x"], 2, "'claude/=x' is not PROVIDER=FILE"),
        (["=x"], 2, "'=x' is not PROVIDER=FILE"),
        (["nobody=login.json"], 1, "nobody"),
        (["claude=-", "claude/b=-"], 2, "can be one account's"),
        (["claude=no-such-file"], 1, "can't read no-such-file: No such file or directory"),
        (["claude=config.json"], 1, "config.json is not valid JSON"),
        (["claude/../x=login.json"], 1, "can't be a name"),
    ],
)
def test_mistakes(place: Path, args: list[str], code: int, says: str) -> None:
    (place / "config.json").write_text("secret, but not JSON")
    done = seed(*args)
    assert done.exit_code == code
    assert says in done.output
    assert "secret" not in done.output
    assert not list(place.rglob("state/**/*.json"))


def test_a_provider_that_the_configuration_leaves_out_is_refused(place: Path) -> None:
    (place / "config.yaml").write_text("providers: [claude]\n")
    refused = seed("chatgpt=login.json")
    assert refused.exit_code == 1
    assert "has no provider 'chatgpt'; it has claude" in refused.output


async def test_a_seeded_login_that_is_due_is_renewed_and_kept(place: Path) -> None:
    """What the NixOS module does, without NixOS: seed, serve, and after a restart go on with the renewed login."""
    async with Simulator() as upstream:
        login = json.loads(credential_file(upstream.accounts["claude"]))
        login["claudeAiOauth"]["expiresAt"] = 1000
        (place / "login.json").write_text(json.dumps(login))
        config = place / "config.yaml"
        settings = {"claude": provider_settings(upstream.url)["claude"]}
        config.write_text(yaml.safe_dump({"listen": "127.0.0.1:0", "state_dir": "state", "providers": settings}))

        def lives() -> str:
            assert seed("claude=login.json").exit_code == 0
            with serving_file(config, place) as address:
                assert ask(address, "") == "text"
            stored = json.loads((place / "state/claude/.credentials.json").read_text())
            token: str = stored["claudeAiOauth"]["accessToken"]
            return token

        first = await asyncio.to_thread(lives)
        assert first != login["claudeAiOauth"]["accessToken"]
        assert await asyncio.to_thread(lives) == first


def test_two_pods_that_start_at_once_on_an_empty_postgresql(place: Path, postgresql_url: str) -> None:
    """The one that comes second may fail and is started again, as Kubernetes does it, or say the same; the login is
    there once."""
    environ = child_environ(
        place,
        AIMUX_STATE_DIR=str(place / "state"),
        AIMUX_DATABASE__URL=postgresql_url,
        AIMUX_DATABASE__ENCRYPTION_KEY="0" * 64,
    )
    command = [sys.executable, "-m", "aimux.cli.main", "seed", "claude=login.json"]
    pods = [
        subprocess.Popen(command, cwd=place, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [pod.communicate(timeout=120) for pod in pods]
    answers = ["claude/default comes from login.json.\n", "claude/default already exists.\n"]
    done = [out for pod, (out, _) in zip(pods, said, strict=True) if not pod.returncode]
    assert answers[0] in done, said
    assert set(done) <= set(answers), said
    again = subprocess.run(command, cwd=place, env=environ, capture_output=True, text=True, timeout=120)
    assert (again.returncode, again.stdout) == (0, "claude/default already exists.\n")
