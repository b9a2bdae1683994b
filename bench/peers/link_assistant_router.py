"""Link.Assistant.Router, from crates.io: a Claude login, and a token that it issues for Claude Code."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.request
from typing import TYPE_CHECKING

from bench.contenders import CACHE, Contender, Unavailable, log_in

if TYPE_CHECKING:
    from pathlib import Path

WANTED = "^1.16"
HOME = CACHE / "link-assistant-router"
ADMIN = "bench-only-not-a-secret"


def _installed() -> Path:
    program = HOME / "bin" / "link-assistant-router"
    if program.exists():
        return program
    cargo = shutil.which("cargo")
    if cargo is None:
        raise Unavailable("cargo is not installed (rustup.rs; Rust 1.89 at least)")
    done = subprocess.run(
        [cargo, "install", "--quiet", "--root", HOME, "--version", WANTED, "link-assistant-router"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Unavailable(f"could not be installed: {(done.stderr.strip().splitlines() or ['no word of why'])[-1]}")
    return program


def _command(folder: Path, port: int, upstream: str) -> list[str]:
    program = _installed()
    claude = folder / "claude"
    log_in(claude)
    settings = {
        "TOKEN_SECRET": ADMIN,
        "TOKEN_ADMIN_KEY": ADMIN,
        "ROUTER_HOST": "127.0.0.1",
        "ROUTER_PORT": str(port),
        "CLAUDE_CODE_HOME": str(claude),
        "DATA_DIR": str(folder / "data"),
        "STORAGE_POLICY": "memory",  # else each request writes all tokens anew, and waits for the disk
        "UPSTREAM_PROVIDER": "anthropic",
        "UPSTREAM_BASE_URL": upstream,
    }
    return ["env", *(f"{name}={value}" for name, value in settings.items()), str(program)]


def _issue(port: int) -> str:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/api/management/tokens/client",
        json.dumps({"client_kind": "claude", "ttl_hours": 24, "label": "bench"}).encode(),
        {"authorization": f"Bearer {ADMIN}", "content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        token: str = json.load(answer)["token"]
        return token


def _version() -> str:
    run = subprocess.run([_installed(), "--version"], capture_output=True, text=True, check=True)
    return run.stdout.strip()


# Not "hold": two minutes are not enough for it to begin 1,000 streams.
LINK_ASSISTANT_ROUTER = Contender(
    "Link.Assistant.Router",
    _command,
    _version,
    prefix="/api/services/anthropic",
    kinds=("small", "turn", "short", "latency"),
    swaps=True,
    token=_issue,
    share=0.05,
)
