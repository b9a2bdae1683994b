"""docs/configuration.md and config.example.yaml say what the models say."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from jsonschema import Draft202012Validator
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from aimux.config import Config, ConfigError, check_form, json_schema, load_config
from aimux.config.auth import Auth, SignedTokens
from aimux.config.cors import Cors
from aimux.config.database import Database
from aimux.config.environment import variable
from aimux.config.ledger import Ledger, MetricsOptions, Price
from aimux.config.limits import Allowances, GroupAllowances, Limits, UserAllowances
from aimux.config.notices import Notices, Webhook
from aimux.config.people import Admin, Group, User
from aimux.config.routes import ModelTarget
from aimux.config.tls import TLS, SelfSigned
from aimux.config.tokens import SAMPLE_TOKENS
from aimux.plugin import AccountSettings, ProviderSettings
from aimux.plugin.loader import load_plugins

ROOT = Path(__file__).parents[2]
DOCS = (ROOT / "docs/configuration.md").read_text()
EXAMPLE = (ROOT / "config.example.yaml").read_text()
PROVIDERS = load_plugins().providers
NOTHING: tuple[object, ...] = (None, (), {})


class Documented(NamedTuple):
    text: str
    default: str | None
    variable: str
    examples: list[str]


def documented() -> dict[str, Documented]:
    """The sections whose heading is a field, by the field's path."""
    found = {}
    for part in re.split(r"^#{2,3} ", DOCS, flags=re.MULTILINE)[1:]:
        if not (heading := re.match(r"`([^`]+)`\n", part)):
            continue
        [meta] = re.findall(r"^(.* · (?:default|required).*|Section)$", part, re.MULTILINE)
        default = re.search(r"default `([^`]*)`", meta)
        names = re.findall(r"`(AIMUX_\w+)`", meta)
        prose = part[heading.end() :].partition(f"\n{meta}\n")[0]
        examples = re.findall(r"```yaml\n(.*?)```", part, re.DOTALL)
        found[heading[1]] = Documented(
            " ".join(prose.split()), default and default[1], names[0] if names else "", examples
        )
    return found


def fields(model: type[BaseModel], path: str) -> Iterator[tuple[str, FieldInfo]]:
    for name, field in model.model_fields.items():
        yield f"{path}{name}", field


def all_fields() -> dict[str, FieldInfo]:
    sections: list[tuple[type[BaseModel], str]] = [
        (Config, ""),
        (User, "users[]."),
        (Group, "groups.NAME."),
        (TLS, "tls."),
        (SelfSigned, "tls.self_signed."),
        (Admin, "admin."),
        (Cors, "cors."),
        (Database, "database."),
        (Auth, "auth."),
        (SignedTokens, "auth.jwt."),
        (Limits, "limits."),
        (Notices, "notices."),
        (Webhook, "notices.webhooks[]."),
        (Ledger, "ledger."),
        (MetricsOptions, "metrics."),
        (Price, "prices.PATTERN."),
        (Allowances, "limits.default."),
        (ModelTarget, "models.PATTERN[]."),
        (ProviderSettings, "providers.NAME."),
        (AccountSettings, "providers.NAME.accounts.ACCOUNT."),
    ]
    found = {path: field for model, prefix in sections for path, field in fields(model, prefix)}
    # What users and groups have besides what the default has.
    found["limits.users.NAME.weight"] = UserAllowances.model_fields["weight"]
    found["limits.groups.NAME.each"] = GroupAllowances.model_fields["each"]
    return found


FIELDS = all_fields()
DOCUMENTED = documented()


def test_exactly_the_real_fields_are_documented() -> None:
    assert set(DOCUMENTED) == set(FIELDS)


@pytest.mark.parametrize("path", FIELDS)
def test_a_field_is_documented_truly(path: str) -> None:
    field, section = FIELDS[path], DOCUMENTED[path]
    assert field.description
    assert section.text.startswith(field.description), f"the section begins with: {field.description}"

    if section.variable:
        own = re.sub(r"\[\]\..*", "", path) if "[]" in path else path
        own = re.sub(r"\.PATTERN.*", "", own)  # no variable's name can hold one
        assert section.variable == variable(tuple(own.split(".")))
    else:
        no_value = {"tls", "admin", "database", "limits", "limits.default", "limits.groups.NAME.each"}
        no_value |= {"ledger", "metrics", "cors", "notices", "auth", "auth.jwt"}
        assert path in no_value, "these have no value of their own, only the fields in them"

    default = field.get_default(call_default_factory=True)
    if field.is_required() or default in NOTHING or isinstance(default, BaseModel) or path.endswith("base_url"):
        assert section.default is None
    else:
        assert section.default is not None
        assert _same(path, yaml.safe_load(section.default), default)


def _same(path: str, written: Any, default: Any) -> bool:
    """Whether what is written means this default."""
    if path.startswith("ledger."):
        return bool(getattr(Ledger.model_validate({path[7:]: written}), path[7:]) == default)
    if path.startswith("auth.jwt."):
        jwt = SignedTokens.model_validate({"key_file": "/k", path[9:]: written})
        return bool(getattr(jwt, path[9:]) == default)
    if "." in path:
        return bool(written == default)
    config = Config.model_validate({path: written})
    if path == "state_dir":
        return bool(str(written) == str(default))
    return bool(getattr(config, path) == default)


@pytest.mark.parametrize(("path", "example"), [(path, text) for path, s in DOCUMENTED.items() for text in s.examples])
def test_an_example_shows_its_field(path: str, example: str) -> None:
    assert re.search(rf"\b{path.rpartition('.')[2]}\b", example)


@pytest.mark.parametrize("example", re.findall(r"```yaml\n(.*?)```", DOCS, re.DOTALL))
def test_every_piece_of_yaml_is_valid(example: str, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(example)
    check_form(file, environ={"HOME": "/h"}, providers=PROVIDERS)


def test_every_field_has_an_example() -> None:
    assert [path for path, section in DOCUMENTED.items() if not section.examples] == []


@pytest.mark.parametrize("name", ["claude", "chatgpt", "compatible"])
def test_the_settings_of_our_providers_are_documented(name: str) -> None:
    table = DOCS.partition(f"\n### {name}\n")[2].partition("\n#")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", table, re.MULTILINE))
    expected = {}
    for field_name, field in PROVIDERS[name].Settings.model_fields.items():
        common = ProviderSettings.model_fields.get(field_name)
        if common is None or common.get_default(call_default_factory=True) != field.get_default(
            call_default_factory=True
        ):
            default = field.get_default(call_default_factory=True)
            shown = ", ".join(default) if isinstance(default, tuple) else default
            written = "required" if field.is_required() else f"`{shown}`" if shown else "none"
            expected[field_name] = f"{written} | {field.description}"
    assert rows == expected


# --- config.example.yaml ---------------------------------------------------------------------------------------------


def uncommented() -> str:
    """The example with every setting that is commented out put to work: those are `#name`, where prose is `# Text`."""
    return re.sub(r"^( *)#(?! ?[A-Z(`]| [a-z])", r"\1", EXAMPLE, flags=re.MULTILINE)


@pytest.fixture
def example(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(uncommented())
    return path


def test_the_example_as_it_is_has_but_two_problems() -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(ROOT / "config.example.yaml", environ={"HOME": "/h"}, providers=PROVIDERS)
    assert [problem.where for problem in caught.value.problems] == ["users[0].token", "users[1].token"]
    assert all("everybody knows" in problem.message for problem in caught.value.problems)
    assert {user["token"] for user in yaml.safe_load(EXAMPLE)["users"]} == SAMPLE_TOKENS


def test_the_example_is_the_default_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(re.sub(r"^users:\n(  .*\n)+", "", EXAMPLE, flags=re.MULTILINE))
    config = load_config(path, environ={"HOME": "/h"}, providers=PROVIDERS)
    assert config == load_config(None, environ={"HOME": "/h"}, providers=PROVIDERS)


def test_everything_in_the_example_is_valid(example: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        check_form(example, environ={"HOME": "/h"}, providers=PROVIDERS)
    assert [problem.where for problem in caught.value.problems] == ["users[0].token", "users[1].token"]


@pytest.mark.parametrize("path", FIELDS)
def test_the_example_shows_every_field_at_its_default(path: str) -> None:
    data = yaml.safe_load(uncommented())
    values: list[Any] = [data]
    for part in path.replace("[]", ".[]").split("."):
        if part == "[]":
            values = [item for value in values for item in (value if isinstance(value, list) else [value])]
        elif part in {"NAME", "ACCOUNT", "PATTERN"}:
            values = [item for value in values for item in value.values() if item is not None]
        else:
            values = [value[part] for value in values if part in value]
    default = FIELDS[path].get_default(call_default_factory=True)
    alternatives = {"admin.token", "admin.token_sha256", "auth.jwt.jwks_url", "auth.jwt.key_file"}
    assert values or path in alternatives, f"{path} is not in config.example.yaml"
    if FIELDS[path].is_required() or default in NOTHING or isinstance(default, BaseModel) or path.endswith("base_url"):
        return
    assert any(_same(path, value, default) for value in values)


def test_the_example_describes_as_the_models_do() -> None:
    prose = " ".join(line.strip(" #") for line in EXAMPLE.splitlines())
    elsewhere = {"token", "token_file", "token_sha256", "name", "provider", "account", "model", "priority", "weight"}
    for path, field in FIELDS.items():
        if path.rpartition(".")[2] in elsewhere or "ACCOUNT" in path or path == "tls":
            continue
        assert field.description is not None
        first = re.split(r"(?<=[.:]) |: ", field.description)[0].rstrip(".:")
        assert first in prose, f"{path}: {first}"


# --- the JSON Schema -------------------------------------------------------------------------------------------------


def test_the_schema_accepts_what_we_accept() -> None:
    schema = json_schema(PROVIDERS)
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    validator.validate(yaml.safe_load(EXAMPLE))
    validator.validate(yaml.safe_load(uncommented()))
    for section in DOCUMENTED.values():
        for text in section.examples:
            validator.validate(yaml.safe_load(text))
    for text in (
        "allow_anonymous: ${env:X}",
        "tls: {enabled: '${env:X}'}",
        "drain_timeout: 5",
        "log_level: ${file:/x}",
    ):
        validator.validate(yaml.safe_load(text))


@pytest.mark.parametrize(
    "text",
    [
        "listn: x",
        "allow_anonymous: maybe",
        "request_timeout: 1x",
        "log_level: loud",
        "providers: [gemini]",
        "providers: {claude: {base_ur: x}}",
        "providers: {mine: {}}",
        "users: [{token: x}]",
        "users: [{name: a, token: short}]",
        "tls: {enable: true}",
        "limits: {default: {tokens_per_hour: 1}}",
        "limits: {default: {overage: never}}",
    ],
)
def test_the_schema_refuses_what_we_refuse(text: str) -> None:
    assert list(Draft202012Validator(json_schema(PROVIDERS)).iter_errors(yaml.safe_load(text)))


def test_the_schema_describes_every_field() -> None:
    schema = json_schema(PROVIDERS)
    bare = [name for name, field in schema["properties"].items() if not field.get("description")]
    bare += [
        f"{title}.{name}"
        for title, section in schema["$defs"].items()
        for name, field in section.get("properties", {}).items()
        if not field.get("description")
    ]
    assert bare == []
    assert str(Path.home()) not in json.dumps(schema)
