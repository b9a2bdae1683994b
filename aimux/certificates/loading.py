"""Reads a certificate chain and its key, and says exactly what is wrong with them."""

from __future__ import annotations

import os
import re
import ssl
import stat
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import InternalError, UnsupportedAlgorithm
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from aimux.certificates.pair import Pair, TLSError, server_context

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

MAX_SIZE = 1024 * 1024
_KEY = re.compile(rb"-----BEGIN ([A-Z ]*)PRIVATE KEY-----.*?-----END \1PRIVATE KEY-----", re.DOTALL)
_UNSUPPORTED = "make a new one, e.g. with `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256`"


def load_pair(cert_path: Path, key_path: Path, *, now: float | None = None) -> Pair:
    """Read and check both files (they may be the same one). Raises TLSError."""
    chain = _certificates(cert_path)
    leaf = chain[0]
    key, key_mode = _public_key(key_path)
    _check_match(chain, key, cert_path, key_path)
    when = datetime.fromtimestamp(time.time() if now is None else now, UTC)
    if when > leaf.not_valid_after_utc:
        raise TLSError(
            f"the certificate {cert_path} expired at {leaf.not_valid_after_utc:%Y-%m-%d %H:%M} UTC",
            "renew it, or correct this machine's clock",
        )
    if when < leaf.not_valid_before_utc:
        raise TLSError(
            f"the certificate {cert_path} is valid from {leaf.not_valid_before_utc:%Y-%m-%d %H:%M} UTC only",
            "wait, or correct this machine's clock",
        )
    return Pair(
        context=_context(cert_path, key_path),
        not_before=leaf.not_valid_before_utc.timestamp(),
        not_after=leaf.not_valid_after_utc.timestamp(),
        pem=leaf.public_bytes(Encoding.PEM),
        fingerprint=leaf.fingerprint(SHA256()).hex(":").upper(),
        names=_names(leaf),
        key_open_to_others=bool(key_mode & stat.S_IROTH),
    )


def _context(cert_path: Path, key_path: Path) -> ssl.SSLContext:
    context = server_context()
    try:
        context.load_cert_chain(cert_path, key_path, password=lambda: b"")
    except ssl.SSLError as error:
        reason = (error.reason or str(error)).lower().replace("_", " ")
        raise TLSError(
            f"OpenSSL refuses the certificate {cert_path} with the key {key_path} ({reason})", _UNSUPPORTED
        ) from error
    except OSError as error:
        raise _unreadable(cert_path, "tls.cert_path", error) from error
    return context


def _read(path: Path, field: str) -> tuple[bytes, int]:
    """Content and mode."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(MAX_SIZE + 1)
    except OSError as error:
        raise _unreadable(path, field, error) from error
    if not data.strip():
        raise TLSError(f"{field}: {path} is empty", "write the PEM file again; is the disk full?")
    if len(data) > MAX_SIZE:
        raise TLSError(f"{field}: {path} is larger than 1 MiB", "give the PEM file of one certificate with its chain")
    return data, mode


def _unreadable(path: Path, field: str, error: OSError) -> TLSError:
    if isinstance(error, FileNotFoundError):
        return TLSError(
            f"{field}: there is no file {path}", "correct the path, or set tls.self_signed to try without one"
        )
    if isinstance(error, PermissionError):
        return TLSError(
            f"{field}: {path} can't be read by user id {os.geteuid()}",
            "give that user's group the file (chgrp, chmod 640) and its folders (chmod g+x), "
            "or pass it as a systemd credential: ${cred:NAME}",
        )
    if isinstance(error, IsADirectoryError):
        return TLSError(f"{field}: {path} is a folder", "give the path of the PEM file in it")
    return TLSError(f"{field}: {path} can't be read ({error.strerror or error})", "correct the path")


def _not_pem(path: Path, field: str, data: bytes, wanted: str) -> TLSError:
    if data[:1] == b"\x30":
        tool = "x509" if wanted == "certificate" else "pkey"
        return TLSError(
            f"{field}: {path} is binary (DER or PKCS #12), not PEM",
            f"convert it: `openssl {tool} -inform der -in {path} -out new.pem`, "
            f"or `openssl pkcs12 -in {path} -nodes -out new.pem`",
        )
    return TLSError(
        f"{field}: {path} holds no {wanted} in PEM form", f"it has to have a line -----BEGIN {wanted.upper()}-----"
    )


def _certificates(path: Path) -> list[x509.Certificate]:
    field = "tls.cert_path"
    data, _ = _read(path, field)
    if b"-----BEGIN CERTIFICATE-----" not in data:
        if _KEY.search(data):
            raise TLSError(f"{field}: {path} holds a key and no certificate", "are cert_path and key_path swapped?")
        raise _not_pem(path, field, data, "certificate")
    try:
        return x509.load_pem_x509_certificates(data)
    except (ValueError, x509.InvalidVersion) as error:
        raise TLSError(f"{field}: {path} holds a damaged certificate", "copy it again, whole, as PEM") from error


def _public_key(path: Path) -> tuple[PublicKeyTypes, int]:
    field = "tls.key_path"
    data, mode = _read(path, field)
    block = _KEY.search(data)
    if block is None:
        if b"-----BEGIN CERTIFICATE-----" in data:
            raise TLSError(f"{field}: {path} holds a certificate and no key", "are cert_path and key_path swapped?")
        raise _not_pem(path, field, data, "private key")
    encrypted = TLSError(
        f"{field}: the key {path} is encrypted, and nobody is there to type its passphrase",
        f"decrypt it once: `openssl pkey -in {path} -out plain.pem && chmod 600 plain.pem`",
    )
    if b"ENCRYPTED" in block[0]:
        raise encrypted
    try:
        return load_pem_private_key(block[0] + b"\n", password=None).public_key(), mode
    except UnsupportedAlgorithm as error:
        raise TLSError(f"{field}: {path} is a kind of key that can't be used", _UNSUPPORTED) from error
    except (ValueError, TypeError, InternalError) as error:  # the last for what OpenSSL has no words for
        raise TLSError(f"{field}: {path} holds a damaged key", "copy it again, whole, as PEM") from error


def _check_match(chain: list[x509.Certificate], key: PublicKeyTypes, cert_path: Path, key_path: Path) -> None:
    def spki(public: PublicKeyTypes) -> bytes:
        return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    try:
        matching = [position for position, one in enumerate(chain) if spki(one.public_key()) == spki(key)]
    except (UnsupportedAlgorithm, ValueError) as error:
        raise TLSError(f"{cert_path} holds a certificate whose kind of key can't be used", _UNSUPPORTED) from error
    if not matching:
        raise TLSError(
            f"the key {key_path} does not belong to the certificate {cert_path}",
            "give the key that the certificate was requested with, or request a new certificate for this key",
        )
    if matching[0] != 0:
        raise TLSError(
            f"the certificate that belongs to the key is number {matching[0] + 1} in {cert_path}",
            "put the server's certificate first and the chain after it",
        )


def _names(leaf: x509.Certificate) -> frozenset[str]:
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType, ValueError):
        return frozenset()
    return frozenset(names.get_values_for_type(x509.DNSName)) | frozenset(
        str(address) for address in names.get_values_for_type(x509.IPAddress)
    )
