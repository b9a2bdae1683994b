"""The account commands in this process, against a simulator that runs in a thread of its own."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
import sys
import termios
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from aimux.cli.main import cli
from tests import forks
from tests.control.live import Live
from tests.tools import child_environ

USUAL = ("PATH", "LANG", "LC_ALL", "VIRTUAL_ENV", "PYTHONPATH")


@dataclass
class Commands:
    """`live` is where they lead. `environ` is all that they see of the environment, but for what a shell has."""

    live: Live
    environ: dict[str, str]

    @property
    def home(self) -> str:
        return self.environ["HOME"]

    def __call__(self, *arguments: str, stdin: str = "", expect: int = 0) -> Result:
        """Run a command. Its stdin is no terminal."""
        hidden: dict[str, str | None] = dict.fromkeys(os.environ)
        usual = {name: os.environ[name] for name in USUAL if name in os.environ}
        result = CliRunner(env=hidden | usual | self.environ).invoke(cli, arguments, input=stdin)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == expect, result.output
        return result

    def json(self, *arguments: str) -> Any:
        return json.loads(self(*arguments, "--json").stdout)

    def account(self, name: str) -> Any:
        return self.json("accounts", "show", name)

    def names(self) -> list[str]:
        return [f"{account['provider']}/{account['name']}" for account in self.json("accounts")]

    def process(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        """The same as a process of its own, with pipes."""
        usual = {name: os.environ[name] for name in USUAL if name in os.environ}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT} | options
        return subprocess.Popen(
            [sys.executable, "-m", "aimux.cli.main", *arguments],
            env=usual | self.environ,
            cwd=self.home,
            text=True,
            **pipes,
        )


def follow(url: str) -> str:
    """What a browser shows in the end."""
    with urllib.request.urlopen(url, timeout=30) as page:
        return str(page.read().decode())


def sign_in_address(text: str) -> str:
    found = re.search(r"^\s*(http://\S+/authorize\?\S+)$", text, re.MULTILINE)
    assert found, text
    return found[1]


def read_until(fd: int, wanted: str, seconds: float = 30.0) -> str:
    """What a terminal showed up to and with `wanted`."""
    shown = ""
    deadline = time.monotonic() + seconds
    while wanted not in shown:
        assert time.monotonic() < deadline, shown
        if select.select([fd], [], [], 1.0)[0]:
            shown += os.read(fd, 4096).decode()
    return shown


def until_asleep(process: subprocess.Popen[str], seconds: float = 30.0) -> None:
    """Until a program waits for what is typed. A signal between its question and that is noticed at the next key only:
    Python looks for one before it waits."""
    state = Path(f"/proc/{process.pid}/stat")
    deadline = time.monotonic() + seconds
    while state.exists() and state.read_text().rpartition(")")[2].split()[0] != "S":
        assert time.monotonic() < deadline, "it does not wait"
        time.sleep(0.01)


def type_hidden(fd: int, text: str) -> None:
    """Answer a prompt that shows nothing, once it does: what was typed before that is thrown away."""
    deadline = time.monotonic() + 30
    while termios.tcgetattr(fd)[3] & termios.ECHO:
        assert time.monotonic() < deadline, "what is typed is shown"
        time.sleep(0.01)
    os.write(fd, f"{text}\n".encode())


def on_terminal(home: Path, *arguments: str, columns: int, **environ: str) -> tuple[int, str]:
    """Exit code of a command, and what a terminal got to see of it."""
    environ = child_environ(home, TERM="xterm-256color", COLUMNS=str(columns), **environ)
    terminal, end = pty.openpty()
    if forks.fits(environ):
        wait = forks.on_terminal(end, arguments, cwd=home, environ=environ)
    else:
        command = [sys.executable, "-m", "aimux.cli.main", *arguments]
        wait = subprocess.Popen(command, cwd=home, env=environ, stdin=end, stdout=end, stderr=end).wait
    os.close(end)
    shown = b""
    try:
        while chunk := os.read(terminal, 4096):
            shown += chunk
    except OSError:  # Linux says so at the end of a terminal
        pass
    os.close(terminal)
    return wait(), shown.decode()


def plain(shown: str) -> str:
    """Without colours and the like."""
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown).replace("\r", "")
