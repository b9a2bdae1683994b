"""pydantic's errors in words for the person who wrote the file. Values are not repeated: they may be secrets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import BeforeValidator

from aimux.config.problems import dotted
from aimux.config.scalars import format_duration, format_size, parse_duration, parse_size
from aimux.config.sections import nearest, section_at
from aimux.documents import document_path

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydantic import BaseModel
    from pydantic_core import ErrorDetails

    from aimux.config.problems import Where

_LISTS = frozenset({"list_type", "tuple_type", "set_type", "frozen_set_type", "sequence_str"})
_MAPPINGS = frozenset({"dict_type", "mapping_type", "model_type", "model_attributes_type", "dataclass_type"})


def explain(error: ErrorDetails, model: type[BaseModel]) -> tuple[Where, str, str]:
    """The place, what is wrong there, and what to do. `model` is the class that was validated."""
    context: dict[str, Any] = error.get("ctx", {})
    path: Where = tuple(part for part in error["loc"] if part != "[key]")
    kind = error["type"]
    if kind == "aimux":
        return (*path, context["at"]) if context["at"] else path, context["message"], context["remedy"]
    if kind == "missing":
        section = section_at(model, path[:-1])
        about = section.model_fields[str(path[-1])].description if section else None
        return path, "is missing" + (f": {about}" if about else ""), ""
    if kind == "extra_forbidden":
        return path, "is not a known setting", _known(path, section_at(model, path[:-1]))
    if kind == "literal_error":
        wanted = context["expected"].replace("'", "").replace(" or ", ", ").split(", ")
        meant = nearest(str(error["input"]), wanted) if isinstance(error["input"], str) else None
        return path, f"must be one of {', '.join(wanted)}", f"did you mean {meant}?" if meant else ""
    if kind in _LISTS:
        return path, f"must be a list, not {_what(error['input'])}", ""
    if kind in _MAPPINGS:
        return path, f"must be a mapping of names to values, not {_what(error['input'])}", ""
    if kind in {"string_type", "path_type"}:
        remedy = "put it in quotes" if isinstance(error["input"], int | float) else ""
        return path, f"must be {'text' if kind == 'string_type' else 'a path'}, not {_what(error['input'])}", remedy
    if kind in {"bool_type", "bool_parsing"}:
        return path, "must be true or false", ""
    if kind in {"int_type", "int_parsing", "int_from_float", "float_type", "float_parsing"}:
        return path, f"must be a {'whole ' if kind.startswith('int') else ''}number", ""
    if kind in {"string_too_short", "too_short"}:
        least = context["min_length"]
        return path, "is empty" if least == 1 else f"has fewer than {least} characters", ""
    message = error["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    if kind in {"greater_than_equal", "less_than_equal"}:
        message = f"{message.rpartition(' ')[0]} {_as_written(context.get('ge', context.get('le')), path, model)}"
    return path, message.replace("Input should be", "must be"), ""


def _as_written(bound: Any, path: Where, model: type[BaseModel]) -> str:
    """A field's bound the way its values are written: 86400 seconds are `1d`."""
    section = section_at(model, path[:-1])
    field = section.model_fields.get(str(path[-1])) if section else None
    forms: dict[Any, Callable[[Any], str]] = {parse_duration: format_duration, parse_size: format_size}
    for one in field.metadata if field else ():
        if isinstance(one, BeforeValidator) and (form := forms.get(one.func)):
            return form(bound)
    return str(bound)


def _known(path: Where, section: type[BaseModel] | None) -> str:
    if section is None:
        return "remove it"
    name, known = str(path[-1]), list(section.model_fields)
    for outer in known:  # it may stand one section too high
        inner = section_at(section, (outer,))
        if inner is not None and name in inner.model_fields:
            return f"did you mean {dotted((*path[:-1], outer, name))}?"
    if meant := nearest(name, known):
        return f"did you mean {meant}?"
    if len(known) <= 8:
        return f"known are: {', '.join(known)}"
    return f"{document_path('docs/configuration.md')} lists what is known"


def _what(value: Any) -> str:
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, str):
        return "text"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, list | tuple):
        return "a list"
    return "a mapping" if isinstance(value, dict) else "nothing"
