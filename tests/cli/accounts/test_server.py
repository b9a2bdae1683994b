"""How the commands find the running server, and whom they trust with the admin key."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import NameOID

from aimux.certificates.selfsigned import ensure
from tests.certificates.certificates import DAY, NOW, Issued
from tests.cli.accounts.conftest import commands
from tests.cli.support import Commands
from tests.control.live import running, write_config
from tests.running import free_port

ADMIN = "an-admin-token-for-the-tests"


def test_the_key_comes_from_the_variable_first(served: Commands) -> None:
    key = served.live.key
    served.environ["AIMUX_ADMIN_TOKEN"] = "a-wrong-key-that-is-long-enough"
    refused = served("accounts", expect=1).stderr
    assert "does not accept the admin key of AIMUX_ADMIN_TOKEN" in refused
    assert "a-wrong-key" not in refused
    (served.live.state_dir / "admin.key").unlink()
    served.environ["AIMUX_ADMIN_TOKEN"] = key
    served("accounts")
    del served.environ["AIMUX_ADMIN_TOKEN"]
    assert "Another aimux, with another state folder, listens on" in served("accounts").stderr


@pytest.mark.parametrize("how", ["token", "token_file", "environment"])
def test_the_configurations_token_is_shown(tmp_path: Path, how: str) -> None:
    file = tmp_path / "admin-token"
    file.write_text(f"{ADMIN}\n")
    file.chmod(0o600)
    given = {"token": {"token": ADMIN}, "token_file": {"token_file": str(file)}, "environment": {"token": ADMIN}}[how]
    with running(tmp_path, admin=given) as live:
        aimux = commands(live)
        if how == "environment":
            write_config(tmp_path, live.sim)
            aimux.environ["AIMUX_ADMIN__TOKEN"] = ADMIN
        assert aimux.names() == ["chatgpt/default", "claude/default"]


def test_a_hash_alone_opens_nothing(tmp_path: Path) -> None:
    with running(tmp_path, admin={"token_sha256": hashlib.sha256(ADMIN.encode()).hexdigest()}) as live:
        aimux = commands(live)
        assert "set AIMUX_ADMIN_TOKEN" in aimux("accounts", expect=1).stderr
        aimux.environ["AIMUX_ADMIN_TOKEN"] = ADMIN
        aimux("accounts")


def test_a_self_signed_server_is_trusted_by_its_certificate(tmp_path: Path) -> None:
    listen = f"127.0.0.1:{free_port()}"
    with running(tmp_path, listen=listen, tls={"enabled": True, "self_signed": True}) as live:
        aimux = commands(live)
        assert f"Using the server at https://{listen}" in aimux("accounts").stderr
        ensure(tmp_path / "cert", tmp_path / "key", (), time.time())
        (live.state_dir / "tls" / "cert.pem").write_bytes((tmp_path / "cert").read_bytes())
        assert "another certificate" in aimux("accounts", expect=1).stderr


def issued(name: str, authority: Issued | None = None) -> Issued:
    """A server's certificate of this authority, or an authority."""
    made = Issued(name)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    made.certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(authority.certificate.subject if authority else subject)
        .public_key(made.key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - DAY)
        .not_valid_after(NOW + DAY)
        .add_extension(x509.BasicConstraints(ca=authority is None, path_length=None), critical=True)
        .sign((authority or made).key, SHA256())
    )
    return made


def test_an_issued_certificate_is_trusted_and_its_issuer_is_not(tmp_path: Path) -> None:
    authority = issued("authority")
    ours, theirs = issued("gateway.example", authority), issued("elsewhere.example", authority)
    cert, key, listen = tmp_path / "chain.pem", tmp_path / "key.pem", f"127.0.0.1:{free_port()}"
    cert.write_bytes(ours.pem + authority.pem)
    key.write_bytes(ours.key_pem())
    key.chmod(0o600)
    with running(tmp_path, listen=listen, tls={"enabled": True, "cert_path": str(cert), "key_path": str(key)}) as live:
        aimux = commands(live)
        assert aimux.names() == ["chatgpt/default", "claude/default"]
        cert.write_bytes(theirs.pem + authority.pem)
        assert "another certificate" in aimux("accounts", expect=1).stderr
        for damage in (lambda: cert.write_bytes(b"nothing of the kind"), cert.unlink):
            damage()
            refused = aimux("accounts", expect=1).stderr
            assert str(cert) in refused
            assert "`aimux doctor` says what is wrong" in refused
            assert aimux("health").stdout == "ok\n", "what serves is healthy, and must not be ended for a file"
            told = {
                one["subject"]: one["status"]
                for one in json.loads(aimux("doctor", "--offline", "--json", expect=1).stdout)
            }
            assert (told[f"listen {listen}"], told["tls"]) == ("ok", "error")


def test_every_address_includes_this_machine(tmp_path: Path) -> None:
    port = free_port()
    with running(tmp_path, listen=f":{port}", users=[{"name": "a", "token": "a-users-own-token-1"}]) as live:
        assert f"Using the server at http://127.0.0.1:{port}" in commands(live)("accounts").stderr


def test_something_else_on_the_port_is_no_aimux(unserved: Commands) -> None:
    """The simulator is a web server, too."""
    live = unserved.live
    write_config(live.folder, live.sim, listen=f"127.0.0.1:{live.sim.port}")
    (live.state_dir / "admin.key").write_text("a-key-that-is-long-enough")
    assert "is not an aimux with an admin API (status 404)" in unserved("accounts", expect=1).stderr
