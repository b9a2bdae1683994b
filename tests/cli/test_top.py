"""`aimux top`."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from aimux.cli.top import shown
from tests.cli.support import USUAL, Commands, read_until
from tests.control.live import running


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Commands]:
    with running(tmp_path) as live:
        yield Commands(live, {"HOME": str(live.folder), "AIMUX_CONFIG": str(live.config)})


def test_what_runs_and_how_full_windows_are_is_on_the_screen() -> None:
    item = {"user": "[red]ann", "model": "opus", "provider": "claude", "account": "two", "client": "claude-cli/2"}
    evil = "op\x1b]0;us\x07\n\u202e\x9b1m"
    live = {
        "running": 2,
        "items": [
            {**item, "seconds": 3.25, "streaming": True},
            {**item, "account": "", "seconds": 1, "streaming": False},
            {**item, "model": evil, "client": "x", "seconds": 1, "streaming": False},
        ],
        "tokens_per_second": 12.5,
        "requests_per_minute": 4,
    }
    windows = [{"name": "5h", "used": 0.97}, {"name": "7d", "used": 0.5}, {"name": "untold", "used": None}]
    accounts: list[Any] = [
        {"provider": "claude", "name": "two", "status": "healthy", "in_flight": 2, "limits": windows},
        {"provider": "chatgpt", "name": "idle", "status": "cooling", "in_flight": 0, "limits": []},
    ]
    out = io.StringIO()
    Console(file=out, width=120, highlight=False).print(shown(live, accounts))
    text = out.getvalue()
    assert "2 running · 12.5 tokens/s · 4 requests/min" in text
    assert [line.split() for line in text.splitlines() if "claude-cli" in line] == [
        ["[red]ann", "opus", "claude/two", "claude-cli/2", "3.2", "s", "streams"],
        ["[red]ann", "opus", "claude", "claude-cli/2", "1.0", "s", "waits"],
    ]
    assert r"op\x1b]0;us\x07\n\u202e\x9b1m" in text, "no terminal obeys a model's name"
    assert [line.split()[:2] for line in text.splitlines() if line.isupper()] == [
        ["USER", "MODEL"],
        ["ACCOUNT", "STATE"],
    ]
    assert "97 %" in text
    assert "untold" not in text
    assert "chatgpt/idle" in text


def test_as_much_as_fits_is_on_the_screen() -> None:
    item = {"user": "ann", "model": "opus", "provider": "claude", "account": "two", "client": "x", "seconds": 1}
    items = [{**item, "streaming": True}] * 30
    live = {"running": 40, "items": items, "tokens_per_second": 0, "requests_per_minute": 0}
    windows = [{"name": "5h", "used": 0.97}, {"name": "7d", "used": 0.5}]
    accounts: list[Any] = [
        {"provider": "claude", "name": name, "status": "healthy", "in_flight": 2, "limits": windows}
        for name in ("two", *map(str, range(20)))
    ]

    def lines(live: dict[str, Any], accounts: list[Any], height: int) -> list[list[str]]:
        out = io.StringIO()
        Console(file=out, width=80, highlight=False).print(shown(live, accounts, height))
        return [line.split() for line in out.getvalue().splitlines()]

    full = lines(live, accounts, 24)
    assert len(full) == 24
    assert [line for line in full if "more" in line] == [["31", "more"], ["17", "more"]]
    assert ["claude/two", "healthy", "30"] in [line[:3] for line in full], "at all nodes, and not at the one asked"
    few = lines(live, accounts[:1], 24)
    assert len(few) == 24
    assert [line for line in few if "more" in line] == [["24", "more"]]
    assert len(lines({**live, "running": 1, "items": items[:1]}, accounts, 24)) == 24
    assert len(lines({**live, "running": 1, "items": items[:1]}, accounts[:1], 24)) == 8


def test_names_are_whole_where_there_is_little_room() -> None:
    live = {"running": 0, "items": [], "tokens_per_second": 0, "requests_per_minute": 0}
    windows = [{"name": "5h", "used": 1.0}, {"name": "7d_oi", "used": 0.5}]
    accounts: list[Any] = [
        {"provider": "claude", "name": "researchers", "status": "healthy", "in_flight": 0, "limits": windows}
    ]
    for columns, bar in ((200, 20), (80, 20), (64, 9), (60, 5), (55, 0)):
        out = io.StringIO()
        Console(file=out, width=columns, highlight=False).print(shown(live, accounts, width=columns))
        full, half = [line.split() for line in out.getvalue().splitlines()[-2:]]
        assert full == ["claude/researchers", "healthy", "0", "5h", *(["█" * bar] if bar else []), "100", "%"]
        assert half[1:] == [*(["█" * (bar // 2) + "░" * (bar - bar // 2)] if bar else []), "50", "%"]


def test_on_a_narrow_terminal_the_client_is_left_out_first() -> None:
    item = {"user": "ann", "model": "claude-opus-4-5", "provider": "claude", "account": "two", "client": "claude-cli/2"}
    items = [{**item, "seconds": 123.25, "streaming": True}]
    live = {"running": 1, "items": items, "tokens_per_second": 0, "requests_per_minute": 0}
    for columns, cells in (
        (80, ["ann", "claude-opus-4-5", "claude/two", "claude-cli/2", "123.2 s", "streams"]),
        (60, ["ann", "claude-opus-4-5", "claude/two", "123.2 s", "streams"]),
        (50, ["ann", "claude-opus-4-5", "claude/two", "123.2 s"]),
        (40, ["ann", "claude-opus-…", "claude/two", "123.2 s"]),
    ):
        out = io.StringIO()
        Console(file=out, width=columns, highlight=False).print(shown(live, [], width=columns))
        assert re.split(" {2,}", out.getvalue().splitlines()[3].strip()) == cells, columns


def test_in_a_pipe_it_is_shown_once(served: Commands) -> None:
    text = served("top").stdout
    assert "0 running" in text
    assert "claude/default" in text


def test_json_is_one_snapshot(served: Commands) -> None:
    told = served.json("top")
    assert told["items"] == []
    assert {f"{one['provider']}/{one['name']}" for one in told["accounts"]} == {"claude/default", "chatgpt/default"}
    assert told["tokens_per_second"] == 0


def test_a_link_to_the_dashboard_in_json(served: Commands) -> None:
    told = served.json("dashboard")
    assert told["url"] is None, "it listens on a unix socket"
    assert told["path"].startswith("/dashboard/sign-in?code=")
    assert told["expires_in"] == 300


def test_without_a_server_there_is_nothing_to_show(tmp_path: Path) -> None:
    with running(tmp_path, serve=False) as live:
        aimux = Commands(live, {"HOME": str(live.folder), "AIMUX_CONFIG": str(live.config)})
        assert "No server is running" in aimux("top", expect=1).stderr


@pytest.mark.parametrize("key", [b"q", b"\x03", b"\x1b[Aq"], ids=["q", "Ctrl-C", "others with it"])
def test_it_ends_by_a_key_and_leaves_the_terminal_as_it_was(served: Commands, key: bytes) -> None:
    ours, theirs = pty.openpty()
    usual = {name: os.environ[name] for name in USUAL if name in os.environ}
    process = subprocess.Popen(
        [sys.executable, "-m", "aimux.cli.main", "top"],
        env=usual | served.environ | {"TERM": "xterm", "COLUMNS": "100", "LINES": "40"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(theirs, termios.TIOCSCTTY, 0),  # where Ctrl-C goes
    )
    os.close(theirs)
    read_until(ours, "0 running")
    os.write(ours, key)
    assert process.wait(20) == 0
    os.close(ours)
