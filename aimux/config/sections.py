"""What every section of the configuration shares: strictness, values given as text, and what loading knows."""

from __future__ import annotations

import difflib
import json
import os
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationInfo, WithJsonSchema, model_validator

from aimux.config.files import local_path
from aimux.config.problems import wrong

if TYPE_CHECKING:
    from aimux.config.problems import Where
    from aimux.plugin import Provider


@dataclass(slots=True)
class Loading:
    """What validators need to know, and what they leave for those of later fields: pydantic's validation context.

    `folder`: where relative paths begin; without one they stay relative, as a running server's working folder may be
    gone. `read`: whether token files are read. `warn(path, message, remedy)` takes what does not stop the start.
    `taken`: what may occur only once (user names, token hashes, mounts), with its owner. `instances`: the names under
    `providers`, once that field was read. `lenient`: tokens that can't be read are unknown, and no fault.
    """

    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    providers: Mapping[str, type[Provider]] = field(default_factory=dict)
    folder: Path = field(default_factory=Path)
    read: bool = True
    warn: Callable[[Where, str, str], None] = lambda _path, _message, _remedy: None
    taken: dict[tuple[str, str | bytes], str] = field(default_factory=dict)
    instances: frozenset[str] | None = None
    lenient: bool = False


def loading(info: ValidationInfo) -> Loading:
    """The context of this validation; a fresh one if a model is built by hand (tests, `Config()`)."""
    return info.context if isinstance(info.context, Loading) else Loading()


class Section(BaseModel):
    """A part of the configuration: unknown keys are refused, null means "as if it were not there"."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _tidy(cls, data: Any) -> Any:
        return tidy(cls, data)


def tidy(model: type[BaseModel], data: Any) -> Any:
    """Take out nulls, and read lists and mappings that came as text (from the environment, or by a reference)."""
    if not isinstance(data, Mapping):
        return data
    fields = model.model_fields
    return {
        key: from_text(value, shape(fields[key].annotation)) if isinstance(value, str) and key in fields else value
        for key, value in data.items()
        if value is not None or key not in fields  # a misspelt name is refused, whatever stands behind it
    }


Shape = Literal["list", "mapping", "scalar"]


def _alternatives(annotation: Any) -> list[Any]:
    """`Annotated[A | B | None, …]` as [A, B]."""
    if get_origin(annotation) is Annotated:
        return _alternatives(get_args(annotation)[0])
    if get_origin(annotation) in {Union, types.UnionType}:
        return [one for part in get_args(annotation) for one in _alternatives(part) if one is not type(None)]
    return [annotation]


def shape(annotation: Any) -> Shape:
    """Whether a field holds a list, a mapping or a single value."""
    for one in _alternatives(annotation):
        origin = get_origin(one) or one
        if not isinstance(origin, type) or issubclass(origin, str):
            continue
        if issubclass(origin, Mapping) or issubclass(origin, BaseModel):
            return "mapping"
        if issubclass(origin, Sequence | set | frozenset):
            return "list"
    return "scalar"


def from_text(value: str, kind: Shape) -> Any:
    """A list or mapping as JSON, or a list separated by commas or spaces. Else it stays text, to be refused as that."""
    if kind == "scalar":
        return value
    text = value.strip()
    if text.startswith(("[", "{")):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return value
    return text.replace(",", " ").split() if kind == "list" else value


def section_at(model: type[BaseModel], path: Sequence[str | int]) -> type[BaseModel] | None:
    """The model class at a path below `model`, or None where there is none."""
    annotation: Any = model
    for part in path:
        annotation = _inside(annotation, part)
    for one in _alternatives(annotation):
        if isinstance(one, type) and issubclass(one, BaseModel):
            return one
    return None


def _inside(annotation: Any, part: str | int) -> Any:
    for one in _alternatives(annotation):
        if isinstance(one, type) and issubclass(one, BaseModel):
            if isinstance(part, str) and part in one.model_fields:
                return one.model_fields[part].annotation
        elif shape(one) != "scalar" and (arguments := get_args(one)):
            return arguments[-1] if isinstance(part, str) else arguments[0]
    return None


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that was probably meant."""
    found = difflib.get_close_matches(name.lower(), list(known), n=1, cutoff=0.6)
    return found[0] if found else None


def _path(value: Any, info: ValidationInfo) -> Any:
    if isinstance(value, Path):
        value = str(value)
    if not isinstance(value, str):
        return value
    if not value or "\0" in value:
        raise wrong("is not a path", "give the path of a file or folder")
    context = loading(info)
    try:
        return local_path(value, context.folder, context.environ)
    except OSError as error:
        raise wrong(str(error), "write the whole path, or set HOME") from None


def _path_or_nothing(value: Any, info: ValidationInfo) -> Any:
    return None if value == "" else _path(value, info)


LocalPath = Annotated[Path, BeforeValidator(_path), WithJsonSchema({"type": "string"})]
"""An absolute path: `~` is expanded, a relative path starts at the configuration file's folder."""
OptionalPath = Annotated[Path | None, BeforeValidator(_path_or_nothing), WithJsonSchema({"type": "string"})]
"""The same; an empty string means that there is none."""
