"""`aimux import`: every format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from aimux.simulator.demo import credential_file
from tests.cli.importing.files import LATER, SECRET, write
from tests.cli.support import Commands

FLAT = {"access_token": SECRET, "refresh_token": "rt-1"}
CAMEL = {"accessToken": SECRET, "refreshToken": "rt-1", "expiresAt": LATER * 1000}
FORMATS: list[tuple[object, str, str]] = [
    ({"claudeAiOauth": CAMEL}, "claude", "renewable"),
    ({"claudeAiOauth": {"accessToken": SECRET}, "mcpOAuth": {"x": 1}}, "claude", "lasting"),
    (CAMEL, "claude", "renewable"),
    (FLAT | {"expires_at": LATER}, "claude", "renewable"),
    ({"oauthToken": SECRET}, "claude", "lasting"),
    ({"oauth_token": SECRET}, "claude", "lasting"),
    ({"anthropic": FLAT | {"expires_at": "2099-01-01T00:00:00Z"}}, "claude", "renewable"),
    ({"api_key": "sk-ant-api03-a-key"}, "claude", "key"),
    (SECRET.encode() + b"\n", "claude", "lasting"),
    (b"sk-ant-api03-a-bare-key", "claude", "key"),
    ({"OPENAI_API_KEY": "sk-proj-a-key", "tokens": None}, "chatgpt", "key"),
    ({"auth_mode": "apikey", "OPENAI_API_KEY": "sk-proj-a-key", "tokens": {"access_token": "x"}}, "chatgpt", "key"),
    ({"api_key": "sk-proj-a-key"}, "chatgpt", "key"),
    (b"sk-proj-a-bare-key", "chatgpt", "key"),
]


@pytest.mark.parametrize(("content", "provider", "what"), FORMATS, ids=range(len(FORMATS)))
def test_every_format_is_understood(aimux: Commands, tmp_path: Path, content: object, provider: str, what: str) -> None:
    given = write(tmp_path / "given.json", content)
    said = aimux("import", str(given))
    assert f"{provider}/default: healthy" in said.stdout
    shown = aimux.account(f"{provider}/default")
    assert shown["kind"] == ("api_key" if what == "key" else "oauth")
    assert shown["renewable"] is (what == "renewable")
    kept = tmp_path / "state" / provider / (".credentials.json" if provider == "claude" else "auth.json")
    assert kept.read_bytes() == given.read_bytes()
    assert SECRET not in said.output
    assert ("Only one program" in said.stdout) is (what == "renewable")


def test_a_login_of_chatgpt_is_told_from_a_login_of_claude(aimux: Commands, tmp_path: Path) -> None:
    flat = json.loads(credential_file(aimux.live.sim.accounts["chatgpt"]))["tokens"]
    given = write(tmp_path / "given.json", flat | {"expires_at": LATER})
    assert "chatgpt/default: healthy" in aimux("import", str(given)).stdout


def test_what_could_be_of_two_providers_is_asked_for(aimux: Commands, tmp_path: Path) -> None:
    given = write(tmp_path / "given.json", {"access_token": "opaque-token-of-somebody"})
    refused = aimux("import", str(given), expect=2).stderr
    assert "--provider" in refused
    assert "opaque" not in refused
    assert "chatgpt/default: healthy" in aimux("import", str(given), "--provider", "chatgpt").stdout


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\x00\xff", {"what": "is this"}, [1], b" " * (1024 * 1024 + 1)], ids=range(6)
)
def test_what_is_no_login_is_refused_with_reasons(aimux: Commands, tmp_path: Path, content: Any) -> None:
    refused = aimux("import", str(write(tmp_path / "given.json", content)), expect=1).stderr
    assert "can't be read as a login" in refused
    assert "claude: it " in refused
    assert not (tmp_path / "state" / "claude" / ".credentials.json").exists()


def test_several_logins_in_one_file_need_migrate(aimux: Commands, tmp_path: Path) -> None:
    one = {"access_token": SECRET, "refresh_token": "rt"}
    given = write(tmp_path / "oauth_tokens.json", {"a": one, "b": one})
    assert "aimux migrate" in aimux("import", str(given), "--provider", "claude", expect=1).stderr


EXPORTED = json.dumps({"claudeAiOauth": CAMEL, "mcpOAuth": {"café": {}}}, ensure_ascii=False)


@pytest.mark.parametrize(
    "content",
    [
        EXPORTED.encode().hex().encode() + b"\n",
        EXPORTED.encode("utf-16"),
        b"\xef\xbb\xbf" + EXPORTED.encode() + b"\r\n",
    ],
    ids=["keychain", "powershell", "byte order mark"],
)
def test_what_other_systems_export_is_understood(aimux: Commands, tmp_path: Path, content: bytes) -> None:
    said = aimux("import", str(write(tmp_path / "given.txt", content)))
    assert "claude/default: healthy" in said.stdout
    kept = (tmp_path / "state" / "claude" / ".credentials.json").read_text()
    assert json.loads(kept) == json.loads(EXPORTED)


def test_a_file_named_by_a_bare_word_keeps_its_name_in_messages(
    aimux: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "login", b"no login")
    assert f"Error: {tmp_path}/login can't be read as a login" in aimux("import", "login", expect=1).stderr
