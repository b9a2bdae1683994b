"""What commands say to people is in one style; a terminal of 80 columns shows it broken between words."""

from __future__ import annotations

import io
import json
import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import pytest

from aimux.cli.asking import print_table
from aimux.cli.show import accounts_table
from aimux.cli.words import fail, say, sentence, warn, wrapped
from tests.cli.conftest import Aimux
from tests.cli.support import on_terminal, plain


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


LONG = (
    "Only one program can go on renewing this login, and the other is logged out by that: https://aimux.example/a-b-c"
)


@pytest.fixture(autouse=True)
def eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("there is no login", "There is no login."),
        ("can't write it: no space", "Can't write it: no space."),
        ("it has none → aimux login claude", "It has none → aimux login claude"),
        ("it listens elsewhere:\n  export A=b", "It listens elsewhere:\n  export A=b"),
        ("There is none. Really!", "There is none. Really!"),
        ("aimux listens nowhere", "aimux listens nowhere."),
        ("/a/file is not TOML", "/a/file is not TOML."),
        ("claude/default is there", "claude/default is there."),
        ("api.example.com does not answer", "api.example.com does not answer."),
        ("postgresql://u@127.0.0.1/x is away", "postgresql://u@127.0.0.1/x is away."),
        ("--url: leave it out", "--url: leave it out."),
        ("'x' is no name: letters", "'x' is no name: letters."),
        ("", ""),
    ],
)
def test_it_is_a_sentence(text: str, told: str) -> None:
    assert sentence(text) == told


def test_on_a_terminal_lines_end_between_words() -> None:
    shown = wrapped(LONG, Terminal())
    assert all(len(line) <= 80 or " " not in line for line in shown.splitlines())  # a path stays whole
    assert " ".join(shown.split()) == LONG
    assert len(shown.splitlines()) == 2


def test_in_a_pipe_lines_stay_whole() -> None:
    assert wrapped(LONG, io.StringIO()) == LONG


def test_commands_stay_as_they_are() -> None:
    command = f"  export A={'x' * 60} B={'y' * 60}"
    assert wrapped(f"Do this:\n{command}", Terminal()) == f"Do this:\n{command}"


def test_an_entry_of_a_list_goes_on_below_itself() -> None:
    first, *rest = wrapped(f"  account   {LONG}", Terminal(), 12).splitlines()
    assert first.startswith("  account   Only")
    assert rest
    assert all(line.startswith(" " * 12) and line[12] != " " for line in rest)


def test_a_word_that_is_too_long_is_not_broken() -> None:
    path = "/" + "long-name/" * 12
    assert path in wrapped(f"can't write {path} here", Terminal()).splitlines()


def test_errors_and_warnings_look_alike(capsys: pytest.CaptureFixture[str]) -> None:
    fail(click.ClickException("there is no login"))
    fail(click.BadParameter("'x' is no owner", param_hint="OWNER"))
    warn("it is kept")
    say("done", err=True)
    assert capsys.readouterr().err.splitlines() == [
        "Error: There is no login.",
        "Error: Invalid value for OWNER: 'x' is no owner.",
        "Warning: It is kept.",
        "done",
    ]


def test_wrong_usage_shows_the_usage_first(aimux: Aimux) -> None:
    usage, hint, *rest = aimux("doctor", "--url", "x").stderr.splitlines()
    assert usage == "Usage: aimux doctor [OPTIONS]"
    assert re.fullmatch(r"Try 'aimux doctor (-h|--help)' for help\.", hint)  # which of them is click's choice
    assert rest == ["", "Error: --url belongs to --live."]


@pytest.mark.parametrize(
    "arguments",
    [
        ("import", "note.txt"),
        ("import", "--force", "--provider", "claude", "key.json"),
        ("connect", "codex", "--url", "https://a-name-of-some-length.example.com/claude"),
        ("connect", "cursor"),
        ("accounts", "show", "an-account-that-is-not-there-and-has-quite-a-long-name"),
    ],
)
def test_a_terminal_shows_the_same_words(aimux: Aimux, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    (tmp_path / "note.txt").write_text("nothing to see here")
    (tmp_path / "key.json").write_text('{"api_key": "sk-ant-api03-' + "a" * 40 + '"}')
    in_pipe = aimux(*arguments)
    shown = plain(on_terminal(tmp_path, *arguments, columns=80)[1])
    assert all(len(line) <= 80 or " " not in line for line in shown.splitlines())  # a path stays whole
    assert sorted(shown.split()) == sorted((in_pipe.stdout + in_pipe.stderr).split())


NOW = datetime.now(UTC)
ACCOUNT: dict[str, Any] = {
    "provider": "claude",
    "name": "default",
    "kind": "oauth",
    "plan": "max 20x",
    "status": "healthy",
    "until": None,
    "reason": "",
    "remedy": "",
    "expires_at": (NOW + timedelta(hours=5, minutes=1)).isoformat(),
    "renewable": True,
    "limits": [{"name": "5h", "used": 0.42, "status": "allowed", "resets_at": None}],
    "last_used": None,
    "same_as": [],
    "serves": "everybody",
}


@pytest.mark.parametrize("columns", [80, 100, 160])
def test_accounts_are_a_table_where_it_fits(
    columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    name, reason = "alexander.the.great@research.example.com", "its five-hour limit is used up"
    cooling = {"name": name, "status": "cooling", "until": (NOW + timedelta(minutes=48)).isoformat(), "reason": reason}
    key = {"name": "key", "kind": "api_key", "plan": None, "expires_at": None, "renewable": False}
    accounts_table([ACCOUNT, ACCOUNT | cooling, ACCOUNT | key | {"limits": []}])
    lines = [line.rstrip() for line in plain(capsys.readouterr().out).splitlines()]
    assert max(map(len, lines)) <= columns
    assert any(f"{name}: {reason}" in line for line in lines)
    if columns == 160:
        assert lines[0].split()[:3] == ["PROVIDER", "NAME", "KIND"]
        assert len([line for line in lines if line.startswith("claude ")]) == 3
    else:
        assert lines[:3] == [
            "claude/default (oauth, max 20x)",
            "  healthy, expires in 5 h, never used",
            "  5h 42 %",
        ]
        assert "claude/key (api_key)" in lines
        assert "  healthy, never used" in lines
        assert f"claude/{name} (oauth, max 20x)" in lines


@pytest.mark.parametrize("columns", [40, 120])
def test_rows_that_do_not_fit_side_by_side_become_paragraphs(
    columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    rows = [("alice", "admin", "research, operations", "-"), ("bob", "member", "-", "[red] team of bob's own")]
    print_table(("NAME", "ROLE", "GROUPS", "MAY USE"), rows)
    shown = plain(capsys.readouterr().out)
    if columns == 120:
        assert [line.split()[0] for line in shown.splitlines()] == ["NAME", "alice", "bob"]
    else:
        assert [line.rstrip() for line in shown.splitlines()] == [
            "alice",
            "  ROLE admin",
            "  GROUPS research, operations",
            "bob",
            "  ROLE member",
            "  MAY USE [red] team of bob's own",
        ]


@pytest.mark.parametrize("terminal", [False, True])
def test_columns_that_say_nothing_are_left_out_for_people(
    terminal: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    print_table(("NAME", "E-MAIL", "STATE"), [("ann", "-", "enabled"), ("bob", "", "disabled")])
    head, *_ = plain(capsys.readouterr().out).splitlines()
    assert head.split() == (["NAME", "STATE"] if terminal else ["NAME", "E-MAIL", "STATE"])


@pytest.mark.parametrize("terminal", [False, True])
def test_numbers_stand_below_each_other(
    terminal: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    print_table(("name", "used", "left"), [("a", "5 %", "x"), ("b", "100 %", "y")], numbers=("used",))
    lines = [line.rstrip() for line in plain(capsys.readouterr().out).splitlines()]
    assert lines == ["name   used  left", "a       5 %  x", "b     100 %  y"]


def test_what_an_encoding_has_no_character_for_is_written_otherwise(aimux_process: Aimux, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("listen: 127.0.0.1:0\nlisten_: 1\n")
    usual = aimux_process("doctor", "--offline", PYTHONIOENCODING="utf-8")
    assert "→" in usual.stdout
    done = aimux_process("doctor", "--offline", PYTHONIOENCODING="latin-1")
    assert done.stdout == usual.stdout.replace("→", "->")
    assert done.stderr == usual.stderr.replace("→", "->")
    done = aimux_process("doctor", "--offline", "--json", PYTHONIOENCODING="latin-1")
    assert json.loads(done.stdout)[0]["status"] == "error"
