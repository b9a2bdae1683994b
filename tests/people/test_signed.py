"""Tokens signed elsewhere: what is taken, what isn't, and what the claims give."""

from __future__ import annotations

import asyncio
import base64
import errno
import hashlib
import hmac
import json
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from aimux.config.auth import SignedTokens
from aimux.people import Access, Configured, Denied, Directory, Group, Role, User
from aimux.people.directory import Stored
from aimux.people.keys import COOL_SECONDS, MISSED, FetchedKeys, KeySet, NoKeys, fetched_keys, read_keys
from aimux.people.signed import Signed
from aimux.people.tokens import digest
from aimux.people.trust import Trust
from aimux.plugin.http import HttpAnswer, HttpUnavailable

SECRET = "the-secret-of-the-old-gateway-0123"
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()
ALGORITHMS: dict[str, tuple[Any, Any]] = {
    "RS256": (RSA, jwt.algorithms.RSAAlgorithm),
    "ES256": (EC, jwt.algorithms.ECAlgorithm),
    "EdDSA": (ED, jwt.algorithms.OKPAlgorithm),
}


def now() -> int:
    return int(time.time() * 1000)


def jwks(**keys: Any) -> str:
    """The public keys, by their ids; the algorithm is the one that the kind of key has."""
    found = []
    for name, key in keys.items():
        algorithm = next(a for a, (known, _) in ALGORITHMS.items() if type(known) is type(key))
        public = ALGORITHMS[algorithm][1].to_jwk(key.public_key(), as_dict=True)
        found.append({**public, "kid": name, "alg": algorithm, "use": "sig"})
    return json.dumps({"keys": found})


def pem(key: Any) -> str:
    text: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return text.decode()


def token(key: Any = SECRET, algorithm: str = "HS256", kid: str | None = None, **claims: Any) -> str:
    said = {"sub": "s-1", "exp": int(time.time()) + 600, **claims}
    said = {name: value for name, value in said.items() if value is not None}
    return jwt.encode(said, key, algorithm, headers={"kid": kid} if kid else None)


def signed(keys: Any = None, **settings: Any) -> Signed:
    if keys is None and "secret" not in settings:
        settings["secret"] = SECRET
    if keys is not None:
        settings |= {"key_file": "/unread"}
    return Signed(SignedTokens.model_validate(settings), keys, lambda _: None)


def find(verifier: Signed, text: str, directory: Directory | None = None) -> Access | Denied:
    return verifier.find(text, digest(text), directory or Directory(), now())


def test_a_token_of_link_assistant_router_goes_on_working() -> None:
    claims = {"sub": "0f1c", "iat": int(time.time()), "exp": int(time.time()) + 60, "label": "ann"}

    def part(data: Mapping[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(data, separators=(",", ":")).encode()).rstrip(b"=").decode()

    text = f"{part({'typ': 'JWT', 'alg': 'HS256'})}.{part(claims)}"
    mac = base64.urlsafe_b64encode(hmac.digest(SECRET.encode(), text.encode(), hashlib.sha256)).rstrip(b"=").decode()
    verifier = signed(prefix="la_sk_", user_claim=["label", "sub"])
    access = find(verifier, f"la_sk_{text}.{mac}")
    assert isinstance(access, Access)
    assert (access.user.name, access.user.role, access.token_id) == ("ann", Role.MEMBER, "jwt:0f1c")
    assert find(verifier, f"{text}.{mac}") is Denied.UNKNOWN
    made = verifier.issue("0f1c", "ann", claims["iat"], claims["exp"])  # type: ignore[arg-type]
    assert made == f"la_sk_{text}.{mac}", "what is issued here is what was issued there"


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("form", ["jwks", "pem"])
def test_public_keys(algorithm: str, form: str) -> None:
    key = ALGORITHMS[algorithm][0]
    verifier = signed(KeySet(jwks(k1=key, other=OTHER) if form == "jwks" else pem(key)))
    access = find(verifier, token(key, algorithm, "k1"))
    assert isinstance(access, Access)
    assert find(verifier, token(key, algorithm, "k1") + "x") is Denied.UNKNOWN
    if form == "jwks":
        assert find(verifier, token(key, algorithm, "nosuch")) is Denied.UNKNOWN
        assert find(verifier, token(key, algorithm)) is Denied.UNKNOWN, "which of two is meant?"
    assert find(verifier, token(RSA if key is not RSA else OTHER, "RS256", "k1")) is Denied.UNKNOWN


def unsigned(**claims: Any) -> str:
    return jwt.encode({"sub": "s-1", "exp": int(time.time()) + 600, **claims}, None, "none")


def confused() -> str:
    """Signed by HMAC with the public key as its secret."""
    head, body = token(RSA, "RS256").split(".")[:2]
    head = base64.urlsafe_b64encode(b'{"alg":"HS256","typ":"JWT"}').rstrip(b"=").decode()
    mac = hmac.digest(pem(RSA).encode(), f"{head}.{body}".encode(), hashlib.sha256)
    return f"{head}.{body}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"


def test_the_tokens_own_head_decides_nothing() -> None:
    for verifier in (signed(KeySet(pem(RSA))), signed()):
        for text in (unsigned(), confused(), token("another-secret-0123456789-0123456")):
            assert find(verifier, text) is Denied.UNKNOWN
    assert find(signed(KeySet(pem(RSA))), token()) is Denied.UNKNOWN


@pytest.mark.parametrize(
    ("claims", "denied"),
    [
        ({"exp": int(time.time()) - 60}, Denied.EXPIRED),
        ({"nbf": int(time.time()) + 86_400}, Denied.EARLY),
        ({"iss": "https://other.example"}, Denied.FOREIGN),
        ({"iss": None}, Denied.FOREIGN),
        ({"aud": "another"}, Denied.FOREIGN),
        ({"aud": None}, Denied.FOREIGN),
        ({"exp": None}, Denied.FOREIGN),
        ({"sub": None}, Denied.FOREIGN),
        ({"sub": ""}, Denied.FOREIGN),
        ({"sub": "a\nb"}, Denied.FOREIGN),
        ({"exp": "soon"}, Denied.UNKNOWN),
        ({"exp": 10**400}, Denied.UNKNOWN),
    ],
)
def test_claims_that_do_not_fit(claims: dict[str, Any], denied: Denied) -> None:
    verifier = signed(issuer="https://signer.example", audience="aimux")
    good = {"iss": "https://signer.example", "aud": ["aimux", "more"]}
    assert isinstance(find(verifier, token(**good)), Access)
    assert find(verifier, token(**{**good, **claims})) is denied


@pytest.mark.parametrize("text", ["", "a", "..", "a.b.c", "aimux_x", "é.é.é", "x" * 10_000, "e30.e30.", "W10.W10.W10"])
def test_what_is_no_token(text: str) -> None:
    assert find(signed(), text) is Denied.UNKNOWN


def test_claims_give_user_groups_and_role() -> None:
    verifier = signed(user_claim="email", groups_claim="realm.groups", role_claim="role")
    ann = User("ann@example.com", role=Role.ADMIN, groups=("dev",), scopes=("provider:claude",), configured=True)
    off = User("off@example.com", enabled=False)
    configured = Configured({ann.name: ann, off.name: off}, {"ci": Group("ci", reserved=True)}, {}, frozenset({"dev"}))
    directory = Directory(configured)

    def given(**claims: Any) -> Access | Denied:
        return find(verifier, token(**claims), directory)

    access = given(email="bob@example.com", role="viewer", realm={"groups": ["ci", "unknown"]})
    assert isinstance(access, Access)
    assert access.user == User("bob@example.com", role=Role.VIEWER, groups=("ci",))
    assert access.groups == {"ci"}
    assert access.expires_at is not None
    access = given(email="ann@example.com", realm={"groups": "ci, nosuch"})
    assert isinstance(access, Access)
    assert (access.user.groups, access.user.role) == (("dev", "ci"), Role.MEMBER)
    assert access.allowance is not None
    assert given(email="off@example.com") is Denied.DISABLED
    access = given(email="x@example.com", role="root")
    assert isinstance(access, Access)
    assert access.user.role is Role.MEMBER


def test_a_subject_that_was_revoked() -> None:
    verifier = signed()
    text, other = token(iss="https://a.example"), token(sub="s-2")
    assert isinstance(find(verifier, text), Access)
    for issuer, barred in (("", True), ("https://a.example", True), ("https://b.example", False)):
        directory = Directory(None, Stored(subjects=frozenset({(issuer, "s-1")})))
        assert (find(verifier, text, directory) is Denied.BARRED) is barred
        assert isinstance(find(verifier, other, directory), Access)


def test_it_is_verified_once_and_ends_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    ends: list[int] = []
    verifier = Signed(SignedTokens.model_validate({"secret": SECRET, "leeway": 0}), None, ends.append)
    verified = []
    decode = jwt.decode
    monkeypatch.setattr(jwt, "decode", lambda *a, **k: (verified.append(1), decode(*a, **k))[1])
    text = token(exp=int(time.time()) + 5)
    for _ in range(3):
        assert isinstance(find(verifier, text), Access)
    assert (len(verified), len(ends)) == (1, 1)
    assert verifier.find(text, digest(text), Directory(), ends[0]) is Denied.EXPIRED
    verifier.forget()
    assert isinstance(find(verifier, text), Access)
    assert len(verified) == 2


def test_files_of_keys(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(pem(EC))
    assert read_keys(file).find(None) is not None
    deep = '{"keys": ' + 5000 * "["
    for text in ("", "{}", '{"keys": []}', "not a key", '{"keys": [{"kty": "oct", "k": "x"}]}', deep):
        file.write_text(text)
        with pytest.raises(NoKeys) as caught:
            read_keys(file)
        assert str(file) in str(caught.value)
    with pytest.raises(NoKeys):
        read_keys(tmp_path / "nosuch")


class Signer:
    """Answers with `text`, or fails."""

    def __init__(self) -> None:
        self.text = ""
        self.asked = asyncio.Semaphore(0)

    async def request(self, method: str, url: str, **_: Any) -> HttpAnswer:
        self.asked.release()
        if not self.text:
            raise HttpUnavailable("signer.example does not answer")
        return HttpAnswer(200, {}, self.text.encode())

    async def until_asked(self) -> None:
        async with asyncio.timeout(5):
            await self.asked.acquire()
        await asyncio.sleep(0.05)  # what follows an answer, a file's writing included


async def test_keys_are_fetched_rotated_and_outlive_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    signer, changes, kept = Signer(), [], tmp_path / "state" / "jwks.json"
    keys = FetchedKeys("https://signer.example/jwks", signer, kept, lambda: changes.append(1))
    monkeypatch.setattr("aimux.people.keys.COOL_SECONDS", 0.0)
    verifier = signed(keys, issuer="https://signer.example")
    said = {"iss": "https://signer.example"}
    old, new = token(RSA, "RS256", "k1", **said), token(EC, "ES256", "k2", **said)
    await keys.load()
    task = asyncio.create_task(keys.run())
    try:
        await signer.until_asked()
        assert find(verifier, old) is Denied.PENDING, "its signer did not answer, and may know it"
        assert find(verifier, token(RSA, "RS256", "k1", iss="https://else.example")) is Denied.UNKNOWN
        assert changes == []
        signer.text = jwks(k1=RSA)
        assert find(verifier, old) is Denied.PENDING
        await signer.until_asked()
        assert isinstance(find(verifier, old), Access)
        signer.text = jwks(k2=EC)
        assert find(verifier, new) is Denied.PENDING
        await signer.until_asked()
        verifier.forget()  # what Trust does when it is told of the change
        assert isinstance(find(verifier, new), Access)
        assert find(verifier, old) in {Denied.PENDING, Denied.UNKNOWN}
        assert len(changes) == 2
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert kept.stat().st_mode & 0o777 == 0o600
    signer.text = ""
    again = FetchedKeys("https://signer.example/jwks", signer, kept, lambda: None)
    await again.load()
    assert isinstance(find(signed(again), new), Access)


async def test_nobody_makes_it_ask_all_the_time(tmp_path: Path) -> None:
    signer = Signer()
    signer.text = jwks(k1=RSA)
    keys = FetchedKeys("https://signer.example/jwks", signer, tmp_path / "kept", lambda: None)
    verifier = signed(keys)
    task = asyncio.create_task(keys.run())
    try:
        await signer.until_asked()
        for number in range(2 * MISSED):
            assert find(verifier, token(EC, "ES256", f"k{number}x")) is Denied.PENDING
        await asyncio.sleep(0.05)
        assert signer.asked.locked(), f"more than once in {COOL_SECONDS} s"
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_key_is_unknown_once_the_signer_was_asked_for_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """And not before: a client gives up for good at a 401."""
    caplog.set_level("INFO")
    signer = Signer()
    signer.text = jwks(k1=RSA)
    keys = FetchedKeys("https://signer.example/jwks", signer, tmp_path / "kept", lambda: None)
    verifier, text = signed(keys), token(EC, "ES256", "k2")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("aimux.people.keys.COOL_SECONDS", 0.2)
        task = asyncio.create_task(keys.run())
        try:
            await signer.until_asked()
            assert find(verifier, text) is Denied.PENDING, "it may be newer than what was fetched"
            signer.text = ""
            await signer.until_asked()
            assert find(verifier, text) is Denied.PENDING, "nobody could be asked"
            signer.text = jwks(k1=RSA)
            await signer.until_asked()
            assert find(verifier, text) is Denied.UNKNOWN
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    told = [record.getMessage() for record in caplog.records if record.name.startswith("aimux.people")]
    assert told == [
        "auth.jwt: the keys of https://signer.example/jwks can't be fetched: signer.example does not answer",
        "auth.jwt: the keys of https://signer.example/jwks were fetched again",
        "auth.jwt: a token is refused: its key, 'k2', is not known",
    ]


@pytest.mark.parametrize(
    ("status", "body", "why"),
    [
        (500, "{}", "it answered 500"),
        (302, "", "it answered 302 and leads elsewhere"),
        (200, "<html>sign in</html>", "no JWKS"),
        (
            200,
            '{"issuer": "https://s.example", "jwks_uri": "https://s.example/keys"}',
            "has to be https://s.example/keys",
        ),
        (200, '{"keys": []}', "no usable key"),
    ],
)
def test_what_is_no_set_of_keys_is_told_apart(status: int, body: str, why: str) -> None:
    with pytest.raises(NoKeys, match=re.escape(why)):
        fetched_keys(HttpAnswer(status, {}, body.encode()))


def test_the_log_tells_the_operator_why_a_token_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    verifier = signed(
        KeySet(jwks(k1=RSA, k2=EC)), issuer="https://signer.example", audience="aimux", user_claim="email"
    )
    good = {"iss": "https://signer.example", "aud": "aimux", "email": "ann"}
    for text, why in (
        (token(RSA, "RS256", "k1", **{**good, "aud": "other"}), "Audience doesn't match"),
        (token(RSA, "RS256", "k1", **{**good, "exp": None}), 'Token is missing the "exp" claim'),
        (token(RSA, "RS256", "k1", **{**good, "email": None}), "it names no user in email"),
        (token(RSA, "RS256", "nosuch", **good), "its key, 'nosuch', is not known"),
        (token(RSA, "RS256", **good), "its key, without a kid, is not known"),
        (token(RSA, "PS256", "k1", **good), "it says alg 'PS256', and its key allows one of RS256, ES256, EdDSA"),
        (token(OTHER, "RS256", "k1", **good), "Signature verification failed"),
        (token(RSA, "RS256", "k1", **good, more="x" * 9000), "and may have 8192"),
    ):
        caplog.clear()
        assert isinstance(find(verifier, text), Denied)
        (record,) = caplog.records
        assert why in record.getMessage()
    caplog.clear()
    assert find(verifier, "aimux_no-signed-token") is Denied.UNKNOWN
    assert caplog.records == []


async def test_on_a_full_disk_a_key_that_is_gone_lets_nobody_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does what is no set of keys at all end the asking."""
    monkeypatch.setattr("aimux.people.keys.COOL_SECONDS", 0.0)
    signer, kept = Signer(), tmp_path / "jwks.json"
    signer.text = jwks(k1=RSA)
    verifiers: list[Signed] = []
    keys = FetchedKeys("https://signer.example/jwks", signer, kept, lambda: [one.forget() for one in verifiers])
    verifiers.append(signed(keys))
    text = token(RSA, "RS256", "k1")
    task = asyncio.create_task(keys.run())
    try:
        await signer.until_asked()
        assert isinstance(find(verifiers[0], text), Access)
        monkeypatch.setattr(Path, "replace", failing)
        for signer.text in ('{"keys": ' + 5000 * "[", jwks(k2=EC)):
            find(verifiers[0], token(EC, "ES256", "k9"))
            await signer.until_asked()
        assert find(verifiers[0], text) in {Denied.PENDING, Denied.UNKNOWN}
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def failing(*_: object) -> NoReturn:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_head_of_brackets_is_no_token() -> None:
    head = base64.urlsafe_b64encode(b'{"alg":"HS256","x":' + 2500 * b"[").rstrip(b"=").decode()
    assert find(signed(), f"{head}.e30.AA") is Denied.UNKNOWN


async def test_a_signer_that_was_given_up_is_not_believed_while_the_new_one_does_not_answer(tmp_path: Path) -> None:
    signer, text = Signer(), token(RSA, "RS256", "k1", aud="aimux")
    people: Any = SimpleNamespace(ends=lambda _: None, on_change=lambda: None)

    async def believes(url: str) -> bool:
        trust = Trust(people, signer, tmp_path)
        await trust.adopt(SignedTokens.model_validate({"jwks_url": url, "audience": "aimux"}))
        await signer.until_asked()
        assert trust.signed is not None
        found = find(trust.signed, text)
        await trust.close()
        return isinstance(found, Access)

    signer.text = jwks(k1=RSA)
    assert await believes("https://old.example/jwks")
    signer.text = ""
    assert not await believes("https://new.example/jwks")
    assert await believes("https://old.example/jwks"), "a start needs no signer"
