"""aimux as a real process, for tests of how it is packaged and deployed."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests import forks
from tests.tools import child_environ

PROMPT = {"model": "claude-sonnet-5", "max_tokens": 50, "messages": [{"role": "user", "content": "Hello!"}]}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@contextmanager
def serving(config: Mapping[str, object], folder: Path) -> Iterator[str]:
    """A running gateway with this configuration: its address."""
    file = folder / "aimux.json"
    file.write_text(json.dumps(config))
    file.chmod(0o600)
    with serving_file(file, folder) as address:
        yield address


@contextmanager
def serving_file(file: Path, folder: Path, environ: Mapping[str, str] | None = None) -> Iterator[str]:
    """The same for a file. The gateway must end with 0 on SIGTERM."""
    arguments = ["serve", "--config", str(file)]
    environ = child_environ(folder, **{"AIMUX_LOG_FORMAT": "text", **(environ or {})})
    process: forks.Plain | subprocess.Popen[str]
    if forks.fits(environ):
        process = forks.Plain(arguments, cwd=folder, environ=environ)
    else:
        command = [sys.executable, "-m", "aimux.cli.main", *arguments]
        process = subprocess.Popen(command, cwd=folder, env=environ, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        found = re.search(r"listens on (\S+)", process.stdout.readline())
        assert found
        yield found[1]
    finally:
        process.terminate()
        process.stdout.read()
        code = process.wait()
        process.stdout.close()
    assert code == 0


@contextmanager
def demo(aimux: Sequence[str], cwd: Path) -> Iterator[tuple[str, str]]:
    """A running demo: its address and its user's token. It must end with 0 on SIGTERM."""
    environ = child_environ(cwd)
    command = [*aimux, "demo", "--listen", "127.0.0.1:0"]
    with subprocess.Popen(command, cwd=cwd, env=environ, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            said = ""
            for line in process.stdout:
                said += line
                if "Ctrl-C" in line:
                    break
            address, token = re.search(r"listens on (http://\S+)", said), re.search(r"Bearer ([\w-]+)", said)
            assert address and token, said
            yield address[1], token[1]
        finally:
            process.terminate()
            process.communicate()
    assert process.returncode == 0


def request(address: str, token: str, *, path: str = "/claude/v1/messages", **more: object) -> urllib.request.Request:
    """A request for Claude; `more` goes into its body, apart from `simulator`, the scenario that the upstream plays."""
    headers = {
        "authorization": f"Bearer {token}",
        "content-type": "application/json",
        "anthropic-version": "2023-06-01",
    }
    if scenario := more.pop("simulator", None):
        headers["x-simulator"] = str(scenario)
    return urllib.request.Request(address + path, json.dumps(PROMPT | more).encode(), headers)


def ask(address: str, token: str, **more: object) -> str:
    """One request through the gateway: the type of the answer's first block."""
    with urllib.request.urlopen(request(address, token, **more), timeout=30) as answer:  # type: ignore[arg-type]
        return str(json.load(answer)["content"][0]["type"])
