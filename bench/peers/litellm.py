"""LiteLLM's proxy, from the registry: one user's key, and its route to Anthropic that changes the credential alone."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from bench import traffic
from bench.contenders import CACHE, Contender, Unavailable

if TYPE_CHECKING:
    from pathlib import Path

WANTED = "litellm[proxy]>=1.108,<2"
HOME = CACHE / "litellm"


def _installed() -> Path:
    """Its program, from an environment of its own: it pins versions that aimux is not to be tied to."""
    program = HOME / "bin" / "litellm"
    if program.exists():
        return program
    for command in (
        [sys.executable, "-m", "venv", str(HOME)],
        [str(HOME / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check", WANTED],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            said = (done.stderr or done.stdout).strip().splitlines() or [f"status {done.returncode}"]
            raise Unavailable(f"could not be installed: {said[-1]}")
    return program


def _command(folder: Path, port: int, upstream: str) -> list[str]:
    program = _installed()
    config = folder / "config.yaml"
    config.write_text(f"general_settings:\n  master_key: {traffic.USER_TOKEN}\n")
    settings = {
        "ANTHROPIC_API_BASE": upstream,
        "ANTHROPIC_AUTH_TOKEN": traffic.ACCOUNT_TOKEN,
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else it asks the internet for prices
    }
    return [
        "env",
        *(f"{name}={value}" for name, value in settings.items()),
        *(str(program), "--config", str(config), "--host", "127.0.0.1", "--port", str(port)),
        *("--num_workers", "1", "--telemetry", "False"),
    ]


def _version() -> str:
    asked = (
        "import platform, importlib.metadata as m; print(m.version('litellm'), 'on Python', platform.python_version())"
    )
    run = subprocess.run([HOME / "bin" / "python", "-c", asked], capture_output=True, text=True, check=True)
    return f"litellm {run.stdout.strip()}"


# Not "hold": more than 500 connections to the upstream it does not open, so that half of 1,000 streams never begin.
LITELLM = Contender(
    "LiteLLM",
    _command,
    _version,
    prefix="/anthropic",
    kinds=("small", "turn", "short", "latency"),
    swaps=True,
    share=0.1,
)
