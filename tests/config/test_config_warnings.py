"""What is legal and odd."""

from __future__ import annotations

import hashlib
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import pytest

from aimux.config import load_config
from tests.config.conftest import ALICE, TOKEN, Load

WEAK = hashlib.sha256(b"sk-proxy-key-1").hexdigest()


@pytest.mark.parametrize(
    ("text", "warned"),
    [
        ("", []),
        (ALICE, []),
        ("listen: ':1'", ["listen"]),
        ("listen: ':1'\nallow_anonymous: true", ["allow_anonymous"]),
        ("allow_anonymous: true", []),
        (ALICE + "allow_anonymous: true", ["allow_anonymous"]),
        (ALICE + "listen: ':1'", ["listen"]),
        (ALICE + "listen: ':1'\ntrusted_proxies: [10.0.0.0/8]", []),
        (ALICE + "listen: ':1'\ntls: {enabled: true, self_signed: true}", []),
        ("tls: {cert_path: c, key_path: k}", ["tls"]),
        (f"users: [{{name: a, token: {TOKEN}, groups: [x]}}]", ["users[0].groups"]),
        (f"users: [{{name: a, token_sha256: {WEAK}, weak: true}}]", ["users[0].weak"]),
        (f"users: [{{name: a, token_sha256: {WEAK}}}]", []),
        (f"users: [{{name: a/b, token: {TOKEN}}}]", ["users[0].name"]),
        (f"users: [{{name: .a, token: {TOKEN}}}]", ["users[0].name"]),
        (f"users: [{{name: Zoë <x> a.b, token: {TOKEN}}}]\ngroups: {{50%: {{}}}}", ['groups["50%"]']),
        ("models: {m: [{provider: claude}, {provider: chatgpt}]}", ["models.m[1]"]),
        (ALICE + "limits: {users: {alcie: {tokens_per_day: 5}}}", ["limits.users.alcie"]),
        (ALICE + "limits: {users: {bob: {tokens_per_day: 5}}}", []),
        ("limits: {users: {bob: {tokens_per_day: 5}}, groups: {lab: {weight: 2}}}", []),
        ("groups: {lab: {}}\nlimits: {groups: {labs: {weight: 2}}}", ["limits.groups.labs"]),
        ("providers: {claude: {api_key: ''}, chatgpt: {}}", ["providers.claude.api_key"]),
        (
            "listen: ':8080'\nproviders: {claude: {base_url: 'http://localhost:8080/claude'}}\n"
            + ALICE
            + "trusted_proxies: [10.0.0.0/8]",
            ["providers.claude.base_url"],
        ),
        ("providers: {claude: {base_url: 'http://127.0.0.1:8081/claude'}, chatgpt: {base_url: 'http://h:8080'}}", []),
        ("models: {m: {provider: chatgpt}}", []),
        ("models: {m: {provider: chatgpt}}\nmounts: {/: claude}", ["models.m[0]"]),
        ("providers: {claude: {}, lab: {type: claude}}\nmodels: {m: [{provider: claude}, {provider: lab}]}", []),
        ("providers: {claude: {accounts: {a: {groups: [x]}}}}\n" + ALICE.replace("}]", ", groups: [x]}]"), []),
    ],
)
def test_what_is_legal_and_odd_is_warned_about(load: Load, text: str, warned: list[str]) -> None:
    warnings = load(text).warnings
    assert [warning.where for warning in warnings] == warned
    assert all(warning.line and warning.remedy for warning in warnings)


def test_notices_that_nothing_here_can_send_are_warned_about(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    text = 'notices: {apprise: ["json://127.0.0.1:1"]}'
    monkeypatch.setitem(sys.modules, "apprise", None)
    assert [(warning.where, warning.remedy) for warning in load(text).warnings] == [
        ("notices.apprise", "pip install apprise")
    ]
    there = ModuleType("apprise")
    there.__spec__ = ModuleSpec("apprise", None)
    monkeypatch.setitem(sys.modules, "apprise", there)
    assert not load(text).warnings


def test_a_file_with_secrets_that_others_can_read_is_warned_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, token = tmp_path / "config.yaml", tmp_path / "token"
    token.write_text(TOKEN)
    path.write_text(ALICE)
    for mode, count in ((0o600, 0), (0o640, 0), (0o644, 1)):
        path.chmod(mode)
        config = load_config(path, environ={"HOME": "/h"}, providers={})
        assert len(config.warnings) == count
    monkeypatch.setattr("os.geteuid", lambda: path.stat().st_uid + 1)
    assert load_config(path, environ={"HOME": "/h"}, providers={}).warnings
    monkeypatch.undo()
    path.write_text("users: [{name: a, token_file: token}]")
    for mode, count in ((0o400, 0), (0o440, 0), (0o644, 1)):
        token.chmod(mode)
        config = load_config(path, environ={"HOME": "/h"}, providers={})
        assert [f"chmod 600 {token}"] * count == [warning.remedy for warning in config.warnings]
    # Of root, in a container that runs as somebody else: that is how orchestrators hand secrets out.
    monkeypatch.setattr("os.geteuid", lambda: path.stat().st_uid + 1)
    assert not load_config(path, environ={"HOME": "/h"}, providers={}).warnings
