"""Credential files as text and JSON, whatever system wrote them."""

from __future__ import annotations

import codecs
import json
import re
from typing import Any

from aimux.plugin.errors import CredentialError

_BOMS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_HEX = re.compile(r"(?:0x)?((?:[0-9a-fA-F]{2}){2,})")


def credential_text(raw: bytes) -> str:
    """The text of a credential file, without white space around it. Raises CredentialError if it is not text.

    Besides UTF-8 it may be UTF-16, as PowerShell's `>` writes it, begin with a byte order mark, or be an object in hex
    digits, as macOS's `security find-generic-password -w` prints a login with a character beyond ASCII.
    """
    encoding = next((name for mark, name in _BOMS if raw.startswith(mark)), None)
    if encoding is None:  # a text begins with ASCII, so a zero reveals UTF-16 without its mark
        encoding = "utf-16-le" if raw[1:2] == b"\0" else "utf-16-be" if raw[:1] == b"\0" else "utf-8"
    try:
        text = raw.decode(encoding).strip()
    except UnicodeDecodeError:
        raise CredentialError("is not text in UTF-8") from None
    if digits := _HEX.fullmatch(text):
        try:
            written = bytes.fromhex(digits[1]).decode().strip()
        except UnicodeDecodeError:
            return text
        return written if written.startswith("{") else text
    return text


def load_object(raw: bytes) -> dict[str, Any]:
    """A JSON object from a credential file. Raises CredentialError with a position, never with content."""
    text = credential_text(raw)
    if not text.strip("\0"):  # zeros are what a file system leaves where a write was cut off by a crash
        raise CredentialError("is empty")
    try:
        data = json.loads(text)
    except ValueError as error:
        where = f" (line {error.lineno}, column {error.colno})" if isinstance(error, json.JSONDecodeError) else ""
        raise CredentialError(f"is not valid JSON{where}") from None
    except RecursionError:
        raise CredentialError("is nested too deeply") from None
    if not isinstance(data, dict):
        raise CredentialError("is not a JSON object")
    return data
