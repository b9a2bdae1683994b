from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimux.config.references import UNRESOLVED, References
from tests.config.conftest import Load, Problems


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "creds").mkdir()
    (tmp_path / "creds" / "key").write_text("from systemd\n")
    (tmp_path / "secret").write_text("from a file\r\n\n")
    return tmp_path


def resolve(text: object, folder: Path, **environ: str) -> object:
    references = References({"HOME": str(folder), **environ}, folder)
    value = references.resolve(text)
    for failure in references.failures.values():
        raise failure
    return value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("plain $ {text} $NAME $(x) {}", "plain $ {text} $NAME $(x) {}"),
        ("${env:NAME}", "Ann"),
        ("<${env:NAME}-${env:NAME}>", "<Ann-Ann>"),
        ("${file:secret}", "from a file"),
        ("${file:~/secret}", "from a file"),
        ("${cred:key}", "from systemd"),
        ("$${env:NAME}", "${env:NAME}"),
        ("$$${env:NAME}", "$${env:NAME}"),
        ("$${${env:NAME}}", "${Ann}"),
        ("${env:EMPTY}", ""),
        ("${env:LOOP}", "${env:LOOP}"),
    ],
)
def test_references_stand_for_their_values(files: Path, text: str, value: str) -> None:
    found = resolve(text, files, NAME="Ann", EMPTY="", LOOP="${env:LOOP}", CREDENTIALS_DIRECTORY=str(files / "creds"))
    assert found == value


@pytest.mark.parametrize(
    ("text", "message", "remedy"),
    [
        ("${env:NO}", "variable NO is not set", "set NO"),
        ("${file:no}", "/no does not exist", "check the path"),
        ("${file:.}", "is a folder", ""),
        ("${cred:key}", "CREDENTIALS_DIRECTORY is not set", "LoadCredential=key:"),
        ("${NAME}", "can't be read", "${env:NAME}"),
        ("${vault:x}", "can't be read", "${cred:NAME}"),
        ("${env:}", "can't be read", ""),
        ("${env:NAME", "can't be read", "$${"),
        ("a ${ b", "can't be read", "$${"),
    ],
)
def test_what_leads_nowhere_says_so(problems: Problems, text: str, message: str, remedy: str) -> None:
    [problem] = problems(f"log_level: info\nproviders:\n  claude:\n    api_key: '{text}'\n")
    assert (problem.where, problem.line) == ("providers.claude.api_key", 4)
    assert message in problem.message
    assert remedy in problem.remedy


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "..", "."])
def test_a_credential_s_name_is_no_path(problems: Problems, files: Path, name: str) -> None:
    [problem] = problems(f"listen: ${{cred:{name}}}", CREDENTIALS_DIRECTORY=str(files / "creds"))
    assert "a path in it" in problem.message


def test_a_pipe_does_not_hang_the_start(problems: Problems, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    [problem] = problems("listen: ${file:pipe}")
    assert "is not a regular file" in problem.message


def test_references_work_everywhere(load: Load, files: Path) -> None:
    (files / "users.json").write_text('[{"name": "alice", "token": "a-token-of-some-length"}]')
    config = load(
        "listen: 127.0.0.1:${env:PORT}\nallow_anonymous: ${env:YES}\nusers: ${file:users.json}\n"
        "request_timeout: ${env:PORT}\ntrusted_proxies: ${env:NETS}\n"
        "providers: {claude: {headers: {x-key: '${cred:key}'}}}\n",
        PORT="99",
        YES="true",
        NETS="10.0.0.0/8, 192.168.0.0/16",
        CREDENTIALS_DIRECTORY=str(files / "creds"),
    )
    assert (str(config.listen), config.allow_anonymous, config.request_timeout) == ("127.0.0.1:99", True, 99)
    assert [user.name for user in config.users] == ["alice"]
    assert len(config.trusted_proxies) == 2
    assert config.providers is not None
    assert config.providers["claude"].settings.headers["x-key"].get_secret_value() == "from systemd"


def test_a_provider_s_settings_can_come_from_a_file(load: Load, files: Path) -> None:
    (files / "claude.json").write_text('{"base_url": "https://p.example"}')
    config = load("providers: {claude: '${file:claude.json}'}")
    assert config.providers is not None
    assert config.providers["claude"].settings.base_url == "https://p.example"


def test_unresolved_is_no_value(tmp_path: Path) -> None:
    references = References({}, tmp_path, read=False)
    assert references.resolve({"a": ["${env:X}", "$${env:X}", 1]}) == {"a": [UNRESOLVED, "${env:X}", 1]}
    assert not references.failures


@given(st.text())
def test_an_escaped_text_comes_out_as_it_was(text: str) -> None:
    assert resolve(text.replace("${", "$${"), Path("/")) == text


@given(st.lists(st.sampled_from(["$", "{", "}", "${", "$${", "${env:A}", "a", ":"])).map("".join))
def test_any_text_is_resolved_or_refused(text: str) -> None:
    references = References({"A": "${env:A}"}, Path("/"))
    value = references.resolve(text)
    assert isinstance(value, str) or references.failures
