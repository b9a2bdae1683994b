"""What the service's sandbox forbids, done to a real aimux."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from aimux.cli.units import unit_settings
from tests.running import ask, demo
from tests.tools import lacking, program

# PR_SET_MDWE with PR_MDWE_REFUSE_EXEC_GAIN (Linux 6.3): what systemd's MemoryDenyWriteExecute does, without systemd.
FORBID = "import ctypes, sys; refused = ctypes.CDLL(None).prctl(65, 1, 0, 0, 0);"
SERVE = "from aimux.cli.main import main; main()"
TLS = """
import pathlib
from aimux.certificates import ServerTLS, TLSFiles
import aiohttp, brotli, cryptography, prometheus_client, pydantic, uvloop, yaml, zstandard
ServerTLS(TLSFiles.self_signed(pathlib.Path(sys.argv[1]), "localhost"))
"""


def test_aimux_imports_and_serves_without_writable_executable_memory(tmp_path: Path) -> None:
    probe = subprocess.run([sys.executable, "-c", f"{FORBID} sys.exit(refused)"], timeout=60)
    if probe.returncode:
        lacking("the kernel has no PR_SET_MDWE (Linux 6.3)")
    with demo([sys.executable, "-c", FORBID + SERVE], tmp_path) as (address, token):
        assert ask(address, token) == "text"
    subprocess.run([sys.executable, "-c", FORBID + TLS, str(tmp_path)], check=True, timeout=60)


def test_the_prohibition_is_in_force(tmp_path: Path) -> None:
    """Without this the test above could pass for nothing."""
    map_it = "import mmap; mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)"
    done = subprocess.run([sys.executable, "-c", f"{FORBID} {map_it}"], capture_output=True, text=True, timeout=60)
    if "Invalid argument" in done.stderr:
        lacking("the kernel has no PR_SET_MDWE (Linux 6.3)")
    assert "PermissionError" in done.stderr


def system_calls(name: str) -> set[str]:
    """What is in one of systemd's sets, those that it includes among it."""
    command = [program("systemd-analyze", "systemd"), "syscall-filter", name]
    listed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.split("\n")[1:]
    names = [line.strip() for line in listed if line.strip() and not line.strip().startswith("#")]
    return {call for one in names for call in (system_calls(one) if one.startswith("@") else {one})}


def test_every_system_call_is_one_that_the_unit_allows(tmp_path: Path) -> None:
    traced = tmp_path / "calls"
    strace = [program("strace", "strace"), "--daemonize", "--follow-forks", "--quiet=all", "--output", str(traced)]
    with demo([*strace, sys.executable, "-m", "aimux.cli.main"], tmp_path) as (address, token):
        assert ask(address, token) == "text"
    used = set(re.findall(r"^\d+ +([a-z0-9_]+)\(", traced.read_text(), re.MULTILINE))
    assert "accept4" in used
    allow, *deny = unit_settings()["hardening"]["SystemCallFilter"]
    forbidden = {call for one in deny for call in system_calls(one.removeprefix("~"))}
    used -= {"fchown"}  # SQLite gives its files to the database's owner, as root alone: the unit's user is none
    assert used - system_calls("@default") <= system_calls(allow) - forbidden
