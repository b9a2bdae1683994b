"""The root logger as the program sets it up."""

from __future__ import annotations

import json
import logging
import os
import pty
from typing import TYPE_CHECKING

import pytest

from aimux.logs import HostLogs, Logs
from aimux.metering.record import RequestRecord
from aimux.redaction import holding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

log = logging.getLogger("aimux.test")


@pytest.fixture
def logs(tmp_path: Path) -> Iterator[Logs]:
    fd = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    logs = Logs(fd)
    yield logs
    logs.close()
    os.close(fd)


@pytest.fixture
def lines(tmp_path: Path, logs: Logs) -> Callable[[], list[str]]:
    return lambda: (tmp_path / "log").read_text().splitlines()


def test_text_has_time_level_and_logger(lines: Callable[[], list[str]]) -> None:
    log.warning("account %s was parked", "team")
    (line,) = lines()
    when, rest = line.split(" ", 1)
    assert rest == "WARNING aimux.test: account team was parked"
    assert when.endswith("Z")
    assert len(when) == len("2027-01-15T08:00:00.250Z")


def test_json_is_one_object_a_line(logs: Logs, lines: Callable[[], list[str]]) -> None:
    logs.configure("info", "json")
    log.error("two\nlines")
    entry = json.loads(*lines())
    assert {key: entry[key] for key in ("level", "logger", "message")} == {
        "level": "error",
        "logger": "aimux.test",
        "message": "two\nlines",
    }


def test_the_level_changes_while_it_runs(logs: Logs, lines: Callable[[], list[str]]) -> None:
    log.debug("unseen")
    logs.configure("debug", "text")
    log.debug("seen")
    logs.configure("error", "text")
    log.warning("unseen")
    assert [line.split(": ")[1] for line in lines()] == ["seen"]


def test_what_is_written_to_the_database_is_in_no_log(logs: Logs, lines: Callable[[], list[str]]) -> None:
    """SQLAlchemy's debug lines are statements with their values: hashes of tokens, names, 60 kB of requests."""
    logs.configure("debug", "text")
    logging.getLogger("sqlalchemy.engine").debug("('a-hash',)")
    log.debug("seen")
    assert len(lines()) == 1


def test_access_lines_come_at_info_only(logs: Logs, lines: Callable[[], list[str]]) -> None:
    record = RequestRecord("req_1", 1.8e9, "GET", "/health")
    logs.access.record(record)
    logs.configure("warning", "text")
    logs.access.record(record)
    assert len(lines()) == 1


def test_a_message_can_not_forge_a_line(lines: Callable[[], list[str]]) -> None:
    log.info("asked for %s", "x\n2027-01-15T08:00:00.250Z ACCESS  user=root \x1b[2J\x9b2J\u2028\u202e")
    (line,) = lines()
    assert line.isprintable()


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_secrets_are_cut_out_of_messages_and_tracebacks(
    logs: Logs, lines: Callable[[], list[str]], log_format: str
) -> None:
    logs.configure("info", "json" if log_format == "json" else "text")
    secret = "sk-ant-oat01-AAAABBBBCCCC"
    try:
        raise ValueError(f"can't use {secret}\n2027-01-15T08:00:00.250Z forged")
    except ValueError:
        log.exception("failed with %s", secret)
    output = lines()
    assert "BBBB" not in "".join(output)
    assert "sk-ant-o" in output[0]
    assert "ValueError" in "".join(output)
    assert all(line.startswith("    ") for line in output[1:])


def test_a_broken_format_string_ends_nothing_and_shows_no_arguments(lines: Callable[[], list[str]]) -> None:
    log.info("%d accounts", "many")
    (line,) = lines()
    assert line.endswith("INFO    aimux.test: unreadable message '%d accounts' (TypeError)")


def test_nor_does_it_in_a_program_of_another(caplog: pytest.LogCaptureFixture) -> None:
    logs = HostLogs()
    try:
        log.warning("%d accounts", "many")
    finally:
        logs.close()
    assert caplog.messages == ["unreadable message '%d accounts' (TypeError)"]


def test_surrogates_are_written(lines: Callable[[], list[str]]) -> None:
    log.info("path %s", b"\xff".decode("utf-8", "surrogateescape"))
    assert lines()[0].endswith("path \\udcff")


@pytest.mark.parametrize(
    ("variable", "value", "coloured"), [("TERM", "xterm", True), ("TERM", "dumb", False), ("NO_COLOR", "1", False)]
)
def test_colour_on_a_terminal_that_wants_it(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, coloured: bool
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv(variable, value)
    terminal, fd = pty.openpty()
    logs = Logs(fd)
    try:
        log.warning("look")
        assert (b"\x1b[33m" in os.read(terminal, 1000)) is coloured
    finally:
        logs.close()
        os.close(fd)
        os.close(terminal)


def test_close_gives_the_root_logger_back(tmp_path: Path) -> None:
    before = (logging.getLogger().handlers[:], logging.getLogger().level)
    with (tmp_path / "log").open("w") as file:
        Logs(file.fileno()).close()
    assert (logging.getLogger().handlers[:], logging.getLogger().level) == before


@pytest.mark.parametrize("leaks", [lambda secret: log.warning("it said %s", secret), lambda secret: raise_with(secret)])
def test_a_secret_of_any_shape_is_left_out_of_what_says_that_something_is_wrong(
    logs: Logs, lines: Callable[[], list[str]], leaks: Callable[[str], None]
) -> None:
    secret = "correct horse battery staple"
    with holding(lambda: [secret, ""]):
        leaks(secret)
    said = "\n".join(lines())
    assert secret not in said
    assert "correct …" in said


def raise_with(secret: str) -> None:
    try:
        raise RuntimeError(f"can't read {secret}")
    except RuntimeError:
        log.exception("a plugin failed")
