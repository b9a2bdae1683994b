"""Every field from the environment: `AIMUX_LISTEN`, `AIMUX_TLS__ENABLED`. What is set there overrides the file."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aimux.config.sections import nearest, section_at
from aimux.documents import document_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pydantic import BaseModel

    from aimux.config.document import Document
    from aimux.config.problems import Where

PREFIX = "AIMUX_"
FILE_VARIABLE = "AIMUX_CONFIG"
"""Names the configuration file itself."""
KEY_VARIABLE = "AIMUX_ADMIN_TOKEN"
"""What commands show to a running server. The server's own setting is AIMUX_ADMIN__TOKEN."""
NO_FIELDS = frozenset({FILE_VARIABLE, KEY_VARIABLE, "AIMUX_TOKEN"})
"""People keep their own token for clients in the last one, also in the shell that runs `aimux`."""

# Kubernetes and Docker links put these into every container beside a service named `aimux` or `aimux-…`.
_SERVICE_LINK = re.compile(r"AIMUX_(\w+_)?(SERVICE_(HOST|PORT(_\w+)?)|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)")


def variable(path: Where) -> str:
    """The environment variable of a field: `AIMUX_TLS__ENABLED` for `("tls", "enabled")`."""
    return PREFIX + "__".join(str(part).upper().replace("-", "_") for part in path)


def variables(model: type[BaseModel], path: Where = ()) -> Iterator[str]:
    """The variables of all fields of a section and the sections in it."""
    for name in model.model_fields:
        here = (*path, name)
        yield variable(here)
        if inner := section_at(model, [name]):
            yield from variables(inner, here)


@dataclass(slots=True)
class Misplaced:
    """A variable that fits no field."""

    variable: str
    message: str
    remedy: str


@dataclass(slots=True)
class Overlaid:
    """`data` with the environment's values in it; `sources`: which path came from which variable."""

    data: dict[str, Any]
    sources: dict[Where, str] = field(default_factory=dict)
    misplaced: list[Misplaced] = field(default_factory=list)


def overlay(
    document: Document, environ: Mapping[str, str], model: type[BaseModel], provider_names: Iterable[str]
) -> Overlaid:
    """Put the environment's values over the document's. An empty variable counts as not set (compose files do that)."""
    result = Overlaid(dict(document.data))
    names = [name for name in environ if name.startswith(PREFIX) and name not in NO_FIELDS and environ[name].strip()]
    # The shorter first: AIMUX_TLS as JSON, then AIMUX_TLS__ENABLED over it.
    for name in sorted(names, key=lambda name: (name.count("__"), name)):
        if _SERVICE_LINK.fullmatch(name):
            continue
        first, *rest = name.removeprefix(PREFIX).lower().split("__")
        if first in model.model_fields:
            _Target(result, document, list(provider_names)).set(name, [first, *rest], _value(environ[name]))
            continue
        # Without the prefix, which would make everything look alike.
        known = {other.removeprefix(PREFIX).lower(): other for other in variables(model)}
        meant = nearest(name.removeprefix(PREFIX), known)
        remedy = (
            f"did you mean {known[meant]}?" if meant else f"{document_path('docs/configuration.md')} lists the names"
        )
        result.misplaced.append(Misplaced(name, "is not a setting of aimux", remedy))
    return result


def _value(text: str) -> Any:
    """Lists and mappings are JSON. What isn't JSON stays text: `[::1]:8080` also begins with a bracket."""
    if text.lstrip().startswith(("[", "{")):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            pass
    return text


class _Target:
    def __init__(self, result: Overlaid, document: Document, provider_names: list[str]) -> None:
        self._result = result
        self._lines = document.lines
        self._provider_names = provider_names

    def set(self, name: str, segments: list[str], value: Any) -> None:
        node = self._result.data
        path: Where = ()
        for segment in segments[:-1]:
            key = self._key(segment, path, node)
            path = (*path, key)
            inner = node.get(key)
            if path == ("providers",) and isinstance(inner, list):
                inner = self._named(inner)
            if inner is True or inner == "true":
                inner = {}  # a section that may be switched on as it is
            if inner is not None and not isinstance(inner, dict):
                remedy = f"give the whole of {path[0]} as JSON in {variable(path[:1])}"
                self._result.misplaced.append(Misplaced(name, f"can't reach into {path[-1]}", remedy))
                return
            # A copy: YAML anchors can make two places of the file one object.
            node[key] = inner = dict(inner or {})
            node = inner
        key = self._key(segments[-1], path, node)
        node[key] = value
        self._forget_lines((*path, key))
        self._result.sources[(*path, key)] = name

    def _key(self, segment: str, path: Where, node: dict[str, Any]) -> str:
        """Variables can't hold hyphens and are upper case: `MY_VLLM` finds an existing `my-vllm`."""
        known = [*node, *(self._provider_names if path == ("providers",) else [])]
        return next((key for key in known if key.lower().replace("-", "_") == segment), segment)

    def _named(self, providers: list[Any]) -> dict[str, Any]:
        for index, name in enumerate(providers):
            if line := self._lines.get(("providers", index)):
                self._lines[("providers", str(name))] = line
        return {str(name): None for name in providers}

    def _forget_lines(self, path: Where) -> None:
        for known in [known for known in self._lines if known[: len(path)] == path]:
            del self._lines[known]
