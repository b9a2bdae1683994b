"""Who takes part, and how each is started: pinned, on a port, in front of the same upstream."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from aimux.installed import compiled
from bench import traffic

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).parent
CACHE = HERE.parent / ".cache" / "peers"
"""Where peers from registries are installed, each with its own libraries."""
COMPILED = HERE.parent / "build" / "compiled"
"""What `make compiled` makes: it takes the place of the sources on the path."""
MODELS = (
    "models:\n  other-name: {provider: claude, model: some-other}\n  some-*: {provider: claude}\n"
    "  /no-.*-match/: {provider: claude}\n  default: {provider: claude}\n"
)
LIMITS = (
    "limits:\n  default: {concurrent_requests: 100000, requests_per_minute: 100000000, tokens_per_day: 1000000000000,"
    " cost_per_month: 1000000000}\n"
)
"""Four for each user, which nobody comes near."""
BUILD = "compiled" if compiled() else "pure"
PYTHON = f"Python {sys.version.split()[0]}"
ALL_KINDS = ("small", "turn", "short", "latency", "hold")
TURNS = ("small", "turn", "short")


class Unavailable(Exception):
    """The contender can't take part on this machine; the message says why."""


@dataclass(frozen=True)
class Served:
    """Where a contender that runs takes requests, and the token of its user."""

    port: int
    prefix: str = ""
    token: str = traffic.USER_TOKEN


@dataclass(frozen=True)
class Contender:
    """`command(folder, port, upstream)` prepares what it needs in the folder and gives the command line, or raises
    Unavailable."""

    name: str
    command: Callable[[Path, int, str], list[str]]
    version: Callable[[], str]
    prefix: str = ""
    kinds: tuple[str, ...] = ALL_KINDS
    environ: tuple[tuple[str, str], ...] = ()
    swaps: bool = False
    """It knows its users by their tokens, and puts the account's credential in their place."""
    tls: bool = False
    """It reaches the upstream over TLS."""
    token: Callable[[int], str] | None = None
    """Has it issue a user's token, on its port, until which it raises OSError; None: it knows `traffic.USER_TOKEN`."""
    share: float = 1
    """Of the others' small requests: who takes a hundred times as long would be measured for an hour."""


def _output(*command: str) -> str:
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    return (run.stdout + run.stderr).strip().splitlines()[0]


def _nginx(folder: Path, port: int, upstream: str) -> list[str]:
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        raise Unavailable("nginx is not installed (Debian: apt-get install nginx-light)")
    temporary = "".join(
        f"  {kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off;\nworker_processes 1;\npid {folder}/pid;\nerror_log {folder}/error.log;\n"
        "worker_rlimit_nofile 16384;\nevents { worker_connections 8192; }\n"
        f"http {{\n{temporary}"
        f"  access_log {folder}/access.log;\n"
        "  client_max_body_size 64m;\n  client_body_buffer_size 64k;\n"
        f"  upstream fake {{\n    server {upstream.partition('://')[2]};\n"
        "    keepalive 2048;\n    keepalive_requests 1000000000;\n  }\n"
        f"  server {{\n    listen 127.0.0.1:{port} backlog=4096;\n    keepalive_requests 1000000000;\n"
        f"    location / {{\n      proxy_pass {upstream.partition(':')[0]}://fake;\n      proxy_http_version 1.1;\n"
        '      proxy_set_header Connection "";\n      proxy_buffering off;\n      proxy_read_timeout 600s;\n'
        "    }\n  }\n}\n"
    )
    return [program, "-c", str(folder / "nginx.conf"), "-p", str(folder)]


def _nginx_version() -> str:
    return _output(shutil.which("nginx") or "/usr/sbin/nginx", "-v").split()[-1]


def _go(folder: Path, port: int, upstream: str) -> list[str]:
    go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin:/usr/lib/go/bin")
    if go is None:
        raise Unavailable("go is not installed")
    program = folder / "goproxy"
    build = subprocess.run(
        [go, "build", "-o", program, "."],
        cwd=HERE / "peers" / "goproxy",
        env={**os.environ, "GOFLAGS": "-mod=mod", "GOPROXY": "off", "GOTOOLCHAIN": "local", "GOWORK": "off"},
        capture_output=True,
        text=True,
        check=False,
    )
    if build.returncode:
        raise Unavailable(f"go build failed: {build.stderr.strip().splitlines()[-1]}")
    users = folder / "users"
    users.write_text(f"{hashlib.sha256(traffic.USER_TOKEN.encode()).hexdigest()}\n")
    return [str(program), str(port), upstream, str(users), traffic.ACCOUNT_TOKEN]


def _go_version() -> str:
    return _output(shutil.which("go") or "/usr/local/go/bin/go", "version").split()[2]


def _aiohttp(folder: Path, port: int, upstream: str) -> list[str]:
    return [sys.executable, "-m", "bench.peers.aiohttp_proxy", str(port), upstream]


def _uvloop(folder: Path, port: int, upstream: str) -> list[str]:
    return [sys.executable, "-m", "bench.peers.uvloop_relay", str(port), upstream.rpartition(":")[2]]


def log_in(folder: Path, token: str = traffic.ACCOUNT_TOKEN) -> None:
    """Put a Claude login there, as Claude Code keeps it."""
    login = {
        "accessToken": token,
        "refreshToken": "sk-ant-ort01-bench-only-not-a-secret",
        "expiresAt": int((time.time() + 86400) * 1000),
        "scopes": ["user:inference", "user:profile"],
        "subscriptionType": "max",
    }
    folder.mkdir(parents=True, mode=0o700, exist_ok=True)
    file = folder / ".credentials.json"
    file.write_text(json.dumps({"claudeAiOauth": login}))
    file.chmod(0o600)


def aimux(users: int, accounts: int = 1, limits: str = "") -> Callable[[Path, int, str], list[str]]:
    """The real program: users, OAuth accounts, metering, metrics, access log into a file.

    With several accounts models are routed too: `models:` has an exact name, a prefix, an expression and a default.
    """

    def command(folder: Path, port: int, upstream: str) -> list[str]:
        program = Path(sys.executable).with_name("aimux")
        if not program.exists():
            raise Unavailable(f"{program} is not installed")
        state = folder / "state"
        for number in range(accounts):
            log_in(state / "claude" / (f"account{number}" if number else ""), f"{traffic.ACCOUNT_TOKEN}{number or ''}")
        state.chmod(0o700)
        models = MODELS if accounts > 1 else ""
        tokens = [traffic.USER_TOKEN, *(f"bench-user-token-{number:010}" for number in range(1, users))]
        listed = "".join(
            f"  - name: user{number}\n    token_sha256: {hashlib.sha256(token.encode()).hexdigest()}\n"
            for number, token in enumerate(tokens)
        )
        (folder / "config.yaml").write_text(
            f"listen: 127.0.0.1:{port}\nstate_dir: {folder}/state\n"
            f"providers:\n  claude:\n    base_url: {upstream}\n{models}{limits}users:\n{listed}"
        )
        return [str(program), "serve", "--config", str(folder / "config.yaml")]

    return command


def changed(module: str, folder: Path, port: int, upstream: str) -> list[str]:
    """aimux as a module of the bench makes it."""
    _, *arguments = aimux(1)(folder, port, upstream)
    return [sys.executable, "-m", module, *arguments]


def _compiled(folder: Path, port: int, upstream: str) -> list[str]:
    if not next(COMPILED.glob("aimux__mypyc.*"), None):
        raise Unavailable("`make compiled` makes it")
    return aimux(1)(folder, port, upstream)


def _aimux_version() -> str:
    return f"{_output(str(Path(sys.executable).with_name('aimux')), '--version')} on {PYTHON}"


def _python_version(package: str) -> Callable[[], str]:
    from importlib.metadata import version

    return lambda: f"{package} {version(package)} on {PYTHON}"


CONTENDERS = (
    Contender("nginx", _nginx, _nginx_version),
    Contender("aimux", aimux(1), _aimux_version, prefix="/claude", swaps=True),
    Contender(
        "aimux, compiled",
        _compiled,
        lambda: f"mypyc, {PYTHON}",
        prefix="/claude",
        environ=(("PYTHONPATH", str(COMPILED)),),
        swaps=True,
    ),
    Contender(
        "aimux, 10,000 users", aimux(10_000), _aimux_version, prefix="/claude", kinds=("small", "latency"), swaps=True
    ),
    Contender(
        "aimux, no ledger",
        partial(changed, "bench.without_ledger"),
        _aimux_version,
        prefix="/claude",
        kinds=TURNS,
        swaps=True,
    ),
    Contender(
        "aimux, limits, ledger and 10,000 users",
        aimux(10_000, limits=LIMITS),
        _aimux_version,
        prefix="/claude",
        kinds=TURNS,
        swaps=True,
    ),
    Contender("aimux, 20 accounts and models", aimux(1, 20), _aimux_version, prefix="/claude", swaps=True),
    Contender("nginx, TLS upstream", _nginx, _nginx_version, kinds=TURNS, tls=True),
    Contender("aimux, TLS upstream", aimux(1), _aimux_version, prefix="/claude", kinds=TURNS, swaps=True, tls=True),
    Contender("Go ReverseProxy", _go, _go_version, environ=(("GOMAXPROCS", "1"),), swaps=True),
    Contender("uvloop, bytes alone", _uvloop, _python_version("uvloop")),
    Contender("aiohttp server + client", _aiohttp, _python_version("aiohttp")),
)
