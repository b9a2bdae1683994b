"""Secrets stay out of whatever is shown or said."""

from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimux.config import ConfigError, load_config, masked, secrets_in
from tests.config.conftest import PROVIDERS, SECRET, Load, Problems


@pytest.mark.parametrize(
    "text",
    [
        f"users: [{{name: alice, token: {SECRET}}}]",
        f"admin: {{token: {SECRET}}}",
        f"providers: {{claude: {{api_key: {SECRET}, headers: {{x: {SECRET}}}}}}}",
    ],
)
def test_secrets_are_in_no_repr_and_no_print(load: Load, text: str) -> None:
    config = load(text)
    shown = (
        repr(config) + str(config) + json.dumps(masked(config)) + config.model_dump_json() + repr(config.model_dump())
    )
    assert SECRET not in shown
    assert hashlib.sha256(SECRET.encode()).hexdigest() not in shown
    assert "********" in json.dumps(masked(config))


@given(
    place=st.sampled_from(
        [
            "users: [{{name: a, token: {0}, token_file: /x}}]",
            "users: [{{name: a, token: {0} }}, {{name: b, token: {0} }}]",
            "users: [{{name: a, token_sha256: {0}}}]",
            "users: {{alice: {0}}}",
            "users: {0}",
            "admin: {0}",
            "providers: {{claude: {{api_key: [{0}]}}}}",
            "providers: {{claude: {{password: bad{0}}}}}",
            "providers: {{claude: {{headers: {{a: [{0}]}}}}}}",
            "providers: {{claude: {0}}}",
            "tls: {{enabled: {0}}}",
            "models: {0}",
            "mounts: {0}",
            "log_level: {0}",
        ]
    ),
    form=st.sampled_from(["{0}", "'{0}'", "*{0}", "&{0} 1", "!{0} x", "${{env:S}}", "${{file:{0}}}x{0}", "[{0}"]),
)
def test_no_message_repeats_a_value(tmp_path_factory: pytest.TempPathFactory, place: str, form: str) -> None:
    path = tmp_path_factory.getbasetemp() / "secret.yaml"
    path.write_text(place.format(form.format(SECRET) if "file:" not in form else f"${{env:S}}{SECRET}"))
    try:
        config = load_config(path, environ={"HOME": "/h", "S": SECRET}, providers=PROVIDERS)
    except ConfigError as error:
        assert SECRET not in str(error) + repr(error) + repr(error.problems)
        assert error.__cause__ is None
    else:
        assert SECRET not in repr(config)


def test_a_secret_in_the_wrong_place_is_not_repeated(problems: Problems) -> None:
    for text in (
        "listen: ${env:S}",
        "request_timeout: ${env:S}",
        "providers: ['${env:S}']",
        "mounts: {/a: '${env:S}'}",
    ):
        for problem in problems(text, S=SECRET):
            assert SECRET not in str(problem)


def test_a_validator_that_quotes_all_settings_quotes_no_secret(problems: Problems) -> None:
    (problem,) = problems(
        f"providers: {{claude: {{password: '{SECRET}', api_key: other-{SECRET}, headers: {{a: b}}}}}}"
    )
    assert "one of them is enough" in str(problem)
    assert SECRET not in str(problem)


def test_every_secret_of_a_configuration_is_known(load: Load) -> None:
    key = "0123456789abcdef" * 4
    config = load(
        f"database: {{url: 'postgresql://u:pass%2Fword@h/n', encryption_key: '{key}'}}\n"
        "auth: {jwt: {secret: 'a-secret-that-signs-tokens-0123456789'}}\n"
        "notices: {webhooks: [{url: 'https://h/hook', secret: signs-what-is-sent}], apprise: ['slack://a/b/c']}\n"
        f"providers: {{claude: {{api_key: {SECRET}, headers: {{x-h: header-secret}}}}}}\n"
    )
    assert {
        "pass/word",
        key,
        "a-secret-that-signs-tokens-0123456789",
        "https://h/hook",
        "signs-what-is-sent",
        "slack://a/b/c",
        SECRET,
        "header-secret",
    } <= set(secrets_in(config))
    open_url = load(f"database: {{url: 'postgresql://u@h/n', encryption_key: '{key}'}}\n")
    assert not any("postgresql" in secret for secret in secrets_in(open_url)), "it may be named: it holds no secret"
