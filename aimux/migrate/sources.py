"""Finds out which gateway a file or folder belongs to, and reads it."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import yaml

from aimux.accounts.kept import kept_logins
from aimux.migrate import ai_mux, claude_code_mux, claude_proxy, cli_proxy, link_router, maxmux, sing_box
from aimux.migrate.dotenv import read_environment
from aimux.migrate.fields import Fields, MigrationError

if TYPE_CHECKING:
    from pathlib import Path

    from aimux.migrate.plan import Plan


class Source(Protocol):
    """What each source's module offers."""

    NAME: str

    def recognise(self, data: Mapping[str, Any], /) -> bool:
        """Whether the document is surely of this gateway."""
        ...

    def read(self, fields: Fields, path: Path, /) -> Plan:
        """`path` is the file, or the folder for a source that is one. Raises MigrationError."""
        ...


# The more distinctive fields come first: several sources have a `server` or `listen`.
_SOURCES: tuple[Source, ...] = (
    maxmux,
    claude_proxy,
    cli_proxy,
    sing_box,
    claude_code_mux,
    link_router,
    ai_mux,
)
NAMES = tuple(sorted(module.NAME for module in _SOURCES))

_CONFIGURATIONS = ("config.yaml", "config.yml", "config.toml", "config.json", ".env", ".lenv", "router.env")
_VENDORS = (".credentials.json", "auth.json")


class _Texts(yaml.SafeLoader):
    """YAML in which everything stays text but `true`, `false` and nothing: `0123`, `12:30` and `off` may be keys."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 - PyYAML's own


_Texts.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("(true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
_Texts.add_implicit_resolver("tag:yaml.org,2002:null", re.compile("(~|null|Null|NULL|)$"), ["~", "n", "N", ""])
_Texts.add_implicit_resolver("tag:yaml.org,2002:merge", re.compile("<<$"), ["<"])


def read_source(path: Path, name: str | None = None) -> Plan:
    """Read a gateway's file or folder; `name` is one of NAMES, None finds out. Raises MigrationError."""
    data, path = _document(path, name)
    found = [module for module in _SOURCES if (name == module.NAME if name else module.recognise(data))]
    if not found:
        _refuse_logins(path)
        raise MigrationError(f"{path} is of no gateway that is known here; name it with --from ({', '.join(NAMES)})")
    fields = Fields(data)
    plan = found[0].read(fields, path)
    for left in fields.left():
        plan.note(left, "has no counterpart")
    return plan.finish()


def gateway_of(path: Path) -> str | None:
    """The gateway (one of NAMES) whose configuration a file surely is; None if it is none's, or can't be read."""
    try:
        data, _ = _document(path)
    except MigrationError:
        return None
    return next((module.NAME for module in _SOURCES if module.recognise(data)), None)


def _document(path: Path, name: str | None = None) -> tuple[Mapping[str, Any], Path]:
    if path.is_dir():
        return _folder(path, name)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise MigrationError(f"can't read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise MigrationError(f"{path} is not text") from None
    try:
        data = _parse(text, path)
    except tomllib.TOMLDecodeError as error:
        raise MigrationError(f"{path} is not valid TOML: {error}") from None
    except json.JSONDecodeError as error:
        raise MigrationError(f"{path} is not valid JSON (line {error.lineno}, column {error.colno})") from None
    except yaml.MarkedYAMLError as error:
        where = f" (line {error.problem_mark.line + 1})" if error.problem_mark else ""
        raise MigrationError(f"{path} is not valid YAML{where}") from None
    except (ValueError, RecursionError, yaml.YAMLError):
        # An impossible date, a number of 5,000 digits, 2,000 brackets, a NUL: each parser fails at some of these.
        raise MigrationError(f"{path} holds something that can't be read as a value") from None
    if not isinstance(data, Mapping):
        _refuse_logins(path)
        raise MigrationError(f"{path} holds no configuration")
    return data, path


def _refuse_logins(path: Path) -> None:
    """Raises MigrationError if that is all that the file holds."""
    if path.is_file() and kept_logins(path.read_bytes()):
        raise MigrationError(
            f"{path} holds logins and no gateway's configuration: `aimux import {path}` takes them over"
        )


def _folder(folder: Path, source: str | None) -> tuple[Mapping[str, Any], Path]:
    """What a folder contains decides: a configuration, or a gateway's folder of logins."""
    for name in _CONFIGURATIONS:
        if (folder / name).is_file():
            data, path = _document(folder / name)
            if source is not None or any(module.recognise(data) for module in _SOURCES):
                return data, path
    if source == claude_proxy.NAME or (source is None and claude_proxy.is_data_folder(folder)):
        return {"storage": {"data_folder": "."}, "claude": {}}, folder / "data"
    if source == cli_proxy.NAME or (source is None and cli_proxy.is_auth_folder(folder)):
        return {"auth-dir": "."}, folder / "auth"
    for file in sorted(folder.glob("*.json")):
        _refuse_logins(file)
    if any((folder / name).is_file() for name in _VENDORS):
        raise MigrationError(
            f"{folder} holds a login of a vendor's CLI and no gateway's configuration: `aimux import --link {folder}`"
            " shares it, and without --link copies it"
        )
    raise MigrationError(f"{folder} holds neither a configuration nor logins of a gateway that is known here")


def _parse(text: str, path: Path) -> object:
    if path.suffix == ".toml":
        return tomllib.loads(text)
    if path.suffix == ".json":
        return json.loads(text)
    if path.suffix not in {".yaml", ".yml", ".example"} and (environment := read_environment(text)):
        return environment
    return yaml.load(text, _Texts)  # noqa: S506 - a SafeLoader, with fewer kinds of values
