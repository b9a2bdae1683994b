"""Tokens signed elsewhere: what is taken, what isn't, and what the claims give."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from typing import Any

import jwt
import pytest

from aimux.config.auth import SignedTokens
from aimux.people import Access, Configured, Denied, Directory, Group, Role, User
from aimux.people.directory import Stored
from aimux.people.keys import KeySet, NoKeys
from aimux.people.signed import Signed
from aimux.people.tokens import digest
from tests.people.signing import ALGORITHMS, EC, OTHER, RSA, SECRET, SHORT, find, jwks, pem, signed, token


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
    return jwt.encode({"sub": "s-1", "exp": int(time.time()) + 600, **claims}, "", "none")


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
    good: dict[str, Any] = {"iss": "https://signer.example", "aud": ["aimux", "more"]}
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

    access = given(email="bob@example.com", role="viewer", realm={"groups": ["ci", "unknown", 7, " ci"]})
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


@pytest.mark.parametrize("said", [False, "false", "yes", {}])
def test_an_address_that_the_signer_does_not_vouch_for_names_nobody(said: Any) -> None:
    """Grafana's CVE-2023-3128, oauth2-proxy's `insecure_oidc_allow_unverified_email`."""
    verifier, strict = signed(user_claim=["email", "sub"]), signed(user_claim="email")
    text = token(sub="4711", email="ann@example.com", email_verified=said)
    access = find(verifier, text)
    assert isinstance(access, Access)
    assert access.user.name == "4711"
    assert find(strict, text) is Denied.FOREIGN


@pytest.mark.parametrize("said", [{}, {"email_verified": True}, {"email_verified": "true"}])
def test_one_that_it_vouches_for_or_says_nothing_about_does(said: dict[str, Any]) -> None:
    access = find(signed(user_claim="email"), token(email="ann@example.com", **said))
    assert isinstance(access, Access)
    assert access.user.name == "ann@example.com"


@pytest.mark.parametrize("name", ["admin-key", "cli:root"])
def test_nobody_has_a_name_of_the_machines_own_administrators(name: str) -> None:
    assert find(signed(role_claim="role"), token(sub=name, role="admin")) is Denied.FOREIGN


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

    def counted(*arguments: Any, **options: Any) -> Any:
        verified.append(1)
        return decode(*arguments, **options)

    monkeypatch.setattr(jwt, "decode", counted)
    text = token(exp=int(time.time()) + 5)
    for _ in range(3):
        assert isinstance(find(verifier, text), Access)
    assert (len(verified), len(ends)) == (1, 1)
    assert verifier.find(text, digest(text), Directory(), ends[0]) is Denied.EXPIRED
    verifier.forget()
    assert isinstance(find(verifier, text), Access)
    assert len(verified) == 2


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


def test_a_head_of_brackets_is_no_token() -> None:
    head = base64.urlsafe_b64encode(b'{"alg":"HS256","x":' + 2500 * b"[").rstrip(b"=").decode()
    assert find(signed(), f"{head}.e30.AA") is Denied.UNKNOWN


@pytest.mark.parametrize("subject", ["\ud800", "\0", "a\nb"])
def test_a_subject_is_stored_and_logged_whatever_names_the_user(subject: str) -> None:
    verifier = signed(user_claim="email")
    assert isinstance(find(verifier, token(sub="auth0|1", email="ann")), Access)
    assert find(verifier, token(sub=subject, email="ann")) is Denied.FOREIGN


def test_of_a_set_only_public_keys_for_signatures_verify() -> None:
    private = {**jwt.algorithms.RSAAlgorithm.to_jwk(RSA, as_dict=True), "kid": "private", "alg": "RS256"}
    public = json.loads(jwks(k1=OTHER))["keys"]
    unusable = [
        private,
        {**json.loads(jwks(enc=RSA))["keys"][0], "use": "enc"},
        {**public[0], "kid": "none", "alg": "none"},
        {**public[0], "kid": "encrypts", "key_ops": ["encrypt", "wrapKey"]},
        {**public[0], "kid": "odd", "key_ops": 5},
        json.loads(jwks(short=SHORT))["keys"][0],
        {**public[0], "kid": ["k1"]},
        {**public[0], "kid": "number", "n": 5},
        {"kty": "future", "kid": "future"},
        "no key",
    ]
    public[0]["key_ops"] = ["verify"]
    verifier = signed(KeySet(json.dumps({"keys": [*unusable, *public, *unusable]})))
    assert isinstance(find(verifier, token(OTHER, "RS256", "k1")), Access)
    for name in ("private", "enc"):
        assert find(verifier, token(RSA, "RS256", name)) is Denied.UNKNOWN
    with pytest.raises(NoKeys, match="RSA \\(of 2048 bits or more\\)"):
        KeySet(pem(SHORT))
    for one in unusable:
        with pytest.raises(NoKeys):
            KeySet(json.dumps({"keys": [one]}))
    for document in ({"keys": 5}, {"key": public}):
        with pytest.raises(NoKeys, match="it is no JWKS"):
            KeySet(json.dumps(document))
