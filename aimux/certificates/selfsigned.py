"""A certificate of our own, for a first try and for networks where the client can be told its fingerprint."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import stat
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from aimux import atomic
from aimux.certificates.loading import load_pair
from aimux.certificates.pair import RENEW_BEFORE, TLSError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

LIFETIME = timedelta(days=397)
"""The longest that Apple's clients accept is 398 days."""
ALWAYS = ("localhost", "127.0.0.1", "::1")


def ensure(cert_path: Path, key_path: Path, names: Iterable[str], now: float) -> None:
    """Make or renew the pair where it is missing, broken, near its end or not for `names`.

    The certificate is for every eye, the key for none: the folder, and the one around it, can be passed through.

    The machine's own name goes into the certificate too, but a new one is no reason for a new certificate: a
    container has another name at every start, and clients would have to trust it anew each time. Raises TLSError.
    """
    wanted = {*ALWAYS, *map(_as_certified, names)} - {"", "0.0.0.0", "::"}  # noqa: S104 - compared, not listened on
    try:
        pair = load_pair(cert_path, key_path, now=now)
    except TLSError:
        pair = None
    if pair and wanted <= pair.names and pair.not_after - now > RENEW_BEFORE.total_seconds():
        with contextlib.suppress(OSError):  # another one's file: if others can read it, `Pair.warnings` says so
            key_path.chmod(0o600)
        _open_way(cert_path)
        return
    key, certificate = _make([*ALWAYS, *sorted(wanted - set(ALWAYS)), socket.gethostname()], now)
    try:
        for folder in (cert_path.parent.parent, cert_path.parent):  # `parents` alone would make the outer one for all
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        atomic.write(key_path, key)
        atomic.write(cert_path, certificate, 0o644)
        _open_way(cert_path)
    except OSError as error:
        raise TLSError(
            f"the self-signed certificate can't be written to {cert_path.parent} ({error.strerror or error})",
            "make state_dir writable for the service's user, or give tls.cert_path and tls.key_path",
        ) from error


def _open_way(cert_path: Path) -> None:
    """Let others reach the certificate. What else lies in the state folder, each file keeps from them by itself."""
    with contextlib.suppress(OSError):  # another one's folder: then it is theirs to say
        cert_path.chmod(0o644)
        for folder in (cert_path.parent, cert_path.parent.parent):
            folder.chmod(stat.S_IMODE(folder.stat().st_mode) | 0o011)


def _make(names: list[str], now: float) -> tuple[bytes, bytes]:
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "aimux (self-signed)")])
    start = datetime.fromtimestamp(now, UTC)
    # No CA: rustls (Codex) refuses a CA as a server's certificate. And no key usage: without the right to sign,
    # BoringSSL (Claude Code) does not see that the certificate is its own issuer; with it, a CA is what it has to be.
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start - timedelta(hours=1))
        .not_valid_after(start + LIFETIME)
        .add_extension(x509.SubjectAlternativeName(_general_names(names)), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False)
        .sign(key, SHA256())
    )
    return (
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        certificate.public_bytes(Encoding.PEM),
    )


def _as_certified(name: str) -> str:
    """As a certificate's reader has it: `listen` may write an address in another form, or with its interface."""
    try:
        return str(ipaddress.ip_address(name.partition("%")[0]))
    except ValueError:
        return name


def _general_names(names: list[str]) -> list[x509.GeneralName]:
    found: list[x509.GeneralName] = []
    for name in dict.fromkeys(names):
        try:
            found.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            try:
                found.append(x509.DNSName(name.encode("idna").decode()))
            except UnicodeError:
                continue  # a machine may call itself what DNS can't
    return found
