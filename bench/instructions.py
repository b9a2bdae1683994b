"""Instructions instead of seconds, for machines that do other things too: `python -m bench --check`, by valgrind.

aimux runs under callgrind; one client and the upstream live in this process and go in step, so that each event is one
packet and one round of the loop. What is counted are the instructions outside of the kernel from a packet's read to
the end of all that it causes at once, records that are over among it (`at_once.py`): the same to 1 % from run to run,
with the same interpreter and libraries. Left out are the waiting for packets, the write of the access log and the
ledger's batches: they go by the clock.
"""

from __future__ import annotations

import asyncio
import platform
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop

from bench import process, traffic
from bench.contenders import BUILD, Unavailable, changed
from bench.load import Client, Failed
from bench.upstream import Upstream

if TYPE_CHECKING:
    from collections.abc import Mapping

README = Path(__file__).with_name("README.md")
BEGIN, END = "<!-- instructions: python -m bench --check --write -->\n", "<!-- end of instructions -->"
MOST = 1.03
"""What was counted may be so many times what the table says."""
COUNTED = {"small": 400, "turn": 5, "short": 20}
"""Requests of each kind that are counted, after a quarter as many that are not …"""
WARM_UP = 15
"""… and at least so many: by then it is known what the heads of their answers have in common."""
COLLECTED = "uv__stream_io"
"""libuv's function in which everything happens that bytes on a socket cause."""
START_SECONDS = 300.0
MEASURES = ("small request", "turn", "event")


class _InStep(Client):
    """Has the upstream's next event sent when it has the one before."""

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        for stream, position in list(Upstream.streaming.items()):
            stream.tick(position)


class Callgrind:
    """A process under callgrind."""

    def __init__(self, command: list[str], folder: Path) -> None:
        valgrind = shutil.which("valgrind")
        if valgrind is None or shutil.which("callgrind_control") is None:
            raise Unavailable("valgrind is not installed (Debian: apt-get install valgrind)")
        self._folder = folder
        self._dumps = 0
        self.process = process.start(
            [
                valgrind,
                "--tool=callgrind",
                f"--toggle-collect={COLLECTED}",
                f"--callgrind-out-file={folder}/callgrind",
                *command,
            ],
            process.CONTENDER_CORE,
            folder / "output.log",
            {"PYTHONHASHSEED": "0"},
        )

    def count(self) -> int:
        """Instructions since the last time."""
        self._control("-d")
        self._dumps += 1
        dump = self._folder / f"callgrind.{self._dumps}"
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if dump.exists() and (found := [line for line in dump.read_text().splitlines() if line[:8] == "totals: "]):
                return int(found[0].split()[1])
            time.sleep(0.05)
        raise Unavailable("callgrind wrote no figures")

    def _control(self, option: str) -> None:
        done = subprocess.run(
            ["callgrind_control", option, str(self.process.pid)], capture_output=True, text=True, check=False
        )
        if "OK" not in done.stdout:
            raise Unavailable(f"callgrind_control fails: {done.stdout.strip()} {done.stderr.strip()}")


async def _drive(client: Client, kind: str, count: int) -> None:
    for number in range(count):
        await client.send(traffic.request(kind, "/claude", number))


async def _client(port: int, callgrind: Callgrind) -> Client:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and callgrind.process.poll() is None:
        try:
            _, client = await asyncio.get_running_loop().create_connection(_InStep, "127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.2)
        else:
            return client
    raise Unavailable("aimux does not start under valgrind; its output is in output.log (--keep FOLDER)")


async def _count(folder: Path, port: int, upstream_port: int) -> dict[str, int]:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Upstream, "127.0.0.1", upstream_port)
    callgrind = Callgrind(changed("bench.at_once", folder, port, f"http://127.0.0.1:{upstream_port}"), folder)
    found = {}
    try:
        client = await _client(port, callgrind)
        for kind, count in COUNTED.items():
            await _drive(client, kind, max(count // 4, WARM_UP))
            callgrind.count()
            await _drive(client, kind, count)
            if not (counted := callgrind.count()):
                raise Unavailable(f"uvloop's symbol {COLLECTED} is not there: its build is stripped")
            found[kind] = counted // count
        client.close()
    finally:
        process.stop(callgrind.process)
        server.close()
    event = (found["turn"] - found["short"]) // (traffic.EVENTS - traffic.FEW_EVENTS)
    return {"small request": found["small"], "turn": found["turn"], "event": event}


def count(folder: Path, port: int, upstream_port: int) -> dict[str, int]:
    """Instructions for each of MEASURES. Raises Unavailable."""
    try:
        return uvloop.run(_count(folder, port, upstream_port))
    except Failed as error:
        raise Unavailable(str(error)) from error


def interpreter() -> str:
    """What the figures depend on beside the code: only those of the same one can be compared."""
    python = f"Python {platform.python_version()} by {platform.python_compiler()}"
    return f"{BUILD}, {python}, {platform.machine()}"


def kept() -> dict[str, dict[str, int]]:
    """The table in bench/README.md, by interpreter."""
    found = {}
    for line in README.read_text().partition(BEGIN)[2].partition(END)[0].splitlines()[2:]:
        name, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        found[name] = {measure: int(cell.replace(",", "")) for measure, cell in zip(MEASURES, cells, strict=True)}
    return found


def keep(figures: Mapping[str, int]) -> None:
    """Put the figures into the table, in place of this interpreter's."""
    rows = kept() | {interpreter(): dict(figures)}
    table = [f"| instructions | {' | '.join(MEASURES)} |", f"| --- |{' ---: |' * len(MEASURES)}"]
    table += [f"| {name} | {' | '.join(f'{row[each]:,}' for each in MEASURES)} |" for name, row in sorted(rows.items())]
    before, _, rest = README.read_text().partition(BEGIN)
    README.write_text(f"{before}{BEGIN}{chr(10).join(table)}\n{END}{rest.partition(END)[2]}")


def compared(figures: Mapping[str, int], before: Mapping[str, int] | None) -> tuple[list[str], bool]:
    """What to say, one line for each measure, and whether nothing got worse by more than MOST."""
    if before is None:
        lines = [f"{measure}: {figure:,} instructions" for measure, figure in figures.items()]
        return [*lines, f"There is nothing to compare with for: {interpreter()} (--write keeps these figures)"], True
    lines, good = [], True
    for measure, figure in figures.items():
        ratio = figure / before[measure]
        worse = ratio > MOST
        good = good and not worse
        lines.append(
            f"{measure}: {figure:,} instructions, {ratio:.3f}× the table's {before[measure]:,}{' (WORSE)' * worse}"
        )
    return lines, good
