"""What is refused: every problem at once, with its place, what is wrong and what to do."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import field_validator

from aimux.config import Config, ConfigError, load_config, parse_config
from aimux.plugin import Provider, ProviderSettings
from tests.config.conftest import PROVIDERS, SECRET, TOKEN, Load, Problems, places


def test_every_problem_is_named_at_once_with_its_line(problems: Problems) -> None:
    found = problems(
        """listn: :8080
listen: "8080"
providers:
  claude: {base_ur: x, api_key: 5}
  chatgp:
  my: {type: claude, accounts: {x: {wight: 3}}}
users:
  - {name: alice, token: short}
  - name: alice
    token: sample-token-of-alice-make-your-own
  - {name: carl, email: carl at home, token: aaaaaaaaaaaaaaaaaaaaaaaa, token_sha256: zz}
  - {name: dora, token: bbbbbbbbbbbbbbbbbbbbbbbb}
  - {name: emil, token: bbbbbbbbbbbbbbbbbbbbbbbb}
  - {name: fred}
mounts:
  /health: claude
  chatgpt: my
  /a/../b: claude
  /x: nobody
models: {"a*b": {provider: my}, "/(/": {provider: my}, x: [], y: {provider: mi}, z: {account: my}}
log_level: inf
request_timeout: 1x
connect_timeout: 0
max_body_size: many
trusted_proxies: [10.0.0.1/8]
tls: {enabled: true, cert_path: a.pem}
admin: {token: cccccccccccccccccccc, token_file: /x}
listen: ":1"
"""
    )
    assert places(found) == [
        ("listn", 1),
        ("providers.claude.api_key", 4),
        ("providers.claude.base_ur", 4),
        ("providers.chatgp", 5),
        ("providers.my.accounts.x.wight", 6),
        ("users[0].token", 8),
        ("users[1].name", 9),
        ("users[1].token", 10),
        ("users[2].token_sha256", 11),
        ("users[2].email", 11),
        ("users[4].token", 13),
        ("users[5]", 14),
        ('mounts["/health"]', 16),
        ("mounts.chatgpt", 17),
        ('mounts["/a/../b"]', 18),
        ('mounts["/x"]', 19),
        ('models["a*b"]', 20),
        ('models["/(/"]', 20),
        ("models.x", 20),
        ("models.y[0].provider", 20),
        ("models.z[0].account", 20),
        ("log_level", 21),
        ("request_timeout", 22),
        ("connect_timeout", 23),
        ("max_body_size", 24),
        ("trusted_proxies[0]", 25),
        ("tls.key_path", 26),
        ("admin.token_file", 27),
        ("listen", 28),
    ]
    assert all(problem.source.endswith("config.yaml") for problem in found)


@pytest.mark.parametrize(
    ("text", "where", "message", "remedy"),
    [
        ("listn: x", "listn", "not a known setting", "did you mean listen?"),
        ("tls: {enable: true}", "tls.enable", "not a known setting", "did you mean enabled?"),
        ("tls: {zzz: true}", "tls.zzz", "not a known setting", "known are: enabled, cert_path"),
        ("users: [{nme: x}]", "users[0].nme", "not a known setting", "did you mean name?"),
        ("users: {a: b}", "users", "must be a list, not a mapping", ""),
        ("users: 5", "users", "must be a list, not a number", ""),
        ("users: [alice]", "users[0]", "must be a mapping of names to values, not text", ""),
        ("users: [{name: 5, token: x}]", "users[0].name", "must be text, not a number", "quotes"),
        ("state_dir: 5", "state_dir", "must be a path, not a number", "quotes"),
        ("users: [{name: '', token_sha256: x}]", "users[0].name", "is empty", ""),
        ('users: [{name: "a\\nb"}]', "users[0].name", "can't be shown", ""),
        ("users: [{name: admin-key}]", "users[0].name", "what the audit log calls", "choose another name"),
        ('users: [{name: "cli:root"}]', "users[0].name", "what the audit log calls", "choose another name"),
        ("users: [{token: x}]", "users[0].name", "is missing: The user's name", ""),
        ("users: [{name: a}]", "users[0]", "has no token", "exactly one of"),
        ("users: [{name: a, token: 1234567890123456789}]", "users[0].token", "is not text", "quotes"),
        ("users: [{name: a, token: a token with spaces}]", "users[0].token", "no HTTP header can carry", "openssl"),
        ("users: [{name: a, token: '\"a-token-of-an-env-file\"'}]", "users[0].token", "in quotation marks", "env"),
        (f"users: [{{name: a, token: {TOKEN}, weak: true}}]", "users[0].weak", "token_sha256 only", "16 characters"),
        ("users: [{name: a, token: short}]", "users[0].token", "has 5 characters", "openssl rand"),
        ("users: [{name: a, token_sha256: x}]", "users[0].token_sha256", "not a SHA-256", "sha256sum"),
        (
            "users: [{name: a, token_file: /no/such}]",
            "users[0].token_file",
            "/no/such does not exist",
            "check the path",
        ),
        ("users: [{name: a, token_file: /}]", "users[0].token_file", "/ is a folder", ""),
        ("allow_anonymous: perhaps", "allow_anonymous", "must be true or false", ""),
        ("log_level: inf", "log_level", "must be one of debug, info, warning, error", "did you mean info?"),
        ("log_format: [json]", "log_format", "must be one of text, json", ""),
        ("drain_timeout: -1s", "drain_timeout", "'-1s' is not a duration", "1h30m"),
        ("drain_timeout: -1", "drain_timeout", "must be greater than or equal to 0", ""),
        ("request_timeout: 2d", "request_timeout", "must be less than or equal to 1d", ""),
        ("fair_share: true", "fair_share", "is not a known setting", "mean limits.fair_share?"),
        (
            "limits: {tokens_per_day: 5}",
            "limits.tokens_per_day",
            "is not a known setting",
            "mean limits.default.tokens",
        ),
        ("ledger: {keep_requests: 12h}", "ledger.keep_requests", "must be greater than or equal to 1d", ""),
        ("limits: {default: {requests_per_minute: true}}", "limits.default.requests_per_minute", "not true", ""),
        ('limits: {default: {models: {"": {}}}}', 'limits.default.models[""]', "is the name of no model", "prefix*"),
        ('prices: {"": {}}', 'prices[""]', "is the name of no model", "prefix*"),
        (
            "notices: {webhooks: [{url: 'https://h:70000/'}]}",
            "notices.webhooks[0].url",
            "is not an address",
            "https://",
        ),
        ("notices: {webhooks: [{url: 'https://a b/'}]}", "notices.webhooks[0].url", "is not an address", "https://"),
        ("notices: {webhooks: [{url: 'https://a..b/'}]}", "notices.webhooks[0].url", "is not an address", "https://"),
        ("notices: {webhooks: [{url: 'https://a/', secret: x}]}", "notices.webhooks[0].secret", "fewer than 16", ""),
        ("providers: claude-", "providers[0]", "no provider 'claude-' is installed", "did you mean claude?"),
        ("providers: [gemini]", "providers[0]", "(there is: chatgpt, claude)", "aimux providers"),
        ("providers: [claude, claude]", "providers[1]", "'claude' is there twice", ""),
        ("providers: [{claude: {}}]", "providers[0]", "is not a provider's name", "providers: {NAME: {…}}"),
        ("providers: {claude: 5}", "providers.claude", "not a mapping of settings", "base_url"),
        ("providers: {x: {type: cloude}}", "providers.x.type", "no provider 'cloude'", "did you mean claude?"),
        ("providers: {x: {type: [y]}}", "providers.x.type", "no provider", ""),
        ("providers: {api: {type: claude}}", "providers.api", "a path of aimux's own", "another name"),
        ("providers: {../x: {type: claude}}", 'providers["../x"]', "not a usable name", ""),
        ("providers: {claude: {base_url: ftp://x}}", "providers.claude.base_url", "http:// or https://", ""),
        ("providers: {claude: {base_url: 'http://a..b'}}", "providers.claude.base_url", "URL with a host", ""),
        ("providers: 5", "providers", "neither a list of names nor a mapping", ""),
        ("mounts: {claude: claude}", "mounts.claude", "does not begin with a slash", "/claude"),
        ("mounts: {/a//b: claude}", 'mounts["/a//b"]', "not a usable path prefix", ""),
        ("mounts: {/a?b: claude}", 'mounts["/a?b"]', "not a usable path prefix", ""),
        ("mounts: {/.: claude}", 'mounts["/."]', "`..` segment", ""),
        ("mounts: {/api: claude}", 'mounts["/api"]', "belongs to aimux itself", ""),
        ("mounts: {/api/v1/x: claude}", 'mounts["/api/v1/x"]', "belongs to aimux itself", ""),
        ("mounts: {/metrics/: claude}", 'mounts["/metrics/"]', "belongs to aimux itself", ""),
        ("mounts: {/a/: claude, /a: chatgpt}", 'mounts["/a"]', "the same mount as /a/", ""),
        ("mounts: {/a: cloude}", 'mounts["/a"]', "'cloude' is not a provider", "did you mean claude?"),
        (
            "providers: [claude]\nmounts: {/a: chatgpt}",
            'mounts["/a"]',
            "not a provider of this configuration",
            "claude",
        ),
        ("models: {x: {}}", "models.x[0]", "needs a provider or an account", "exactly one"),
        ("models: {x: {provider: claude, account: claude/a}}", "models.x[0]", "needs a provider or an account", ""),
        ("models: {x: {account: cloude/a}}", "models.x[0].account", "not a provider", "did you mean claude?"),
        ("tls: {enabled: true}", "tls.cert_path", "is missing", "self_signed: true"),
        ("tls: {enabled: true, key_path: k}", "tls.cert_path", "is missing beside key_path", ""),
        ("tls: {enabled: true, self_signed: 7}", "tls.self_signed", "must be true, false or a mapping", "names:"),
        ("tls: {self_signed: {name: a.b}}", "tls.self_signed.name", "is not a known setting", "did you mean names?"),
        (
            "tls: {self_signed: {names: ['https://a.b:1']}}",
            "tls.self_signed.names[0]",
            "is neither a host name nor an address",
            "without https://",
        ),
        ("tls: {enabled: true, self_signed: true, cert_path: c}", "tls.cert_path", "excludes self_signed", ""),
        ("tls: yes please", "tls", "must be a mapping of names to values, not text", ""),
        ("state_dir: ''", "state_dir", "is not a path", ""),
        ("cors: {allowed_origins: [app.example.com]}", "cors.allowed_origins[0]", "is not an origin", "https://"),
        ("cors: {allowed_origins: ['null']}", "cors.allowed_origins[0]", "is not an origin", "whose origin is null"),
        ("cors: {allowed_origins: ['https://a/b']}", "cors.allowed_origins[0]", "is not an origin", "without a path"),
        ("max_websocket_message: 1", "max_websocket_message", "must be greater than or equal to 1KiB", ""),
        ("drop_headers: ['x corp']", "drop_headers[0]", "is not the name of a header", "x-beginning-*"),
        ("drop_headers: ['*']", "drop_headers[0]", "is not the name of a header", "x-beginning-*"),
        ("providers: {claude: {base_url: 'http://a b/'}}", "providers.claude.base_url", "with a host", ""),
        ("providers: {claude: {headers: {x y: z}}}", 'providers.claude.headers["x y"]', "write it like x-name", ""),
        ("providers: {claude: {headers: {Host: a}}}", "providers.claude.headers.Host", "aimux writes itself", ""),
        ('providers: {claude: {headers: {x: "a\\nb"}}}', "providers.claude.headers.x", "a line break", ""),
        ("trusted_proxies: [10.0.0.1/8]", "trusted_proxies[0]", "has bits set behind its prefix", "10.0.0.0/8"),
        ("admin: {token: aaaaaaaaaaaaaaaaaaaa, token_sha256: %s}" % ("ab" * 32), "admin", "more than one token", ""),
        ("- a\n- b", "", "is not a mapping", ""),
        ("a: b: c", "", "is not valid YAML", ""),
        ('a: {b: "x" y}', "", "expected ',' or '}' while parsing a flow mapping", "goes in quotes"),
    ],
)
def test_a_problem_says_what_and_where_and_what_to_do(
    problems: Problems, text: str, where: str, message: str, remedy: str
) -> None:
    [problem] = [problem for problem in problems(text) if problem.where == where]
    assert message in problem.message
    assert remedy in problem.remedy
    assert problem.line


def test_a_key_given_twice_is_refused(problems: Problems) -> None:
    [problem] = problems('listen: ":1"\nlog_level: info\nlisten: ":2"\n')
    assert places([problem]) == [("listen", 3)]
    assert "first on line 1" in problem.message


@pytest.mark.parametrize("sample", ["alice", "bob"])
@pytest.mark.parametrize("form", ["token", "token_sha256"])
def test_tokens_of_the_example_are_refused(problems: Problems, sample: str, form: str) -> None:
    token = f"sample-token-of-{sample}-make-your-own"
    value = token if form == "token" else hashlib.sha256(token.encode()).hexdigest()
    [problem] = problems(f"users: [{{name: x, {form}: {value}}}]")
    assert "config.example.yaml" in problem.message


def test_the_hash_of_nothing_is_refused(problems: Problems) -> None:
    [problem] = problems(f"admin: {{token_sha256: {hashlib.sha256().hexdigest()}}}")
    assert "SHA-256 of nothing" in problem.message


def test_two_users_with_one_token_are_refused_whatever_its_form(problems: Problems) -> None:
    digest = hashlib.sha256(TOKEN.encode()).hexdigest()
    [problem] = problems(f"users: [{{name: alice, token: {TOKEN}}}, {{name: bob, token_sha256: {digest.upper()}}}]")
    assert problem.where == "users[1].token_sha256"
    assert "'alice'" in problem.message


@pytest.mark.parametrize("kind", ["missing", "folder", "unreadable text"])
def test_a_file_that_can_not_be_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "config.yaml"
    if kind == "folder":
        path.mkdir()
    elif kind == "unreadable text":
        path.write_bytes(b"listen: \xff")
    with pytest.raises(ConfigError) as caught:
        load_config(path, environ={}, providers={})
    [problem] = caught.value.problems
    assert str(path) in problem.message
    assert problem.remedy


def test_a_home_that_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(_uid: int) -> None:
        raise KeyError

    monkeypatch.setattr("pwd.getpwuid", unknown)
    with pytest.raises(ConfigError) as caught:
        load_config(None, environ={}, providers={})
    [problem] = caught.value.problems
    assert problem.where == "state_dir"
    assert "HOME" in problem.message


def test_a_home_of_another_user(problems: Problems, load: Load) -> None:
    assert load("state_dir: ~root/s").state_dir == Path("~root/s").expanduser()
    assert load("state_dir: ./~root").state_dir.name == "~root"
    [state_dir, token_file] = problems("state_dir: ~nobody-here/s\nusers: [{name: a, token_file: ~nobody-here/t}]")
    assert (state_dir.where, token_file.where) == ("state_dir", "users[0].token_file")
    assert "no user 'nobody-here'" in state_dir.message
    assert "no user 'nobody-here'" in token_file.message


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from([*Config.model_fields, "name", "token", "token_file", "claude", "enabled", "/", "x"]),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
def test_no_data_ends_in_anything_but_problems(data: object) -> None:
    if not isinstance(data, Mapping):
        data = {"users": data, "providers": data}
    try:
        parse_config(data, environ={"HOME": "/h"}, providers=PROVIDERS)
    except ConfigError as error:
        assert all(problem.message for problem in error.problems)


def test_a_plugin_whose_settings_break_is_named() -> None:
    class Settings(ProviderSettings):
        @field_validator("strategy", mode="before")
        @classmethod
        def _broken(cls, _value: object) -> object:
            raise AttributeError(SECRET)

    class Broken(Provider):
        name = "broken"

    Broken.Settings = Settings
    with pytest.raises(ConfigError) as caught:
        parse_config(
            {"providers": {"claude": {"x": 1}, "broken": {"strategy": "x"}}},
            environ={"HOME": "/h"},
            providers={**PROVIDERS, "broken": Broken},
        )
    assert [problem.where for problem in caught.value.problems] == ["providers.claude.x", "providers.broken"]
    assert "AttributeError in the settings class of the provider 'broken'" in str(caught.value)
    assert SECRET not in str(caught.value)
