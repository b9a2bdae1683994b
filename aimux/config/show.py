"""The configuration for other eyes: with its secrets masked, and as a JSON Schema for editors."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, SecretStr
from pydantic.json_schema import models_json_schema

from aimux.config.database import Database, EncryptionKey, password_of, without_password
from aimux.config.models import Config
from aimux.config.problems import MASK

if TYPE_CHECKING:
    from aimux.plugin import Provider

_PYDANTIC_MASK = "**********"
_CONSTRAINTS = {"enum", "pattern", "minLength"}
_REFERENCE = {"type": "string", "pattern": r"\$\{(env|file|cred):[^{}]+\}", "description": "A reference."}


def masked(config: Config) -> dict[str, Any]:
    """The effective configuration as plain data, ready for YAML or JSON, every secret as `********`."""
    shown: dict[str, Any] = _masked(config.model_dump(mode="json", exclude_none=True))
    return shown


def _masked(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _masked(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_masked(item) for item in value]
    return MASK if value == _PYDANTIC_MASK else value


def secrets_in(value: Any) -> Iterator[str]:
    """Every secret of a configuration or of a part of one, including those of plugins' settings."""
    match value:
        case SecretStr():
            yield value.get_secret_value()
        case EncryptionKey():
            yield value.value.hex()
            yield base64.b64encode(value.value).decode()
        case Database() if value.address is not None:
            if value.address != without_password(value.address):
                yield value.address
                yield password_of(value.address)
            yield from secrets_in((value.encryption_key, *value.old_encryption_keys))
        case BaseModel():
            for _, item in value:
                yield from secrets_in(item)
        case Mapping():
            for item in value.values():
                yield from secrets_in(item)
        case list() | tuple():
            for item in value:
                yield from secrets_in(item)
        case _ if is_dataclass(value):
            for field in fields(value):
                yield from secrets_in(getattr(value, field.name))


def json_schema(providers: Mapping[str, type[Provider]]) -> dict[str, Any]:
    """The JSON Schema (2020-12) of config.yaml, with the settings of these providers."""
    models = {"": Config} | {name: provider.Settings for name, provider in providers.items()}
    references, definitions = models_json_schema([(model, "validation") for model in dict.fromkeys(models.values())])
    schema = definitions["$defs"].pop("Config")
    schema["properties"]["providers"] |= _providers_schema(
        {name: references[provider.Settings, "validation"] for name, provider in providers.items()}
    )
    # Not validated, so that `~` stays as it is written.
    for name, default in masked(Config.model_construct()).items():
        schema["properties"][name]["default"] = default
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **_with_references(schema),
        "title": "aimux configuration",
        "$defs": _with_references(definitions["$defs"]) | {"Reference": _REFERENCE},
    }


def _providers_schema(settings: dict[str, Any]) -> dict[str, Any]:
    instance = {
        "type": "object",
        "required": ["type"],
        "properties": {"type": {"enum": sorted(settings), "description": "The provider to use under this name."}},
    }
    return {
        "anyOf": [
            {"type": "array", "items": {"enum": sorted(settings)}},
            {
                "type": "object",
                "properties": {name: {"anyOf": [one, {"type": "null"}]} for name, one in settings.items()},
                "additionalProperties": instance,
            },
        ]
    }


def _with_references(schema: Any) -> Any:
    """Whatever is not free text may also be written as a reference."""
    if isinstance(schema, list):
        return [_with_references(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("type") in ("boolean", "integer", "number") or (
        schema.get("type") == "string" and _CONSTRAINTS & schema.keys()
    ):
        about = {key: schema[key] for key in ("title", "description", "default") if key in schema}
        bare = {key: value for key, value in schema.items() if key not in about}
        return {**about, "anyOf": [bare, {"$ref": "#/$defs/Reference"}]}
    return {key: _with_references(value) for key, value in schema.items()}
