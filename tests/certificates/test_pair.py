"""Each thing that can be wrong with a certificate and its key, and what is said about it."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from aimux.certificates import TLSError
from aimux.certificates.loading import load_pair
from tests.certificates.certificates import DAY, NOW, Files, Issued

if TYPE_CHECKING:
    from pathlib import Path

ISSUED = Issued()


def refused(files: Files) -> str:
    with pytest.raises(TLSError) as caught:
        load_pair(files.cert, files.key)
    assert caught.value.remedy
    return str(caught.value)


def test_a_good_pair_with_its_chain(files: Files) -> None:
    chain = [Issued("intermediate"), Issued("root")]
    files.put(ISSUED.pem + b"".join(one.pem for one in chain), ISSUED.key_pem())
    pair = load_pair(files.cert, files.key)
    assert pair.fingerprint == ISSUED.fingerprint
    assert pair.not_after == ISSUED.certificate.not_valid_after_utc.timestamp()
    assert pair.names == {"localhost"}
    assert pair.warnings(NOW.timestamp()) == []


def test_both_in_one_file_and_the_traditional_form(files: Files) -> None:
    files.cert.write_bytes(ISSUED.key_pem(PrivateFormat.TraditionalOpenSSL) + ISSUED.pem)
    assert load_pair(files.cert, files.cert).fingerprint == ISSUED.fingerprint


def test_a_key_after_its_curve_parameters(files: Files) -> None:
    parameters = b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
    files.put(ISSUED.pem, parameters + ISSUED.key_pem(PrivateFormat.TraditionalOpenSSL))
    assert load_pair(files.cert, files.key).fingerprint == ISSUED.fingerprint


def test_missing(files: Files) -> None:
    assert "tls.cert_path: there is no file" in refused(files)
    files.cert.write_bytes(ISSUED.pem)
    assert "tls.key_path: there is no file" in refused(files)


def test_a_folder(files: Files) -> None:
    files.cert.mkdir()
    assert "is a folder" in refused(files)


def test_unreadable(files: Files) -> None:
    files.issue(ISSUED)
    code = (
        "import os, sys, pathlib\n"
        "from aimux.certificates import TLSError\n"
        "from aimux.certificates.loading import load_pair\n"
        "os.setuid(65534) if os.getuid() == 0 else None\n"
        "try: load_pair(*map(pathlib.Path, sys.argv[1:]))\n"
        "except TLSError as error: print(error)\n"
    )
    files.key.chmod(0)
    for folder in list(files.key.parents)[:-2]:  # pytest's folders are closed to others
        if folder.stat().st_uid == os.getuid():
            folder.chmod(folder.stat().st_mode | 0o055)
    run = subprocess.run(
        [sys.executable, "-c", code, files.cert, files.key], capture_output=True, text=True, check=True
    )
    assert f"tls.key_path: {files.key} can't be read by user id" in run.stdout
    assert "chgrp" in run.stdout


def test_empty(files: Files) -> None:
    files.put(b"\n", ISSUED.key_pem())
    assert "is empty" in refused(files)


def test_huge(files: Files) -> None:
    files.put(b"x" * (1024 * 1024 + 1), ISSUED.key_pem())
    assert "larger than 1 MiB" in refused(files)


def test_swapped(files: Files) -> None:
    files.put(ISSUED.key_pem(), ISSUED.pem)
    assert "swapped?" in refused(files)
    files.put(ISSUED.pem, ISSUED.pem)
    assert "holds a certificate and no key" in refused(files)


def test_der(files: Files) -> None:
    files.put(ISSUED.certificate.public_bytes(Encoding.DER), ISSUED.key_pem())
    assert "openssl x509 -inform der" in refused(files)
    files.put(ISSUED.pem, ISSUED.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()))
    assert "openssl pkey -inform der" in refused(files)


def test_something_else_altogether(files: Files) -> None:
    files.put(b"<html>", ISSUED.key_pem())
    assert "holds no certificate in PEM form" in refused(files)
    files.put(ISSUED.pem, b"key: value")
    assert "holds no private key in PEM form" in refused(files)


def test_damaged(files: Files) -> None:
    files.put(ISSUED.pem.replace(b"MII", b"AAA"), ISSUED.key_pem())
    assert "damaged certificate" in refused(files)
    files.put(ISSUED.pem, ISSUED.key_pem().replace(b"M", b"A"))
    assert "damaged key" in refused(files)


@pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
def test_an_encrypted_key(files: Files, form: PrivateFormat) -> None:
    files.put(ISSUED.pem, ISSUED.encrypted(form))
    assert "openssl pkey -in" in refused(files)


def test_a_key_of_another_certificate(files: Files) -> None:
    files.put(ISSUED.pem, Issued().key_pem())
    assert "does not belong to the certificate" in refused(files)


def test_a_chain_in_the_wrong_order(files: Files) -> None:
    files.put(Issued("root").pem + ISSUED.pem, ISSUED.key_pem())
    assert "is number 2 in" in refused(files)


def test_expired(files: Files) -> None:
    files.issue(Issued(not_before=NOW - 90 * DAY, not_after=NOW - DAY))
    message = refused(files)
    assert f"expired at {NOW - DAY:%Y-%m-%d}" in message
    assert "clock" in message


def test_not_valid_yet(files: Files) -> None:
    files.issue(Issued(not_before=NOW + DAY))
    assert f"valid from {NOW + DAY:%Y-%m-%d}" in refused(files)


def test_a_key_that_openssl_finds_too_weak(files: Files) -> None:
    weak = rsa.generate_private_key(65537, 1024)
    issued = Issued(key=weak)  # type: ignore[arg-type]
    files.issue(issued)
    assert "OpenSSL refuses the certificate" in refused(files)
    assert "too small" in refused(files)


@pytest.mark.parametrize(
    ("lifetime", "left", "warned"), [(90, 15, False), (90, 13, True), (6, 3, False), (6, 1, True), (397, 15, False)]
)
def test_a_warning_near_the_end(files: Files, lifetime: int, left: int, warned: bool) -> None:
    end = NOW + left * DAY
    files.issue(Issued(not_before=end - lifetime * DAY, not_after=end))
    warnings = load_pair(files.cert, files.key).warnings(NOW.timestamp())
    assert [("expires at" in one) for one in warnings] == [True] * warned


def test_a_warning_for_a_key_that_all_can_read(files: Files) -> None:
    files.issue(ISSUED)
    files.key.chmod(0o644)
    (warning,) = load_pair(files.cert, files.key).warnings(NOW.timestamp())
    assert "chmod" in warning


def test_no_message_holds_any_of_the_key(files: Files) -> None:
    secret = ISSUED.key_pem().splitlines()[1].decode()[:20]
    for cert, key in ((ISSUED.key_pem(), ISSUED.pem), (ISSUED.pem, ISSUED.key_pem()[:-60] + b"\n")):
        files.put(cert, key)
        assert secret not in refused(files)


@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
@given(st.binary(max_size=40), st.integers(0, 10_000), st.booleans())
def test_damage_anywhere_is_an_error_of_ours(
    tmp_path_factory: pytest.TempPathFactory, junk: bytes, at: int, in_key: bool
) -> None:
    folder: Path = tmp_path_factory.getbasetemp()
    files = Files(folder / "fuzz-cert.pem", folder / "fuzz-key.pem")

    def damage(data: bytes) -> bytes:
        cut = at % len(data)
        return data[:cut] + junk + data[cut + len(junk) :]

    files.put(ISSUED.pem if in_key else damage(ISSUED.pem), damage(ISSUED.key_pem()) if in_key else ISSUED.key_pem())
    try:
        assert load_pair(files.cert, files.key).not_after  # nobody checks a certificate's own signature
    except TLSError as error:
        assert error.remedy


def test_other_kinds_of_keys(files: Files) -> None:
    for key in (rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP384R1())):
        files.issue(issued := Issued(key=key))  # type: ignore[arg-type]
        assert load_pair(files.cert, files.key).fingerprint == issued.fingerprint
