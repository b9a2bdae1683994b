"""Certificates to order."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from pathlib import Path

NOW = dt.datetime.now(dt.UTC)
DAY = dt.timedelta(days=1)


@dataclass
class Issued:
    """A certificate for localhost and its key, as objects and as PEM."""

    name: str = "one"
    not_before: dt.datetime = NOW - DAY
    not_after: dt.datetime = NOW + 90 * DAY
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    def __post_init__(self) -> None:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.name)])
        self.certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(self.not_before)
            .not_valid_after(self.not_after)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
            .sign(self.key, SHA256())
        )

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def fingerprint(self) -> str:
        return self.certificate.fingerprint(SHA256()).hex(":").upper()

    def key_pem(
        self, form: PrivateFormat = PrivateFormat.PKCS8, encryption: KeySerializationEncryption | None = None
    ) -> bytes:
        return self.key.private_bytes(Encoding.PEM, form, encryption or NoEncryption())

    def encrypted(self, form: PrivateFormat = PrivateFormat.PKCS8) -> bytes:
        return self.key_pem(form, BestAvailableEncryption(b"passphrase"))


@dataclass
class Files:
    """The two paths that a configuration names."""

    cert: Path
    key: Path

    def put(self, cert: bytes, key: bytes) -> None:
        self.cert.write_bytes(cert)
        self.key.write_bytes(key)
        self.key.chmod(0o600)

    def issue(self, issued: Issued) -> Issued:
        self.put(issued.pem, issued.key_pem())
        return issued
