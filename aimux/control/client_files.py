"""Putting settings into a client's own file: merged into what is there, after a backup."""

from __future__ import annotations

import json
import shutil
import tomllib
from collections.abc import Mapping, MutableMapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from aimux import atomic

if TYPE_CHECKING:
    from pathlib import Path

Format = Literal["json", "toml"]


class MergeError(Exception):
    """The file can't be merged into; the message says why and what to do. Nothing was changed."""


def dump(settings: Mapping[str, Any], file_format: Format) -> str:
    """The settings as the text of a file."""
    return merged("", settings, file_format)


def merged(text: str, settings: Mapping[str, Any], file_format: Format) -> str:
    """`text` with the settings in it; everything else stays, in TOML comments and layout too. Raises MergeError."""
    if file_format == "json":
        document = _json(text)
        _merge(document, settings, "")
        return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    import tomlkit  # 30 ms that only Codex needs

    try:
        expected = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise MergeError(f"is not TOML: {error}") from None
    _merge(expected, settings, "")
    try:
        parsed = tomlkit.parse(text)
        _merge(parsed, settings, "")
        after = tomlkit.dumps(parsed)
        agrees = tomllib.loads(after) == expected
    except Exception:  # it keeps comments and layout, and fails on some of them with errors of its own
        agrees = False
    if not agrees:
        raise MergeError("has a layout that the settings can't be put into; add them by hand")
    return after


def _json(text: str) -> dict[str, Any]:
    if not text.strip():
        return {}
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise MergeError(f"is not JSON that aimux could write back ({error}); comments are none") from None
    if not isinstance(document, dict):
        raise MergeError("holds no JSON object")
    return document


def _merge(into: MutableMapping[str, Any], settings: Mapping[str, Any], where: str) -> None:
    for key, value in settings.items():
        if not isinstance(value, Mapping):
            if into.get(key) != value:
                into[key] = value
            continue
        inner = into.get(key)
        if inner is None:
            into[key] = value
        elif isinstance(inner, MutableMapping):
            _merge(inner, value, f"{where}{key}.")
        else:
            raise MergeError(f"has something else than settings at {where}{key}")


def write(path: Path, settings: Mapping[str, Any], file_format: Format) -> Path | None:
    """Merge into the file at `path`, or make it. It holds a token then, so only its owner may read it. A link stays
    one.

    The backup's path; None if there was no file, or nothing to change. Raises MergeError, even if the system refuses.
    """
    try:
        path = path.resolve()
        before = path.read_bytes() if path.exists() else b""  # with the line ends that it has
        after = merged(before.decode(), settings, file_format).encode()
        if after == before:
            path.chmod(0o600)
            return None
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        backup = None
        if path.exists():
            backup = path.with_name(f"{path.name}.{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}.bak")
            shutil.copy2(path, backup)
        atomic.write(path, after)
    except UnicodeError:
        raise MergeError("is not text in UTF-8") from None
    except OSError as error:
        raise MergeError(f"can't be written ({error.strerror})") from None
    return backup
