"""What the demo hands to a gateway, and `aimux simulator` as a process of its own."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import httpx
import pytest

from aimux.simulator import Simulator, credential_file, demo_files

from .conftest import MESSAGE


def test_credentials_are_as_the_vendors_clients_save_them(sim: Simulator) -> None:
    files = demo_files(sim)
    login = json.loads(files.credentials["claude"])["claudeAiOauth"]
    account = sim.accounts["claude"]
    assert (login["accessToken"], login["refreshToken"]) == (account.access_token, account.refresh_token)
    assert login["expiresAt"] == round(account.expires_at * 1000)
    assert login["organizationUuid"] == account.organization
    saved = json.loads(files.credentials["chatgpt"])
    assert saved["tokens"]["account_id"] == sim.accounts["chatgpt"].account_id
    assert saved["tokens"].keys() == {"id_token", "access_token", "refresh_token", "account_id"}
    assert files.api_keys["chatgpt"] == sim.accounts["openai-key"].api_key
    for secret in (account.access_token, files.api_keys["claude"]):
        assert secret not in repr(files)


def test_a_setup_token_has_nothing_to_renew(sim: Simulator) -> None:
    login = json.loads(credential_file(sim.accounts["claude-setup"]))["claudeAiOauth"]
    assert login["refreshToken"] is None
    assert login["scopes"] == ["user:inference"]


async def test_the_settings_lead_to_the_simulator(sim: Simulator, http: aiohttp.ClientSession) -> None:
    for settings in demo_files(sim).settings.values():
        assert all(url.startswith(sim.url) for url in settings.values())
        async with http.get(settings["authorize_url"]) as answer:
            assert answer.status == 400, "it is there, and misses the query"
        async with http.post(settings["token_url"], json={}) as answer:
            assert answer.status == 400


@pytest.fixture
def command(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`aimux simulator` and its address."""
    arguments = ["simulator", "--port", "0", "--scenario", "size:40", "--write", str(tmp_path / "try")]
    process = subprocess.Popen([sys.executable, "-m", "aimux.cli.main", *arguments], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    first = process.stdout.readline()
    yield process, first.split()[-1]
    process.kill()
    process.communicate()


def test_the_command_serves_writes_a_configuration_and_ends(
    command: tuple[subprocess.Popen[str], str], tmp_path: Path
) -> None:
    process, url = command
    assert process.stdout
    rest = ""
    for line in process.stdout:
        rest += line
        if line.startswith("A gateway for it"):
            break
    written = [tmp_path / "try" / "state", *(tmp_path / "try" / "state").rglob("*")]
    assert [oct(path.stat().st_mode & 0o77) for path in written] == ["0o0"] * len(written)
    keys = re.findall(r"api_key: (\S+)", rest)
    headers = {"x-api-key": keys[0], "anthropic-version": "2023-06-01"}
    answer = httpx.post(f"{url}/anthropic/v1/messages", json=MESSAGE, headers=headers).json()
    assert len(answer["content"][0]["text"].encode()) == 40
    config = tmp_path / "try" / "config.yaml"
    assert f"base_url: {url}/anthropic" in config.read_text()
    assert config.stat().st_mode & 0o777 == 0o600
    credential = tmp_path / "try" / "state" / "claude" / ".credentials.json"
    assert credential.stat().st_mode & 0o777 == 0o600
    assert json.loads(credential.read_text())["claudeAiOauth"]["refreshToken"]
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--scenario", "boom"], 2, "'boom' is no scenario"),
        (["--host", "192.0.2.1"], 1, "Can't listen on 192.0.2.1 port 0"),
        (["--write", "."], 1, "config.yaml is not the simulator's"),
        (["--scenarios"], 0, "| `slow-start[:SECONDS]` |"),
    ],
)
def test_wrong_options_say_what_is_wrong(tmp_path: Path, arguments: list[str], code: int, says: str) -> None:
    (tmp_path / "config.yaml").write_text("listen: :8080\n")
    done = subprocess.run(
        [sys.executable, "-m", "aimux.cli.main", "simulator", "--port", "0", *arguments],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=30,
        check=False,
    )
    assert done.returncode == code
    assert says in done.stdout + done.stderr
