"""What is special about ai-mux, CLIProxyAPI and sing-box."""

from __future__ import annotations

import errno
import os

import pytest

from tests.migrate.support import LOGIN, Migration, digest


@pytest.mark.parametrize("folder", [".ai-mux", ".aimux"])
def test_ai_muxs_usual_state_folder(migrate: Migration, folder: str) -> None:
    migrate.file(f"home/{folder}/claude/.credentials.json", LOGIN)
    migrate(migrate.file("config.yaml", "listen: ':8080'\nproviders: [claude]\n"))
    assert migrate.stored("claude/.credentials.json") == LOGIN


def test_no_providers_of_ai_mux_stay_none(migrate: Migration) -> None:
    migrate.file("home/.ai-mux/claude/.credentials.json", LOGIN)
    said = migrate(migrate.file("config.yaml", "listen: ':8080'\nproviders: []\nstate_dir: s\n"), expect=1)
    assert "! accounts: none came along" in said
    assert migrate.config["providers"] == {}


@pytest.mark.parametrize(
    ("source", "certificate"),
    [
        ("providers: [claude]\nstate_dir: s\ntls: {enabled: true, cert_path: tls/c.pem, key_path: /k.pem}\n", "ai-mux"),
        ("auth-dir: auth\nport: 1\ntls: {enable: true, cert: tls/c.pem, key: /k.pem}\n", "cli-proxy-api"),
    ],
)
def test_paths_stay_where_they_led(migrate: Migration, source: str, certificate: str) -> None:
    migrate.file("there/s/claude/.credentials.json", LOGIN)
    migrate.file("there/auth/c.json", {"type": "claude", "email": "a@b", "access_token": "sk-ant-oat01-x"})
    migrate(migrate.file("there/config.yaml", source), "--from", certificate)
    tls = migrate.config["tls"]
    assert tls["cert_path"] == str(migrate.folder / "there" / "tls" / "c.pem")
    assert tls["key_path"] == "/k.pem"


def test_copies_of_one_login_become_one_account(migrate: Migration) -> None:
    """Each would be renewed with a token that works once, and vendors then log all of them out."""
    login = {"type": "claude", "email": "ann@example.com", "access_token": "sk-ant-oat01-x", "refresh_token": "rt-x"}
    other = {"email": "bob@example.com", "access_token": "sk-ant-oat01-y", "refresh_token": "rt-y"}
    migrate.file("auth/a.json", login | {"disabled": True, "weight": 3})
    migrate.file("auth/b.json", login | {"weight": 5})
    migrate.file("auth/c.json", login | other)
    said = migrate(migrate.file("config.yaml", "auth-dir: auth\nport: 1\napi-keys: [a-key-that-is-long-enough]\n"))
    assert "account 'ann@example.com-2' from b.json: is the same login as claude/ann@example.com" in " ".join(
        said.split()
    )
    assert sorted(path.name for path in (migrate.state / "claude").iterdir() if path.is_dir()) == [
        "ann@example.com",
        "bob@example.com",
    ]
    assert migrate.config["providers"]["claude"]["accounts"] == {"ann@example.com": {"weight": 3.0}}
    assert "disabled" not in said, "one of the copies served"


COMPATIBLE = """
auth-dir: auth
port: 1
auth:
  providers:
    - {type: config-api-key, api-keys: [a-key-of-older-versions]}
openai-compatibility:
  - name: openrouter
    base-url: https://openrouter.ai/api/v1
    headers: {X-Team: research, X-Session: "$Session"}
    api-key-entries:
      - {api-key: sk-or-one, weight: 5}
      - {api-key: sk-or-two, proxy-url: "socks5://p:1"}
    models:
      - {name: "moonshotai/kimi-k2:free", alias: kimi-k2}
      - {name: glm-5}
  - {name: off, disabled: true, base-url: "https://off.example/v1", api-key-entries: [{api-key: k-off}], models: []}
  - {name: nowhere, api-key-entries: [{api-key: k}], models: []}
claude-api-key:
  - api-key: sk-ant-api03-x
    priority: 10
    models: [{name: claude-sonnet-5, alias: sonnet}]
    excluded-models: ["*haiku*"]
"""


def test_openai_compatibility_is_compatible(migrate: Migration) -> None:
    (migrate.folder / "auth").mkdir()
    said = migrate(migrate.file("config.yaml", COMPATIBLE), expect=1)
    settings = migrate.config["providers"]["openrouter"]
    assert settings == {
        "type": "compatible",
        "format": "openai",
        "base_url": "https://openrouter.ai/api/v1",
        "headers": {"X-Team": "research"},
        "accounts": {"key-1": {"weight": 5.0}},
    }
    assert migrate.stored("openrouter/key-2/credential.json") == {"api_key": "sk-or-two"}
    assert migrate.config["models"] == {
        "sonnet": [{"provider": "claude", "model": "claude-sonnet-5"}],
        "kimi-k2": [{"provider": "openrouter", "model": "moonshotai/kimi-k2:free"}],
        "glm-5": [{"provider": "openrouter"}],
    }
    assert migrate.config["providers"]["claude"]["accounts"] == {"default": {"priority": -10}}
    assert migrate.config["users"] == [{"name": "key-1", "token_sha256": digest("a-key-of-older-versions")}]
    assert migrate.stored("accounts.json")["accounts"]["off"] == {"default": {"disabled": True}}
    for note in (
        "openai-compatibility[0].headers.X-Session: is copied from the client",
        "openai-compatibility[0].api-key-entries[1].proxy-url: goes out directly",
        "! openai-compatibility[2].base-url: is empty",
        "claude-api-key[0].excluded-models: has no counterpart",
        "! clients of openrouter: they add /openrouter",
    ):
        assert note in said
    assert "clients of off" not in said


def test_what_a_login_says_of_its_part_comes_along(migrate: Migration) -> None:
    one = {
        "type": "claude",
        "email": "a@x",
        "access_token": "sk-ant-oat01-a",
        "priority": 5,
        "weight": 3,
        "prefix": "p",
    }
    migrate.file("auth/a.json", one)
    migrate.file("auth/b.json", {"type": "claude", "email": "b@x", "access_token": "sk-ant-oat01-b", "weight": 0})
    migrate.file("auth/c.json", {"type": "qwen", "email": "c@x", "access_token": "q", "disabled": True})
    said = migrate(migrate.folder / "auth")
    assert migrate.config["providers"]["claude"]["accounts"] == {"a@x": {"priority": -5, "weight": 3.0}}
    assert migrate.stored("accounts.json")["accounts"]["claude"] == {"b@x": {"disabled": True}}
    assert "a.json: prefix: has no counterpart" in said
    assert "  c.json: aimux has no provider for 'qwen'" in said


def test_a_broken_login_is_named_and_the_others_come_along(migrate: Migration) -> None:
    migrate.file("auth/a.json", {"type": "claude", "email": "a@x", "access_token": "sk-ant-oat01-a"})
    migrate.file("auth/b.json", '{"type": "claude", "access_token": "sk-ant-oat01-b"')
    migrate.file("auth/c.json", {"type": "claude", "email": {"of": "nobody"}, "access_token": "sk-ant-oat01-c"})
    migrate.file("auth/d.json", [])
    said = migrate(migrate.folder / "auth", expect=1)
    assert migrate.stored("claude/.credentials.json")["claudeAiOauth"]["accessToken"] == "sk-ant-oat01-a"
    for broken in ("! b.json: ", "! c.json: c.json.email is not text", "! d.json: "):
        assert broken in said
    assert "oat01" not in said


def test_a_home_that_nobody_has_is_said(migrate: Migration) -> None:
    said = migrate(migrate.file("config.yaml", "auth-dir: ~nobody-of-that-name/auth\nport: 1\n"), expect=1)
    assert "~nobody-of-that-name/auth begins with a home that this machine doesn't know" in said


def test_a_login_that_cannot_be_read_is_named_and_the_others_come_along(migrate: Migration) -> None:
    migrate.file("good/.credentials.json", LOGIN)
    services = [
        {"type": "ccm", "tag": "one", "listen_port": 8080, "credential_path": "good/.credentials.json"},
        {"type": "ccm", "tag": "two", "listen_port": 8081, "credential_path": "/proc/self/mem"},
    ]
    said = migrate(migrate.file("config.json", {"services": services}), "--copy", expect=1)
    assert "! account 'two' from /proc/self/mem: can't read /proc/self/mem" in said
    assert migrate.stored("claude/one/.credentials.json") == LOGIN


def test_a_full_disk_leaves_no_half_of_a_configuration(migrate: Migration, monkeypatch: pytest.MonkeyPatch) -> None:
    migrate.file("auth/a.json", {"type": "claude", "email": "a@x", "access_token": "sk-ant-oat01-a"})
    write = os.pwrite

    def full(fd: int, raw: bytes, at: int) -> int:
        if raw.startswith(b"# Made by"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(fd, raw, at)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        said = migrate(migrate.folder / "auth", expect=1)
    assert f"can't write {migrate.output}: No space left on device" in said
    assert [file for file in migrate.folder.iterdir() if file.is_file()] == []
    assert "(there already)" in migrate(migrate.folder / "auth")
    assert migrate.config["providers"]
