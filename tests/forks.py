"""`aimux` as a process that is forked from one which has imported it: 0.05 s of a processor in place of 0.35 s.

For tests of what a running aimux does. What is about its start (what it imports, what an interpreter reads from its
environment, which limits it inherits) takes a new interpreter.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from aimux.cli.main import main
from aimux.plugin.loader import load_plugins
from tests.tools import child_environ

IMPORTED = ("aimux.app.process", "aimux.cli.banner", "aimux.cli.serve", "aimux.storage.sqlite")
"""What `aimux serve` imports when it starts. One that is not here costs its time, and no more."""
OURS = {"HOME", "TERM", "COLUMNS", "OPENAI_API_KEY"}
"""Variables that aimux and its libraries look up when they need them."""
MESSAGE = 1 << 16
"""Bytes of a request, at most."""


def fits(environ: Mapping[str, str]) -> bool:
    """Whether a fork is what a new interpreter would be: this says nothing to the interpreter or its C library."""
    usual = child_environ()
    rest = [name for name in environ if environ[name] != usual.get(name)]
    return sys.platform == "linux" and all(name in OURS or name.startswith("AIMUX_") for name in rest)


class Forked:
    """As `asyncio.subprocess.Process`, with pipes for both outputs and no input."""

    stdout: asyncio.StreamReader
    stderr: asyncio.StreamReader
    pid: int
    returncode: int | None = None
    _ended: asyncio.Task[int]

    @classmethod
    async def start(
        cls,
        arguments: Sequence[str],
        *,
        cwd: Path,
        environ: Mapping[str, str],
        listener: socket.socket | None = None,
        limit: int,
    ) -> Self:
        """`listener` becomes descriptor 3, as socket activation has it. `limit` is the longest line, in bytes."""
        self = cls()
        readers, writers = zip(*(os.pipe() for _ in range(3)), strict=True)
        fds = [*writers, *([listener.fileno()] if listener is not None else [])]
        try:
            _ask(arguments, cwd, environ, fds)
        finally:
            for fd in writers:
                os.close(fd)
        self.stdout, self.stderr, told = [await _reader(fd, limit) for fd in readers]
        self.pid = int(await told.readline())
        self._ended = asyncio.create_task(self._end(told))
        return self

    async def _end(self, told: asyncio.StreamReader) -> int:
        self.returncode = int(await told.read())
        return self.returncode

    async def wait(self) -> int:
        return await asyncio.shield(self._ended)

    def send_signal(self, sig: int) -> None:
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, sig)


class Plain:
    """As `subprocess.Popen` for text, with a pipe for its stdout, and errors where this process has its own."""

    def __init__(self, arguments: Sequence[str], *, cwd: Path, environ: Mapping[str, str]) -> None:
        (stdout, theirs), (told, telling) = os.pipe(), os.pipe()
        try:
            _ask(arguments, cwd, environ, [theirs, 2, telling])
        finally:
            os.close(theirs)
            os.close(telling)
        self.stdout = os.fdopen(stdout)
        self._told = os.fdopen(told)
        self._pid = int(self._told.readline())

    def terminate(self) -> None:
        """If it has not ended by itself: then its number may be another's."""
        if not select.select([self._told], [], [], 0)[0]:
            os.kill(self._pid, signal.SIGTERM)

    def wait(self) -> int:
        with self.stdout, self._told:
            return int(self._told.read())


def on_terminal(terminal: int, arguments: Sequence[str], *, cwd: Path, environ: Mapping[str, str]) -> Callable[[], int]:
    """Start one with a terminal for its input and both outputs: what waits for its exit code."""
    reader, writer = os.pipe()
    try:
        _ask(arguments, cwd, environ, [terminal, terminal, writer])
    finally:
        os.close(writer)

    def wait() -> int:
        with os.fdopen(reader) as told:
            _pid, code = told.read().split()
        return int(code)

    return wait


class _Pipe(asyncio.StreamReaderProtocol):
    """Closed at its end, by uvloop as well."""

    def eof_received(self) -> bool:
        super().eof_received()
        return False


async def _reader(fd: int, limit: int) -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit)
    await asyncio.get_running_loop().connect_read_pipe(lambda: _Pipe(reader), os.fdopen(fd, "rb", 0))
    return reader


def _ask(arguments: Sequence[str], cwd: Path, environ: Mapping[str, str], fds: Sequence[int]) -> None:
    """`fds`: where it writes, where its pid and its exit code are told, and a listener if there is one."""
    request = {"arguments": arguments, "cwd": str(cwd), "environ": dict(environ)}
    socket.send_fds(_server(), [json.dumps(request).encode()], fds)


@functools.cache
def _server() -> socket.socket:
    """Where this process's server takes requests. It ends with this process."""
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with there:
        server = subprocess.Popen(
            [sys.executable, "-m", __name__, str(there.fileno())],
            pass_fds=[there.fileno()],
            cwd=Path(__file__).parent.parent,
            env=child_environ(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )

    @atexit.register
    def end() -> None:
        here.close()
        server.wait()

    return here


def _serve(control: socket.socket) -> None:
    """Fork for each request, until there are no more. Returns in the children, as what was asked for."""
    children: dict[int, int] = {}
    waking, wake = os.pipe2(os.O_NONBLOCK)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for pytest
    while True:
        ready, _, _ = select.select([control.fileno(), waking], [], [])
        if waking in ready:
            os.read(waking, 512)
            for pid in list(children):
                ended, status = os.waitpid(pid, os.WNOHANG)
                if ended:
                    _tell(children[pid], os.waitstatus_to_exitcode(status))
                    os.close(children.pop(pid))
        if control.fileno() in ready:
            message, fds, *_ = socket.recv_fds(control, MESSAGE, 4)
            if not message:
                sys.exit()
            if (pid := os.fork()) == 0:
                control.detach()
                _become(json.loads(message), *fds)
                return
            stdout, stderr, told, *listener = fds
            children[pid] = told
            _tell(told, pid)
            for fd in (stdout, stderr, *listener):
                os.close(fd)


def _tell(fd: int, number: int) -> None:
    with contextlib.suppress(BrokenPipeError):  # the test has ended
        os.write(fd, b"%d\n" % number)


def _become(request: dict[str, Any], stdout: int, stderr: int, _told: int, *listener: int) -> None:
    """What differs between the server and a new interpreter that was given this."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if os.isatty(stdout):
        os.dup2(stdout, 0)
    os.dup2(stdout, 1)
    os.dup2(stderr, 2)
    for fd in listener:
        os.dup2(fd, 3)
    os.closerange(3 + len(listener), os.sysconf("SC_OPEN_MAX"))
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environ"])
    if listener:
        os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
    sys.argv = ["aimux", *request["arguments"]]


if __name__ == "__main__":
    for name in IMPORTED:
        importlib.import_module(name)
    load_plugins()
    _serve(socket.socket(fileno=int(sys.argv[1])))
    main()
