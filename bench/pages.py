"""What the dashboard's pages cost on the year of `bench.year`, SQLite: `python -m bench.pages` prints the table of
bench/README.md. Processor time of the server and what goes over the wire, each page alone, best of five."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from unittest.mock import patch

from aimux.storage import Database
from bench import year

PAGES = (
    "",
    "accounts",
    "people",
    "people/users/u3",
    "people/groups/group-3",
    "usage",
    "usage?since=7d",
    "usage?since=90d",
    "usage?since=90d&by=model",
    "usage?since=365d",
    "usage?since=365d&by=model",
    "usage?since=365d&by=model&user=u3",
    "requests",
    "requests?failed=true",
    "settings",
)
TICKS = os.sysconf("SC_CLK_TCK")
TIMES = 5
REPEATED = 4
"""Loads that are measured together: the kernel counts in hundredths of a second."""


async def fill(state_dir: Path) -> None:
    year.AT = int(time.time()) // 60 * 60_000
    with patch("aimux.metering.reports.now", lambda: year.AT):
        database = await Database.open(None, state_dir)
        await year.year(database)
        await database.close()


def configuration(folder: Path) -> Path:
    team = range(year.TEAM)
    users = [{"name": f"u{n}", "token": f"token-of-u{n}-0123456789", "groups": [f"group-{n % 12}"]} for n in team]
    limits = {f"u{n}": {"tokens_per_day": 10**9, "cost_per_month": 10**6} for n in team}
    config = {"listen": f"unix:{folder / 'socket'}", "state_dir": str(folder), "users": users}
    file = folder / "config.json"
    file.write_text(json.dumps(config | {"limits": {"users": limits}}))
    file.chmod(0o600)
    return file


class Connection(http.client.HTTPConnection):
    """To a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=120)
        self._path = path

    def connect(self) -> None:
        import socket

        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self._path))


def ask(
    path: Path, method: str, target: str, body: str | None = None, **headers: str
) -> tuple[bytes, http.client.HTTPMessage]:
    connection = Connection(path)
    connection.request(method, target, body, headers)
    answer = connection.getresponse()
    return answer.read(), answer.headers


def measure(pid: int, socket: Path, cookie: str) -> None:
    def used() -> float:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * 1000 / TICKS

    print("| page | ms | kB |\n| --- | ---: | ---: |")
    for page in PAGES:
        best, size = float("inf"), 0
        for _ in range(TIMES):
            before = used()
            for _ in range(REPEATED):
                body, _ = ask(socket, "GET", f"/dashboard/{page}", cookie=cookie, **{"accept-encoding": "gzip"})
            best, size = min(best, (used() - before) / REPEATED), len(body)
        print(f"| `/{page}` | {best:.0f} | {size / 1000:.0f} |", flush=True)


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        asyncio.run(fill(folder))
        command = [sys.executable, "-m", "aimux", "serve", "--config", str(configuration(folder))]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
            try:
                while not (folder / "socket").exists() or not (folder / "admin.key").exists():
                    time.sleep(0.1)
                key = (folder / "admin.key").read_text().strip()
                kind = {"content-type": "application/x-www-form-urlencoded"}
                _, headers = ask(folder / "socket", "POST", "/dashboard/sign-in", f"token={key}", **kind)
                found = re.search(r"__Host-aimux=[^;]+", headers["set-cookie"])
                assert found is not None
                measure(server.pid, folder / "socket", found[0])
            finally:
                server.terminate()


if __name__ == "__main__":
    main()
