"""Tokens in the configuration: hashed where they are read, and not kept."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path  # noqa: TC003 - pydantic evaluates the annotations
from typing import Annotated, Any

from pydantic import PlainSerializer, PlainValidator, ValidationInfo, WithJsonSchema

from aimux.config.files import local_path, open_to_others, read_text
from aimux.config.problems import MASK, wrong
from aimux.config.references import UNRESOLVED
from aimux.config.sections import loading

MIN_LENGTH = 16
MAX_LENGTH = 1024
SAMPLE_TOKENS = frozenset({"sample-token-of-alice-make-your-own", "sample-token-of-bob-make-your-own"})
"""The tokens of config.example.yaml. Everybody knows them."""

_MAKE_ONE = "make one: openssl rand -hex 32"


@dataclass(frozen=True, slots=True)
class Token:
    """A token's SHA-256 (32 bytes). `path`: the file it came from; `known` is False where that was not to be read."""

    sha256: bytes = field(repr=False)
    path: Path | None = None
    known: bool = True


def _sha256(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


_SAMPLES = frozenset(map(_sha256, SAMPLE_TOKENS))
_EMPTY = _sha256("")


def _hashed(token: str) -> bytes:
    if len(token) < MIN_LENGTH:
        raise wrong(f"has {len(token)} characters, and at least {MIN_LENGTH} are needed", _MAKE_ONE)
    if len(token) > MAX_LENGTH:
        raise wrong(f"has {len(token)} characters, and at most {MAX_LENGTH} fit", _MAKE_ONE)
    if token[0] in {'"', "'"} and token[-1] == token[0]:
        raise wrong("stands in quotation marks", "take them off: docker's env files and secrets keep them")
    if not re.fullmatch(r"[\x21-\x7e]+", token):
        raise wrong("holds a space or a character that no HTTP header can carry", _MAKE_ONE)
    return _checked(_sha256(token))


def _checked(sha256: bytes) -> bytes:
    if sha256 in _SAMPLES:
        raise wrong("is a token of config.example.yaml, which everybody knows", _MAKE_ONE)
    return sha256


def _from_plain(value: Any, info: ValidationInfo) -> Token:
    if isinstance(value, Token):
        return value
    if value is UNRESOLVED and loading(info).lenient:
        return Token(b"", known=False)
    if not isinstance(value, str):
        raise wrong("is not text", "put it in quotes")
    return Token(_hashed(value))


def _from_hash(value: Any) -> Token:
    if isinstance(value, Token):
        return value
    if not isinstance(value, str) or not re.fullmatch(r"[0-9a-fA-F]{64}", value):
        raise wrong("is not a SHA-256 in hex (64 digits)", 'make it: printf %s "$TOKEN" | sha256sum')
    sha256 = bytes.fromhex(value)
    if sha256 == _EMPTY:
        raise wrong("is the SHA-256 of nothing", 'was the variable empty? printf %s "$TOKEN" | sha256sum')
    return Token(_checked(sha256))


def _from_file(value: Any, info: ValidationInfo) -> Token:
    if isinstance(value, Token):
        return value
    if not isinstance(value, str) or not value or "\0" in value:
        raise wrong("is not a path", "give the path of a file that holds the token and nothing else")
    context = loading(info)
    path: Path | None = None
    try:
        path = local_path(value, context.folder, context.environ)
        if not context.read:
            return Token(b"", path, known=False)
        token = read_text(path)
    except OSError as error:
        if context.lenient:
            return Token(b"", path, known=False)
        raise wrong(str(error), "check the path, and that aimux may read it") from None
    if open_to_others(path):
        context.warn(("token_file",), f"{path} can be read by every user of this machine", f"chmod 600 {path}")
    return Token(_hashed(token), path)


def _shown(token: Token) -> str:
    return str(token.path) if token.path else MASK


_HIDE = PlainSerializer(_shown, return_type=str)

PlainToken = Annotated[
    Token,
    PlainValidator(_from_plain),
    WithJsonSchema({"type": "string", "minLength": MIN_LENGTH, "maxLength": MAX_LENGTH, "writeOnly": True}),
    _HIDE,
]
TokenFile = Annotated[Token, PlainValidator(_from_file), WithJsonSchema({"type": "string"}), _HIDE]
HashedToken = Annotated[
    Token, PlainValidator(_from_hash), WithJsonSchema({"type": "string", "pattern": "^[0-9a-fA-F]{64}$"}), _HIDE
]
