"""The real process, as a person starts it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from aimux import __version__
from aimux.cli import demo_data
from aimux.cli.banner import print_banner
from tests.cli.conftest import Aimux
from tests.cli.test_words import Terminal
from tests.control.live import running


@contextmanager
def serving(folder: Path, *arguments: str, **environ: str) -> Iterator[subprocess.Popen[str]]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("AIMUX_", "XDG_"))}
    process = subprocess.Popen(
        [sys.executable, "-m", "aimux.cli.main", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env=clean | {"HOME": str(folder), "AIMUX_LISTEN": "127.0.0.1:0"} | environ,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_the_banner_says_what_runs_and_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(
        "providers: [claude, chatgpt]\nmounts: {/: claude, /codex: chatgpt}\n"
        "users: [{name: alice, token: '${env:ALICE}'}]\n"
    )
    key = tmp_path / ".aimux" / "claude" / ".credentials.json"
    key.parent.mkdir(parents=True, mode=0o700)
    key.parent.parent.chmod(0o700)
    key.write_text('{"api_key": "sk-ant-api03-made-up-for-this-test"}')
    key.chmod(0o600)
    for name, more in (("stale", {"refreshToken": "rt"}), ("ended", {})):
        login = {"accessToken": f"sk-ant-oat01-{name}", "expiresAt": 1_700_000_000_000, **more}
        file = tmp_path / ".aimux" / "claude" / name / ".credentials.json"
        file.parent.mkdir(mode=0o700)
        file.touch(mode=0o600)
        file.write_text(json.dumps({"claudeAiOauth": login}))
    with serving(tmp_path, ALICE="a-token-of-some-length") as process:
        assert process.stdout is not None
        banner = [process.stdout.readline()]
        while not banner[-1].startswith("  missing"):
            assert banner[-1], "the banner ended early"
            banner.append(process.stdout.readline())
        process.send_signal(signal.SIGTERM)
        rest, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors
    text = "".join(banner) + rest
    assert re.match(rf"aimux {re.escape(__version__)} listens on http://127\.0\.0\.1:\d+\n", text)
    assert "claude/stale (oauth): expired, to be renewed\n" in text
    assert "claude/ended (oauth): parked: its credential expired on 2023-11-14 and can't be renewed (log in" in text
    assert "mounts    / → claude\n            /codex → chatgpt\n" in text
    assert "accounts  claude/default (api_key): healthy\n" in text
    assert "users     1\n" in text
    assert (
        f"missing   chatgpt has no account: aimux login chatgpt, or put one at {tmp_path}/.aimux/chatgpt/auth.json"
        in text
    )
    assert "made-up" not in text + errors
    assert "a-token" not in text + errors


def test_the_banner_does_not_wait_for_a_database_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal it has a link that signs in, which the database keeps."""

    async def hang() -> str:
        await asyncio.Event().wait()
        raise AssertionError

    with running(tmp_path, listen="127.0.0.1:0") as live, monkeypatch.context() as patch:
        patch.setattr(live.app, "sign_in_link", hang)
        patch.setattr(sys, "stdout", shown := Terminal())
        asyncio.run_coroutine_threadsafe(print_banner(live.app), live.loop).result(timeout=60)
    assert "`aimux dashboard` prints a link" in " ".join(shown.getvalue().split())


def test_with_json_logs_stdout_stays_empty(tmp_path: Path) -> None:
    notify = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
        ready.bind(str(notify))
        ready.settimeout(30)
        with serving(tmp_path, AIMUX_LOG_FORMAT="json", NOTIFY_SOCKET=str(notify)) as process:
            while b"READY=1" not in ready.recv(4096):
                pass
            process.send_signal(signal.SIGTERM)
            output, _ = process.communicate(timeout=30)
    assert output == ""


@pytest.mark.parametrize("arguments", [(), ("serve", "--or-demo"), ("demo",)], ids=" ".join)
def test_a_port_that_is_taken_is_told_with_what_helps(aimux_process: Aimux, arguments: tuple[str, ...]) -> None:
    """`make run` is the second; its user has no configuration to change."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = aimux_process(*arguments, AIMUX_LISTEN=address)
    assert done.returncode == 1
    assert f"Can't listen on {address}: another program" in done.stderr
    assert "begin the same command with AIMUX_LISTEN=127.0.0.1:8081" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("listen", "says"),
    [
        ("192.0.2.1:8080", "this machine has no such address; `:PORT` means every one"),
        ("unix:/no/such/socket", "there is no such folder; make it"),
        (f"unix:{__file__}", "something else lies there, which is no socket; remove it"),
    ],
)
def test_an_address_that_cannot_be_is_told_with_what_helps(aimux_process: Aimux, listen: str, says: str) -> None:
    done = aimux_process(AIMUX_LISTEN=listen)
    assert done.returncode == 1
    assert f"Error: Can't listen on {listen}: {says}" in done.stderr


@pytest.mark.parametrize("arguments", [(), ("serve", "--or-demo")], ids=" ".join)
def test_a_state_folder_that_cannot_be_read_is_told(
    aimux_process: Aimux, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    (tmp_path / ".aimux").mkdir(mode=0o700)
    (tmp_path / ".aimux" / "claude").touch()
    done = aimux_process(*arguments, AIMUX_LISTEN="127.0.0.1:0")
    assert done.returncode == 1
    assert f"Error: Can't read {tmp_path}/.aimux/claude (Not a directory)" in done.stderr
    assert "Traceback" not in done.stderr


def test_whoever_configures_by_the_environment_gets_no_demo(aimux_process: Aimux, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:  # so that it ends at once
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        done = aimux_process(
            "serve", "--or-demo", AIMUX_LISTEN=listen, AIMUX_PROVIDERS__CLAUDE__API_KEY="sk-ant-api03-made-up"
        )
    assert done.returncode == 1
    assert (tmp_path / ".aimux" / "admin.key").exists()


def test_the_demo_has_nothing_of_the_real_gateway(tmp_path: Path) -> None:
    real = {
        "AIMUX_STATE_DIR": str(tmp_path / "state"),
        "AIMUX_USERS": "[]",
        "AIMUX_PROVIDERS__CLAUDE__BASE_URL": "https://api.anthropic.com",
        "AIMUX_PROVIDERS__CLAUDE__API_KEY": "sk-ant-api03-made-up-for-this-test",
    }
    with serving(tmp_path, "demo", **real) as process:
        assert process.stdout is not None
        banner = ""
        while "This is a demo" not in banner:
            banner += (line := process.stdout.readline())
            assert line, banner
    assert "accounts  claude/default (oauth, max): healthy\n" in banner
    assert "api-key" not in banner
    assert f"users     {1 + len(demo_data.TEAM)}\n" in banner
    assert not (tmp_path / "state").exists()


def test_a_demo_leaves_no_folder_behind(tmp_path: Path) -> None:
    """A killed one's goes with the next, which leaves those alone that run."""

    def folders() -> set[Path]:
        return set((tmp_path / "tmp").iterdir())

    def started(process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("aimux ")

    (tmp_path / "tmp").mkdir()
    environ = {"TMPDIR": str(tmp_path / "tmp")}
    with serving(tmp_path, "demo", **environ) as killed:
        started(killed)
        killed.kill()
        killed.wait()
    left = folders()
    assert len(left) == 1
    with serving(tmp_path, "demo", **environ) as first:
        started(first)
        [held] = folders() - left
        assert folders() == {held}
        with serving(tmp_path, "demo", **environ) as second:
            started(second)
            assert held in folders()
            second.send_signal(signal.SIGINT)
            second.communicate(timeout=60)
        assert folders() == {held}
        first.send_signal(signal.SIGTERM)
        first.communicate(timeout=60)
    assert not folders()


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_leaves_no_traceback(tmp_path: Path, name: str) -> None:
    with serving(tmp_path) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(getattr(signal, name))
        _, errors = process.communicate(timeout=30)
    assert "Traceback" not in errors


def test_an_output_that_is_full_is_told_in_words(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    command = [sys.executable, "-m", "aimux.cli.main", "config-schema"]
    environ = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path)}
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, cwd=tmp_path, env=environ, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (1, "Error: The output can't be written: No space left on device.\n")


@pytest.mark.parametrize("streams", [">&-", ">/dev/full", "<&- >&- 2>&-", ">/dev/full 2>/dev/full"])
def test_a_closed_or_full_stdout_keeps_nobody_from_serving(tmp_path: Path, streams: str) -> None:
    if "full" in streams and not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    command = f'exec "$0" -m aimux {streams}'
    place = tmp_path / "socket"
    environ = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "AIMUX_LISTEN": f"unix:{place}"}
    environ |= {"AIMUX_PROVIDERS": "claude", "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(["sh", "-c", command, sys.executable], cwd=tmp_path, env=environ)
    try:
        deadline = time.monotonic() + 60
        while not place.exists():
            assert process.poll() is None, "it gave up"
            assert time.monotonic() < deadline
            time.sleep(0.05)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(place))
            client.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert client.recv(4096).startswith(b"HTTP/1.1 200")
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
