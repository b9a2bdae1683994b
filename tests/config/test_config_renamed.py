"""Settings that had another name before."""

from __future__ import annotations

from pathlib import Path

import pytest

from aimux.config import Config
from aimux.config.renamed import RENAMED
from aimux.config.sections import section_at
from tests.config.conftest import Load, Problems, places


@pytest.fixture
def once_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RENAMED, ("bind",), ("listen",))
    monkeypatch.setitem(RENAMED, ("tls", "cert"), ("tls", "cert_path"))
    monkeypatch.setitem(RENAMED, ("refresh", "interval"), ("refresh_check_interval",))


@pytest.mark.usefixtures("once_otherwise")
def test_old_names_work_and_the_new_ones_are_said(load: Load) -> None:
    config = load("bind: :7\ntls:\n  cert: /c\n  key_path: /k\n", AIMUX_LOG_LEVEL="debug")
    assert str(config.listen) == ":7"
    assert config.tls.cert_path == Path("/c")
    said = [(one.where, one.line, one.message, one.remedy) for one in config.warnings]
    assert said[:2] == [
        ("listen", 1, "is still called bind", "write listen"),
        ("tls.cert_path", 3, "is still called tls.cert", "write tls.cert_path"),
    ]


@pytest.mark.usefixtures("once_otherwise")
def test_so_they_do_in_the_environment(load: Load) -> None:
    config = load("", AIMUX_BIND=":8", AIMUX_TLS__CERT="/c", AIMUX_TLS__KEY_PATH="/k")
    assert str(config.listen) == ":8"
    assert config.tls.cert_path == Path("/c")
    assert "AIMUX_LISTEN: listen: is still called AIMUX_BIND (write AIMUX_LISTEN)" in map(str, config.warnings)


@pytest.mark.usefixtures("once_otherwise")
def test_what_is_wrong_with_one_is_said_of_its_line(problems: Problems) -> None:
    assert places(problems("tls:\n  cert: [1]\n")) == [("tls.cert_path", 2)]
    assert places(problems("tls:\n  crt: /c\n")) == [("tls.crt", 2)]


@pytest.mark.usefixtures("once_otherwise")
def test_both_at_once_can_not_be_meant(problems: Problems) -> None:
    (problem,) = problems("bind: :7\nlisten: :8\n")
    assert (problem.where, problem.line) == ("bind", 1)
    assert problem.message == "was renamed, and its new name listen is there as well"


def test_each_leads_to_a_setting_and_hides_none() -> None:
    for old, new in RENAMED.items():
        here, there = (section_at(Config, path[:-1]) or Config for path in (old, new))
        assert new[-1] in there.model_fields
        assert old[-1] not in here.model_fields
