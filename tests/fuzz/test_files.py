"""Files that people and other programs write: configuration and saved state."""

from __future__ import annotations

import asyncio
import json
import math
import time
from pathlib import Path

import pytest

from aimux.accounts.account import Account
from aimux.accounts.state import StateFile, restore, snapshot
from aimux.config import ConfigError, load_config
from tests.config.conftest import PROVIDERS

from .harness import fuzz

SECRETS = ("SECRET-0123456789abcdef", "SECRET-admin-0123456789")
ENVIRON = {"HOME": "/nonexistent", "SECRET": "SECRET-0123456789abcdef"}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Targets get bytes alone; what they write goes here."""
    monkeypatch.chdir(tmp_path)


@fuzz(
    "configs",
    b": ",
    b"\n",
    b"  ",
    b"- ",
    b"&a ",
    b"*a",
    b"<<: ",
    b"!!python/object/apply:os.system ",
    b"!!binary ",
    b"|\n",
    b"'",
    b'"',
    b"{",
    b"[",
    b"}",
    b"null",
    b"1e999",
    b"9" * 400,
    b"0x10",
    b"1:2:3",
    b"2026-11-21",
    b"${env:SECRET}",
    b"${file:/nonexistent}",
    b"${cred:x}",
    b"${",
    b"\0",
    b"\xff",
    b"\xc2\x85",
    b"\xe2\x80\xa8",
    b"users",
    b"tls",
    b"models",
    b"listen: ",
)
def test_a_configuration(data: bytes) -> None:
    """It is taken, or every problem has a place and words; no secret is in them."""
    path = Path("config.yaml").absolute()
    path.write_bytes(data)
    path.chmod(0o600)
    try:
        config = load_config(path, environ=ENVIRON, providers=PROVIDERS)
    except ConfigError as error:
        assert error.problems
        for problem in error.problems:
            assert problem.message
            assert problem.line is None or 1 <= problem.line <= data.count(b"\n") + data.count(b"\r") + 2
        told = str(error)
    else:
        told = repr(config) + "".join(map(str, config.warnings))
    for secret in SECRETS:
        # Where a mutation puts a token into the place of a name, it is no secret any more.
        if f"token: {secret}".encode() in data or f'"token": "{secret}"'.encode() in data:
            lines = [line for line in data.decode("utf-8", "replace").splitlines() if secret in line]
            if len(lines) == 1 and data.count(secret.encode()) == 1:
                assert secret not in told


@fuzz("states", b"null", b"[]", b"{}", b"1e999", b"-1", b"NaN", b"9" * 30, b'""', b"true", b"\xff", b"\n")
def test_a_saved_state(data: bytes) -> None:
    """What can't be read counts as nothing; what can is finite, and can be saved again."""
    path = Path("accounts.json").absolute()
    path.write_bytes(data)

    async def read() -> object:
        return StateFile(path).entry("demo", "default")

    now = time.time()
    account = Account("default", "demo")
    restore(account, asyncio.run(read()), now)
    assert account.free_at("") < math.inf or account.disabled or account.parked is not None
    state = account.state(now)
    assert state.until is None or math.isfinite(state.until)
    json.dumps(snapshot(account, now), allow_nan=False)
