"""The `providers` field: names, or names with the settings that each provider's own class validates."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import PlainSerializer, PlainValidator, ValidationError, ValidationInfo, WithJsonSchema
from pydantic_core import InitErrorDetails, PydanticCustomError

from aimux.config.explain import explain
from aimux.config.problems import wrong
from aimux.config.references import Unresolved
from aimux.config.sections import Loading, from_text, loading, nearest, tidy
from aimux.plugin import ProviderSettings  # noqa: TC001 - pydantic evaluates the annotations
from aimux.plugin.parts import is_own_path
from aimux.redaction import mask

if TYPE_CHECKING:
    from pydantic import BaseModel

    from aimux.config.problems import Where
    from aimux.plugin import Provider

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


@dataclass(frozen=True, slots=True)
class ProviderEntry:
    """One provider of the configuration: the plugin's name, and the settings that its class validated."""

    plugin: str
    settings: ProviderSettings


def _entries(value: Any, info: ValidationInfo) -> Mapping[str, ProviderEntry]:
    """All entries. Raises one ValidationError with every fault of every provider."""
    context = loading(info)
    faults: list[InitErrorDetails] = []
    written = _written(from_text(value, "list") if isinstance(value, str) else value, faults)
    context.instances = frozenset(written)
    entries: dict[str, ProviderEntry] = {}
    for name, (settings, place) in written.items():
        given = settings if isinstance(settings, Unresolved) else _plugin(name, settings)
        try:
            entries[name] = _entry(name, settings, context)
        except PydanticCustomError as error:
            faults.append(_fault((place,), error, given))
        except ValidationError as error:
            faults += _settings_faults(error, place, _provider(name, settings, context).Settings, settings)
        except Exception as error:  # a plugin's validator: anything may come out of it
            what = f"{type(error).__name__} in the settings class of the provider {given!r}"
            faults.append(_fault((place,), wrong(what, "that is a fault of the plugin"), settings))
    if faults:
        raise ValidationError.from_exception_data("providers", faults)
    return entries


def _fault(path: Where, error: PydanticCustomError, given: Any) -> InitErrorDetails:
    """One line of a ValidationError; pydantic puts the place of `providers` before its path."""
    return {"type": error, "loc": path, "input": given}


def _written(value: Any, faults: list[InitErrorDetails]) -> dict[str, tuple[Any, str | int]]:
    """Settings as they are written and their place, by name."""
    if isinstance(value, Mapping):
        return {
            name: (from_text(settings, "mapping") if isinstance(settings, str) else settings, name)
            for name, settings in value.items()
        }
    if not isinstance(value, list | tuple):
        raise wrong("is neither a list of names nor a mapping of names to settings")
    written: dict[str, tuple[Any, str | int]] = {}
    for index, name in enumerate(value):
        if not isinstance(name, str):
            error = wrong("is not a provider's name", "with settings, write providers: {NAME: {…}}")
            faults.append(_fault((index,), error, name))
        elif name in written:
            faults.append(_fault((index,), wrong(f"{name!r} is there twice", "remove one of them"), name))
        else:
            written[name] = ({}, index)
    return written


def _entry(name: str, written: Any, context: Loading) -> ProviderEntry:
    if not _NAME.fullmatch(name):
        raise wrong(f"{name!r} is not a usable name", "use letters, digits, - and _")
    if name == "api" or is_own_path(f"/{name}"):
        raise wrong(f"{name!r} is the name of a path of aimux's own", "choose another name, and say type: PROVIDER")
    if isinstance(written, ProviderEntry):
        return written
    provider = _provider(name, written, context)
    if written is not None and not isinstance(written, Mapping):
        raise wrong("is not a mapping of settings", f"write {name}: {{base_url: …}}, or only the name")
    settings = {key: value for key, value in (written or {}).items() if key != "type"}
    validated = provider.Settings.model_validate(tidy(provider.Settings, settings), context=context)
    return ProviderEntry(provider.name, validated)


def _plugin(name: str, written: Any) -> Any:
    """The name of the plugin that an entry asks for."""
    return written.get("type", name) if isinstance(written, Mapping) else name


def _provider(name: str, written: Any, context: Loading) -> type[Provider]:
    plugin = _plugin(name, written)
    if isinstance(plugin, str) and plugin in context.providers:
        return context.providers[plugin]
    meant = nearest(str(plugin), context.providers)
    installed = ", ".join(sorted(context.providers)) or "none"
    remedy = f"did you mean {meant}?" if meant else "`aimux providers` shows what is installed and what failed to load"
    at = "" if plugin is name else "type"
    raise wrong(f"no provider {plugin!r} is installed (there is: {installed})", remedy, at=at)


def _settings_faults(
    error: ValidationError, place: str | int, settings: type[BaseModel], written: Any
) -> Iterator[InitErrorDetails]:
    secrets = tuple(_secrets(settings, written))
    for detail in error.errors(include_url=False):
        path, message, remedy = explain(detail, settings)
        given = detail["input"]
        # A plugin's validator may quote what it refuses, and that may be a key: the place says which value it is.
        if isinstance(given, str) and len(given) >= 4:
            message = message.replace(given, "the value")
        message = mask(message, secrets)
        # What is known about the input decides later whether a reference is to blame, which it isn't for a key.
        yield _fault((place, *path), wrong(message, remedy), None if detail["type"] == "extra_forbidden" else given)


def _secrets(settings: type[BaseModel], written: Any) -> Iterator[str]:
    """What was written into fields of secrets, whether it is valid or not."""
    for name, field in settings.model_fields.items():
        value = written.get(name) if "SecretStr" in str(field.annotation) and isinstance(written, Mapping) else None
        for text in value.values() if isinstance(value, Mapping) else [value]:
            if isinstance(text, str):
                yield text


def _shown(entries: Mapping[str, ProviderEntry]) -> dict[str, Any]:
    shown = {}
    for name, entry in entries.items():
        settings = entry.settings.model_dump(mode="json", exclude_none=True)
        shown[name] = settings if entry.plugin == name else {"type": entry.plugin, **settings}
    return shown


ProviderEntries = Annotated[
    Mapping[str, ProviderEntry],
    PlainValidator(_entries),
    # `aimux config-schema` puts the installed providers' own settings here.
    WithJsonSchema({"type": ["array", "object"]}),
    PlainSerializer(_shown, when_used="json"),
]


def known_instance(name: str, info: ValidationInfo, *, at: str = "") -> str:
    """For validators: a provider's name in this configuration, or else of an installed one."""
    context = loading(info)
    known = context.providers.keys() if context.instances is None else context.instances
    if name not in known and (known or context.instances is not None):
        meant = nearest(name, known)
        others = f"one of {', '.join(sorted(known))}" if known else "name it under `providers`, which is empty"
        remedy = f"did you mean {meant}?" if meant else others
        raise wrong(f"{name!r} is not a provider of this configuration", remedy, at=at)
    return name
