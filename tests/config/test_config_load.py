from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from ipaddress import ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import field_validator

from aimux.config import (
    Config,
    ConfigError,
    Listen,
    Problem,
    check_form,
    find_config,
    load_config,
    masked,
    parse_config,
    pattern_kind,
)
from aimux.plugin import Provider, ProviderSettings
from tests.config.conftest import PROVIDERS, LabSettings, Load, Problems

TOKEN = "a-token-of-some-length"
ALICE = f"users: [{{name: alice, token: {TOKEN}}}]\n"


def places(problems: list[Problem]) -> list[tuple[str, int | None]]:
    return [(problem.where, problem.line) for problem in problems]


# --- what is read ----------------------------------------------------------------------------------------------------


def test_no_file_and_no_environment_give_the_defaults() -> None:
    config = load_config(None, environ={"HOME": "/home/me"}, providers=PROVIDERS)
    assert str(config.listen) == "127.0.0.1:8080"
    assert config.state_dir == Path("/home/me/.aimux")
    assert config.providers is None
    assert config.mounts is None
    assert config.users == ()
    assert not config.admin.configured
    assert (config.request_timeout, config.stream_idle_timeout, config.connect_timeout) == (60, 300, 10)
    assert (config.refresh_check_interval, config.refresh_before_expiry, config.drain_timeout) == (600, 300, 30)
    assert config.max_body_size == 64 * 2**20
    assert config.warnings == ()


def test_everything_can_be_said(load: Load) -> None:
    config = load(
        """
listen: "[::1]:9"
state_dir: state
providers:
  claude: {strategy: priority, accounts: {a: {weight: 2, priority: 1, groups: [x]}}, scopes: [r, w]}
  lab: {type: claude, base_url: "https://other.example/"}
  chatgpt:
users:
  - {name: alice, token: a-token-of-some-length, groups: [x], pin_accounts: true}
mounts: {/: claude, /lab/: lab, /api/latest/anthropic: claude}
models: {opus: {provider: lab}, "g*": [{account: chatgpt/b, priority: 2}, {provider: chatgpt, model: m}]}
log_level: WARN
log_format: json
request_timeout: 2m
stream_idle_timeout: 1
connect_timeout: 500ms
refresh_check_interval: 1s
refresh_before_expiry: 0
drain_timeout: 0
max_body_size: 1MB
trusted_proxies: [10.0.0.0/8]
metrics_public: true
tls: {enabled: true, self_signed: true}
admin: {token_sha256: %s}
"""
        % ("ab" * 32)
    )
    assert config.listen == Listen("::1", 9)
    assert config.state_dir.is_absolute()
    assert config.state_dir.name == "state"
    assert config.providers is not None
    claude = config.providers["claude"]
    assert isinstance(claude.settings, LabSettings)
    assert claude.settings.scopes == ("r", "w")
    assert claude.settings.accounts["a"].weight == 2
    assert config.providers["lab"].plugin == "claude"
    assert config.providers["lab"].settings.base_url == "https://other.example"
    assert config.providers["chatgpt"].settings == PROVIDERS["chatgpt"].Settings()
    assert config.users[0].sha256 == hashlib.sha256(TOKEN.encode()).digest()
    assert config.users[0].groups == ("x",)
    assert config.users[0].pin_accounts
    assert config.mounts == {"/": "claude", "/lab": "lab", "/api/latest/anthropic": "claude"}
    assert [target.instance for target in config.models["opus"]] == ["lab"]
    first, second = config.models["g*"]
    assert (first.instance, first.account_name, first.model) == ("chatgpt", None, "m")
    assert (second.instance, second.account_name, second.model) == ("chatgpt", "b", None)
    assert config.log_level == "warning"
    assert config.connect_timeout == 0.5
    assert config.trusted_proxies == (ip_network("10.0.0.0/8"),)
    assert config.admin.sha256 == bytes.fromhex("ab" * 32)
    assert config.warnings == ()


def test_the_form_documented_for_ai_mux_works_unchanged(load: Load) -> None:
    config = load(
        """
listen: ":443"
state_dir: "/var/lib/ai-mux"
log_level: "warn"
providers:
  - claude
  - chatgpt
users:
  - name: "alice"
    token: "a-token-made-for-this-test-1"
  - name: "team"
    token: "a-token-made-for-this-test-2"
tls:
  enabled: true
  cert_path: "/etc/certs/ai-mux.crt"
  key_path: "/etc/certs/ai-mux.key"
request_timeout: "1m30s"
refresh_check_interval: 600
"""
    )
    assert config.listen == Listen("", 443)
    assert config.state_dir == Path("/var/lib/ai-mux")
    assert config.log_level == "warning"
    assert list(config.providers or {}) == ["claude", "chatgpt"]
    assert [user.name for user in config.users] == ["alice", "team"]
    assert config.tls.enabled
    assert config.tls.key_path == Path("/etc/certs/ai-mux.key")
    assert (config.request_timeout, config.refresh_check_interval) == (90, 600)


def test_ai_mux_leaves_unused_things_empty(load: Load) -> None:
    config = load('users: []\nproviders: []\ntls: {enabled: false, cert_path: "", key_path: ""}\n')
    assert config == Config.model_validate({}, context=None).model_copy(update={"state_dir": config.state_dir})


def test_nothing_behind_a_key_means_that_it_is_not_there(load: Load) -> None:
    assert load("users:\n  # - name: alice\ntls:\n  enabled:\nmounts: {}\n").users == ()


@pytest.mark.parametrize("name", ["config.json", "config.yaml"])
def test_json_is_read(load: Load, name: str) -> None:
    config = load(json.dumps({"listen": ":1", "users": [{"name": "a", "token": TOKEN}]}, indent="\t"), name=name)
    assert str(config.listen) == ":1"


def test_paths_begin_at_home_or_beside_the_file(load: Load, tmp_path: Path) -> None:
    (tmp_path / "tokens").mkdir()
    (tmp_path / "tokens" / "alice").write_text(f"{TOKEN}\r\n\n")
    config = load(
        "state_dir: ~/s\ntls: {cert_path: c.pem, key_path: /k.pem}\nusers: [{name: a, token_file: tokens/alice}]"
    )
    assert config.state_dir == Path("/home/me/s")
    assert config.tls.cert_path == tmp_path / "c.pem"
    assert config.tls.key_path == Path("/k.pem")
    assert config.users[0].sha256 == hashlib.sha256(TOKEN.encode()).digest()


def test_where_the_file_is_looked_for(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path / "home")}
    assert find_config(None, environ, tmp_path) is None
    at_home = tmp_path / "home" / ".config" / "aimux" / "config.yaml"
    at_home.parent.mkdir(parents=True)
    at_home.touch()
    assert find_config(None, environ, tmp_path) == at_home
    assert find_config(None, environ | {"XDG_CONFIG_HOME": str(tmp_path / "xdg")}, tmp_path) is None
    here = tmp_path / "config.yaml"
    here.touch()
    assert find_config(None, environ, tmp_path) == here
    assert find_config(None, environ | {"AIMUX_CONFIG": "x.yaml"}, tmp_path) == tmp_path / "x.yaml"
    assert find_config(Path("/y.yaml"), environ | {"AIMUX_CONFIG": "x.yaml"}, tmp_path) == Path("/y.yaml")


def test_a_configuration_can_be_data_already() -> None:
    config = parse_config({"listen": ":1", "providers": ["claude"]}, environ={"HOME": "/h"}, providers=PROVIDERS)
    assert str(config.listen) == ":1"


# --- what is refused -------------------------------------------------------------------------------------------------


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
  - {name: carl, token: aaaaaaaaaaaaaaaaaaaaaaaa, token_sha256: zz}
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
        ("users: [{name: '', token_sha256: x}]", "users[0].name", "is empty", ""),
        ('users: [{name: "a\\nb"}]', "users[0].name", "can't be shown", ""),
        ("users: [{token: x}]", "users[0].name", "is missing: The user's name", ""),
        ("users: [{name: a}]", "users[0]", "has no token", "exactly one of"),
        ("users: [{name: a, token: 1234567890123456789}]", "users[0].token", "is not text", "quotes"),
        ("users: [{name: a, token: a token with spaces}]", "users[0].token", "no HTTP header can carry", "openssl"),
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
        ("request_timeout: 2d", "request_timeout", "must be less than or equal to 86400", ""),
        ("providers: claude-", "providers[0]", "no provider 'claude-' is installed", "did you mean claude?"),
        ("providers: [gemini]", "providers[0]", "(there is: chatgpt, claude)", "aimux providers"),
        ("providers: [claude, claude]", "providers[1]", "'claude' is there twice", ""),
        ("providers: [{claude: {}}]", "providers[0]", "is not a provider's name", "providers: {NAME: {…}}"),
        ("providers: {claude: 5}", "providers.claude", "not a mapping of settings", "base_url"),
        ("providers: {x: {type: cloude}}", "providers.x.type", "no provider 'cloude'", "did you mean claude?"),
        ("providers: {x: {type: [y]}}", "providers.x.type", "no provider", ""),
        ("providers: {api: {type: claude}}", "providers.api", "a path of aimux's own", "another name"),
        ("providers: {../x: {type: claude}}", 'providers["../x"]', "no usable name", ""),
        ("providers: {claude: {base_url: ftp://x}}", "providers.claude.base_url", "http:// or https://", ""),
        ("providers: 5", "providers", "neither a list of names nor a mapping", ""),
        ("mounts: {claude: claude}", "mounts.claude", "does not begin with a slash", "/claude"),
        ("mounts: {/a//b: claude}", 'mounts["/a//b"]', "no usable path prefix", ""),
        ("mounts: {/a?b: claude}", 'mounts["/a?b"]', "no usable path prefix", ""),
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
        ("tls: {enabled: true, self_signed: true, cert_path: c}", "tls.cert_path", "excludes self_signed", ""),
        ("tls: yes please", "tls", "must be a mapping of names to values, not text", ""),
        ("state_dir: ''", "state_dir", "is not a path", ""),
        ("trusted_proxies: [10.0.0.1/8]", "trusted_proxies[0]", "has bits set behind its prefix", "10.0.0.0/8"),
        ("admin: {token: aaaaaaaaaaaaaaaaaaaa, token_sha256: %s}" % ("ab" * 32), "admin", "more than one token", ""),
        ("- a\n- b", "", "is not a mapping", ""),
        ("a: b: c", "", "is not valid YAML", ""),
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


# --- what is odd -----------------------------------------------------------------------------------------------------


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
        ("providers: {claude: {accounts: {a: {groups: [x]}}}}\n" + ALICE.replace("}]", ", groups: [x]}]"), []),
    ],
)
def test_what_is_legal_and_odd_is_warned_about(load: Load, text: str, warned: list[str]) -> None:
    warnings = load(text).warnings
    assert [warning.where for warning in warnings] == warned
    assert all(warning.line and warning.remedy for warning in warnings)


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


# --- secrets ---------------------------------------------------------------------------------------------------------

SECRET = "zq9-Secret-that-nobody-may-see"


@pytest.mark.parametrize(
    "text",
    [
        f"users: [{{name: alice, token: {SECRET}}}]",
        f"admin: {{token: {SECRET}}}",
        f"providers: {{claude: {{api_key: {SECRET}, headers: {{x: {SECRET}}}}}}}",
    ],
)
def test_secrets_are_in_no_repr_and_no_print(load: Load, text: str) -> None:
    config = load(text)
    shown = (
        repr(config) + str(config) + json.dumps(masked(config)) + config.model_dump_json() + repr(config.model_dump())
    )
    assert SECRET not in shown
    assert hashlib.sha256(SECRET.encode()).hexdigest() not in shown
    assert "********" in json.dumps(masked(config))


@given(
    place=st.sampled_from(
        [
            "users: [{{name: a, token: {0}, token_file: /x}}]",
            "users: [{{name: a, token: {0} }}, {{name: b, token: {0} }}]",
            "users: [{{name: a, token_sha256: {0}}}]",
            "users: {{alice: {0}}}",
            "users: {0}",
            "admin: {0}",
            "providers: {{claude: {{api_key: [{0}]}}}}",
            "providers: {{claude: {{password: bad{0}}}}}",
            "providers: {{claude: {{headers: {{a: [{0}]}}}}}}",
            "providers: {{claude: {0}}}",
            "tls: {{enabled: {0}}}",
            "models: {0}",
            "mounts: {0}",
            "log_level: {0}",
        ]
    ),
    form=st.sampled_from(["{0}", "'{0}'", "*{0}", "&{0} 1", "!{0} x", "${{env:S}}", "${{file:{0}}}x{0}", "[{0}"]),
)
def test_no_message_repeats_a_value(tmp_path_factory: pytest.TempPathFactory, place: str, form: str) -> None:
    path = tmp_path_factory.getbasetemp() / "secret.yaml"
    path.write_text(place.format(form.format(SECRET) if "file:" not in form else f"${{env:S}}{SECRET}"))
    try:
        config = load_config(path, environ={"HOME": "/h", "S": SECRET}, providers=PROVIDERS)
    except ConfigError as error:
        assert SECRET not in str(error) + repr(error) + repr(error.problems)
        assert error.__cause__ is None
    else:
        assert SECRET not in repr(config)


def test_a_secret_in_the_wrong_place_is_not_repeated(problems: Problems) -> None:
    for text in (
        "listen: ${env:S}",
        "request_timeout: ${env:S}",
        "providers: ['${env:S}']",
        "mounts: {/a: '${env:S}'}",
    ):
        for problem in problems(text, S=SECRET):
            assert SECRET not in str(problem)


# --- checking without secrets ----------------------------------------------------------------------------------------


def test_the_form_can_be_checked_where_the_secrets_are_not(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(
        """
listen: ${env:WHERE}
providers: {claude: {api_key: "${cred:key}", base_url: "https://${env:HOST}/"}}
users:
  - {name: a, token: "${cred:a}"}
  - {name: b, token: "${file:/no/such}"}
  - {name: c, token_file: /no/such}
  - {name: d, token_file: /no/such}
tls: {enabled: "${env:TLS}"}
"""
    )
    check_form(path, environ={"HOME": "/h"}, providers=PROVIDERS)
    unknown = "mounts: {/x: '${env:X}'}\nmodels: {x: {provider: '${env:X}', modl: '${env:X}'}}\nlistn: ${env:X}\n"
    path.write_text(path.read_text() + unknown + "admin: {token: '${crd:x}'}\n")
    with pytest.raises(ConfigError) as caught:
        check_form(path, environ={"HOME": "/h"}, providers=PROVIDERS)
    assert [problem.where for problem in caught.value.problems] == [
        "models.x[0].modl",
        "listn",
        "admin.token",
    ]


# --- everything else -------------------------------------------------------------------------------------------------


def test_patterns_of_models() -> None:
    kinds = {
        "default": "default",
        "gpt-5": "exact",
        "gpt-*": "prefix",
        "*": "prefix",
        "/gpt-.*/": "regex",
        "//": "exact",
    }
    assert {pattern: pattern_kind(pattern) for pattern in kinds} == kinds


def test_ten_thousand_users_load(load: Load) -> None:
    users = "".join(f"  - name: user-{n}\n    token: token-of-user-number-{n:05}\n" for n in range(10_000))
    assert len({user.sha256 for user in load("users:\n" + users).users}) == 10_000


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


def test_unknown_settings_of_a_provider_are_found_without_secrets(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(
        "providers: {claude: {api_kee: '${cred:x}', api_key: '${cred:x}'}, "
        "lab: {type: '${env:X}'}, chatgpt: '${file:/x}'}"
    )
    with pytest.raises(ConfigError) as caught:
        check_form(path, environ={"HOME": "/h"}, providers=PROVIDERS)
    assert [problem.where for problem in caught.value.problems] == ["providers.claude.api_kee"]


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


def test_a_plugin_s_settings_that_were_validated_before_are_taken(providers: Mapping[str, type[Provider]]) -> None:
    first = parse_config({"providers": ["claude"]}, environ={"HOME": "/h"}, providers=providers)
    again = parse_config({"providers": dict(first.providers or {})}, environ={"HOME": "/h"}, providers=providers)
    assert again.providers == first.providers
