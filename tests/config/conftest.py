from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field, SecretStr, field_validator, model_validator

from aimux.config import Config, ConfigError, Problem, load_config
from aimux.plugin import HttpUrl, Provider, ProviderSettings


class LabSettings(ProviderSettings):
    base_url: HttpUrl = Field(default="https://lab.example", description="Where requests go.")
    scopes: tuple[str, ...] = Field(default=("read",), description="What a login asks for.")
    password: SecretStr | None = Field(default=None, description="A secret that a careless validator repeats.")

    @field_validator("password", mode="before")
    @classmethod
    def _careless(cls, value: object) -> object:
        if isinstance(value, str) and "bad" in value:
            raise ValueError(f"the password {value!r} is bad")
        return value

    @model_validator(mode="before")
    @classmethod
    def _more_careless(cls, value: Any) -> Any:
        if isinstance(value, dict) and "password" in value and "api_key" in value:
            raise ValueError(f"one of them is enough: {value}")
        return value


class Claude(Provider):
    name = "claude"
    wire_format = "anthropic"
    Settings = LabSettings


class ChatGPT(Provider):
    name = "chatgpt"
    wire_format = "openai"


PROVIDERS: Mapping[str, type[Provider]] = {"claude": Claude, "chatgpt": ChatGPT}

TOKEN = "a-token-of-some-length"
ALICE = f"users: [{{name: alice, token: {TOKEN}}}]\n"
SECRET = "zq9-Secret-that-nobody-may-see"


@pytest.fixture
def providers() -> Mapping[str, type[Provider]]:
    return PROVIDERS


Load = Callable[..., Config]
Problems = Callable[..., list[Problem]]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """`load(text, AIMUX_LISTEN=…)`: the Config of a file with this text."""

    def load(text: str = "", *, name: str = "config.yaml", **environ: str) -> Config:
        path = tmp_path / name
        path.write_text(text)
        path.chmod(0o600)
        return load_config(path, environ={"HOME": "/home/me", **environ}, providers=PROVIDERS)

    return load


@pytest.fixture
def problems(load: Load) -> Problems:
    """The same for a file that can't be used: its problems."""

    def problems(text: str = "", **environ: str) -> list[Problem]:
        with pytest.raises(ConfigError) as caught:
            load(text, **environ)
        return list(caught.value.problems)

    return problems


def places(problems: list[Problem]) -> list[tuple[str, int | None]]:
    return [(problem.where, problem.line) for problem in problems]
