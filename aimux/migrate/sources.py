"""Finds out which gateway a file or folder belongs to, and has it read."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import yaml

from aimux.migrate import ai_mux, claude_code_mux, claude_proxy, cli_proxy, link_router, maxmux, sing_box
from aimux.migrate.dotenv import read_environment
from aimux.migrate.plan import Fields, MigrationError, Plan

if TYPE_CHECKING:
    from pathlib import Path


class Source(Protocol):
    """What each module of a source offers."""

    NAME: str

    def recognise(self, data: Mapping[str, Any], /) -> bool:
        """Whether the document is surely of this gateway."""
        ...

    def read(self, fields: Fields, path: Path, /) -> Plan:
        """`path` is the file, or the folder for a source that is one. Raises MigrationError."""
        ...


# The more telling fields come first: several of them have a `server` or `listen`.
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


def read_source(path: Path, name: str | None = None) -> Plan:
    """Read a gateway's file or folder; `name` is one of NAMES, None finds out. Raises MigrationError."""
    data, path = _document(path)
    found = [module for module in _SOURCES if (name == module.NAME if name else module.recognise(data))]
    if not found:
        raise MigrationError(f"{path} is of no gateway that is known here; name it with --from ({', '.join(NAMES)})")
    fields = Fields(data)
    plan = found[0].read(fields, path)
    for left in fields.left():
        plan.note(left, "has no counterpart")
    return plan.finish()


def _document(path: Path) -> tuple[Mapping[str, Any], Path]:
    if path.is_dir():
        for name in ("config.yaml", "config.yml", "config.toml", "config.json"):
            if (path / name).is_file():
                return _document(path / name)
        return {"auth-dir": str(path)}, path
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise MigrationError(f"can't read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise MigrationError(f"{path} is no text") from None
    try:
        data = _parse(text, path)
    except tomllib.TOMLDecodeError as error:
        raise MigrationError(f"{path} is no valid TOML: {error}") from None
    except json.JSONDecodeError as error:
        raise MigrationError(f"{path} is no valid JSON (line {error.lineno}, column {error.colno})") from None
    except yaml.MarkedYAMLError as error:
        where = f" (line {error.problem_mark.line + 1})" if error.problem_mark else ""
        raise MigrationError(f"{path} is no valid YAML{where}") from None
    except (ValueError, RecursionError, yaml.YAMLError):
        # A date that there is none of, a number of 5,000 digits, 2,000 brackets, a NUL: each parser has some of these.
        raise MigrationError(f"{path} holds something that can't be read as a value") from None
    if not isinstance(data, Mapping):
        raise MigrationError(f"{path} holds no configuration")
    return data, path


def _parse(text: str, path: Path) -> object:
    if path.suffix == ".toml":
        return tomllib.loads(text)
    if path.suffix == ".json":
        return json.loads(text)
    if path.suffix not in {".yaml", ".yml", ".example"} and (environment := read_environment(text)):
        return environment
    return yaml.safe_load(text)
