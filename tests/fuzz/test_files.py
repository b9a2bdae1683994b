"""Files that people and other programs write: configurations, saved state, clients' settings, certificates."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import math
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from aimux.accounts.account import Account
from aimux.accounts.state import StateFile, restore, snapshot
from aimux.certificates import TLSError
from aimux.certificates.loading import load_pair
from aimux.cli.migrate import migrate_command
from aimux.config import ConfigError, load_config
from aimux.control.client_files import MergeError, write
from tests.config.conftest import PROVIDERS

from .harness import fuzz, mutated, search, seeds

SECRETS = ("SECRET-0123456789abcdef", "SECRET-admin-0123456789")
LINE_ENDS = (b"\n", b"\r", b"\xc2\x85", b"\xe2\x80\xa8", b"\xe2\x80\xa9")
"""YAML's."""
ENVIRON = {"HOME": "/nonexistent", "SECRET": "SECRET-0123456789abcdef"}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Targets get bytes alone; what they write goes here."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))


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
            assert problem.line is None or 1 <= problem.line <= sum(map(data.count, LINE_ENDS)) + 2
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


@fuzz(
    "foreign_configs",
    b"\n",
    b"  ",
    b"- ",
    b": ",
    b"&a ",
    b"*a",
    b"!!binary ",
    b"[",
    b"{",
    b'"',
    b"null",
    b"true",
    b"1e999",
    b"9" * 400,
    b"0b_",
    b"2026-13-45",
    b"${env:",
    b"$",
    b"\0",
    b"\xff",
    b"\xc2\x85",
    b"port",
    b"api_key = ",
    b"[" * 2000,
    share=10,
)
def test_another_gateways_configuration(data: bytes) -> None:
    """It is taken over, or there are words for why not; never a traceback, nothing is written, no secret is told."""
    for name in ("config.yaml", "config.toml", "config.json", "router.env"):
        path = Path(name).absolute()
        path.write_bytes(data)
        done = CliRunner().invoke(migrate_command, [str(path), "--dry-run"])
        assert isinstance(done.exception, SystemExit | None), done.exception
        assert done.output.startswith("From " if done.exit_code == 0 or "\n  ! " in done.output else "Error: ")
        assert "SECRETSECRET" not in done.output
        path.unlink()
    assert list(Path().iterdir()) == []


SETTINGS: dict[str, Any] = {"env": {"BASE": "http://127.0.0.1"}, "model_providers": {"aimux": {"name": "aimux"}}}


@fuzz(
    "client_files",
    b"env",
    b"model_providers",
    b"[model_providers.aimux]\n",
    b"[[model_providers]]\n",
    b"env.BASE = 1\n",
    b'"',
    b"'''",
    b"{",
    b"}",
    b"[",
    b"]",
    b" = ",
    b".",
    b"#",
    b"\n",
    b"\r",
    b"\\ud800",
    b"[" * 2000,
    b"9" * 5000,
    b"\xff",
)
def test_a_clients_own_file(data: bytes) -> None:
    """The settings are in it and the rest is as it was, in a backup too; or it is refused, and as it was."""
    for name, parse in (("settings.json", json.loads), ("config.toml", tomllib.loads)):
        for left in Path().iterdir():
            left.unlink()
        path = Path(name).absolute()
        path.write_bytes(data)
        try:
            backup = write(path, SETTINGS, "json" if parse is json.loads else "toml")
        except MergeError as error:
            assert str(error)
            assert path.read_bytes() == data
            assert list(Path().iterdir()) == [Path(name)]
        else:
            assert backup is None or backup.read_bytes() == data
            after = parse(path.read_bytes().decode())
            before = parse(data.decode()) if data.decode().strip() else {}
            assert after["env"]["BASE"] == "http://127.0.0.1"
            assert after["model_providers"]["aimux"]["name"] == "aimux"
            for key in before.keys() - SETTINGS.keys():
                assert repr(after[key]) == repr(before[key])
            for key in before.keys() & SETTINGS.keys():
                assert before[key].keys() <= after[key].keys()


def issued(number: int) -> tuple[bytes, bytes]:
    """A certificate and its key, always the same: an Ed25519 signature has nothing random in it."""
    key = Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"number {number}")])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1000 + number)
        .not_valid_before(dt.datetime(2026, 1, 1, tzinfo=dt.UTC))
        .not_valid_after(dt.datetime(2100, 1, 1, tzinfo=dt.UTC))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, None)
    )
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return certificate.public_bytes(Encoding.PEM), secret


def certificate_file(data: bytes) -> None:
    """It is a pair, or there are words for what is wrong; nothing of the key is in them."""
    path = Path("pair.pem").absolute()
    path.write_bytes(data)
    try:
        pair = load_pair(path, path)
    except TLSError as error:
        assert error.remedy
        told = f"{error} {error.remedy}"
        assert issued(1)[1].splitlines()[1][:16].decode() not in told
    else:
        assert pair.not_before < time.time() < pair.not_after


def test_a_certificate_file() -> None:
    (one, key), (other, _) = issued(1), issued(2)
    inputs = [*seeds("certificates"), one + key, key + one, one + other + key, other + one + key, one + other]
    for data in inputs:
        certificate_file(data)
    words = [
        b"-----BEGIN CERTIFICATE-----\n",
        b"-----END PRIVATE KEY-----\n",
        b"ENCRYPTED ",
        b"EC ",
        b"\n",
        b"\0",
        b"\x30",
    ]
    search("certificates", certificate_file, mutated(inputs, words))
