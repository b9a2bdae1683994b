"""Settings that had another name in an older version. They keep working, and a warning names the new one."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from aimux.config.document import Document, Fault
from aimux.config.environment import variable
from aimux.config.problems import dotted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aimux.config.problems import Where

RENAMED: dict[Where, Where] = {}
"""Old places of settings and the new ones, such as `("tls", "cert"): ("tls", "cert_path")`."""

Renamed = list[tuple["Where", str, str]]
"""The new place of each that was found, its old name and its new one."""


def in_document(document: Document) -> tuple[Document, Renamed]:
    """The document with new names for old ones. Giving both is a fault."""
    document, found = replace(document, lines=dict(document.lines), faults=list(document.faults)), Renamed()
    for old, new in RENAMED.items():
        holder = _at(document.data, old[:-1])
        if holder is None or old[-1] not in holder:
            continue
        document.data, value = _without(document.data, old)
        target = _at(document.data, new[:-1])
        if target is not None and new[-1] in target:
            message = f"was renamed, and its new name {dotted(new)} is there as well"
            document.faults.append(Fault(old, document.lines.get(old), message, "remove the old one"))
            continue
        document.data = _with(document.data, new, value)
        for path in [path for path in document.lines if path[: len(old)] == old]:
            document.lines[(*new, *path[len(old) :])] = document.lines.pop(path)
        found.append((new, dotted(old), dotted(new)))
    return document, found


def in_environment(environ: Mapping[str, str]) -> tuple[Mapping[str, str], Renamed]:
    """The same for variables. One that has its new name already counts."""
    renamed, found = dict(environ), Renamed()
    for old, new in RENAMED.items():
        before = variable(old)
        for name in [name for name in environ if name == before or name.startswith(f"{before}__")]:
            now = variable(new) + name.removeprefix(before)
            renamed.setdefault(now, renamed[name])
            del renamed[name]
            found.append((new, name, now))
    return renamed, found


def _at(data: Any, path: Where) -> dict[str, Any] | None:
    for part in path:
        data = data.get(part) if isinstance(data, dict) else None
    return data if isinstance(data, dict) else None


def _without(data: dict[str, Any], path: Where) -> tuple[dict[str, Any], Any]:
    """A copy, since YAML anchors can make two places of the file one object."""
    first, *rest = path
    copy = dict(data)
    if not rest:
        return copy, copy.pop(str(first))
    copy[str(first)], value = _without(copy[str(first)], tuple(rest))
    return copy, value


def _with(data: dict[str, Any], path: Where, value: Any) -> dict[str, Any]:
    first, *rest = path
    inner = _with(data.get(str(first)) or {}, tuple(rest), value) if rest else value
    return {**data, str(first): inner}
