"""Keys of signers, tokens that they sign, and who verifies them."""

from __future__ import annotations

import json
import time
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from aimux.config.auth import SignedTokens
from aimux.people import Access, Denied, Directory
from aimux.people.signed import Signed
from aimux.people.tokens import digest

SECRET = "the-secret-of-the-old-gateway-0123"
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER = rsa.generate_private_key(public_exponent=65537, key_size=2048)
SHORT = rsa.generate_private_key(public_exponent=65537, key_size=1024)
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
