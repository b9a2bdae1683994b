"""The section `database`."""

from __future__ import annotations

import base64

import pytest

from aimux.config import masked
from tests.config.conftest import Load, Problems

KEY = bytes(range(251, 251 + 5)) + bytes(27)
URL = "postgresql://aimux:a-pass-word@db/aimux"


def test_without_it_there_is_no_address_and_no_key(load: Load) -> None:
    database = load("").database
    assert (database.address, database.keys) == (None, ())


@pytest.mark.parametrize(
    "text", [KEY.hex(), base64.b64encode(KEY).decode(), base64.urlsafe_b64encode(KEY).decode(), f"'{KEY.hex()} '"]
)
def test_a_key_is_32_bytes_in_base64_or_hex(load: Load, text: str) -> None:
    assert load(f"database: {{url: '{URL}', encryption_key: {text}}}").database.keys == (KEY,)


def test_the_new_key_stands_before_the_old_ones(load: Load) -> None:
    new, *old = ("11" * 32, "22" * 32, "33" * 32)
    database = load(f"database: {{url: '{URL}', encryption_key: '{new}', old_encryption_keys: {old}}}").database
    assert [key[0] for key in database.keys] == [0x11, 0x22, 0x33]
    assert database.address == URL


@pytest.mark.parametrize("text", ["", "too-short-a-key", "11" * 31, "{}", base64.b64encode(bytes(33)).decode()])
def test_anything_else_is_no_key_and_is_not_repeated(problems: Problems, text: str) -> None:
    [problem] = problems(f"database: {{url: '{URL}', encryption_key: '{text}'}}")
    assert problem.where == "database.encryption_key"
    assert "openssl rand" in problem.remedy
    assert len(text) < 3 or text not in str(problem)


@pytest.mark.parametrize("url", ["mysql://h/d", "sqlite:///x", "/var/lib/x.db", "postgresql://[h/d"])
def test_a_url_of_something_else_is_refused(problems: Problems, url: str) -> None:
    [problem] = problems(f"database: {{url: '{url}', encryption_key: '{'11' * 32}'}}")
    assert (problem.where, "postgresql://" in problem.remedy) == ("database.url", True)


@pytest.mark.parametrize("password", ["se/cr3t", "12/cr3t", "se?cr3t", "12?cr3t", "se#cr3t", "12#cr3t", "se@cr3t"])
def test_a_password_that_would_be_taken_for_something_else_is_not_shown(problems: Problems, password: str) -> None:
    [problem] = problems(f"database: {{url: 'postgresql://aimux:{password}@db/aimux', encryption_key: '{'11' * 32}'}}")
    assert (problem.where, "%2F" in problem.remedy) == ("database.url", True)
    assert not [part for part in ("se", "12", "cr3t") if part in f"{problem.message} {problem.remedy}".split()]


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:a%2Fb@h:5433/d",
        "postgresql://[::1]/d",
        "postgresql://[::1]:5433,h:,%2Ftmp:1/d",
        "postgresql:///d?host=/tmp&user=me@there",
        "postgresql://u@%2Fvar%2Frun:5433/d",
    ],
)
def test_what_libpq_takes_is_taken(load: Load, url: str) -> None:
    assert load(f"database: {{url: '{url}', encryption_key: '{'11' * 32}'}}").database.address == url


@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        ("sslmode=require&channel_binding=require", "sslmode=verify-full&sslrootcert=system"),
        ("sslmode=require&sslrootcert=system", "write sslmode=verify-full"),
        ("sslmode=disable&", "?NAME=VALUE"),
        ("sslmode", "?NAME=VALUE"),
    ],
)
def test_an_option_that_would_not_be_kept_or_can_t_be_read_is_refused(
    problems: Problems, options: str, remedy: str
) -> None:
    [problem] = problems(f"database: {{url: 'postgresql://u@h/d?{options}', encryption_key: '{'11' * 32}'}}")
    assert (problem.where, remedy in problem.remedy) == ("database.url", True)


def test_postgresql_needs_a_key(problems: Problems) -> None:
    [problem] = problems(f"database: {{url: '{URL}'}}")
    assert (problem.where, "openssl rand" in problem.remedy) == ("database.encryption_key", True)


def test_a_key_without_postgresql_is_said_to_have_no_effect(load: Load) -> None:
    [warning] = load(f"database: {{encryption_key: '{'11' * 32}'}}").warnings
    assert (warning.where, "no effect" in warning.message) == ("database.encryption_key", True)


def test_nothing_of_it_is_shown(load: Load) -> None:
    config = load(f"database: {{url: '{URL}', encryption_key: '{'1a' * 32}', old_encryption_keys: ['{'1b' * 32}']}}")
    shown = repr(config) + str(masked(config)) + config.model_dump_json() + repr(config.database.keys[:0])
    assert not [secret for secret in ("a-pass-word", "1a1a1a", "1b1b1b", "\\x1a\\x1a") if secret in shown]
