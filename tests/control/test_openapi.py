"""The OpenAPI document: that it is one, that docs/api.md says the same, and that the running server keeps to it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, assume, given, settings
from jsonschema import Draft202012Validator
from schemathesis import GenerationMode
from schemathesis.checks import CheckFunction, not_a_server_error

from aimux.control.api.api import OPERATIONS
from aimux.control.principal import Role
from aimux.plugin.parts import API
from tests.control.api_table import table
from tests.control.conformance import DOCUMENT
from tests.control.conftest import Aimux, put
from tests.control.live import Live, running

ROOT = Path(__file__).parents[2]


async def test_the_server_hands_out_this_document(aimux: Aimux) -> None:
    status, headers, served = await aimux.send("GET", "/openapi.json")
    assert (status, headers["content-type"]) == (200, "application/json")
    assert served == DOCUMENT
    assert served["openapi"] == "3.1.0"


def test_every_schema_is_one_and_every_field_is_told() -> None:
    for name, schema in DOCUMENT["components"]["schemas"].items():
        Draft202012Validator.check_schema(schema)
        assert schema["description"], name
    for path, operations in DOCUMENT["paths"].items():
        for method, operation in operations.items():
            assert operation["summary"], (method, path)
            for parameter in operation["parameters"]:
                assert parameter["schema"], (method, path, parameter["name"])
                assert parameter["description"], (method, path, parameter["name"])


def test_operations_have_names_of_their_own() -> None:
    names = [operation.name for operation in OPERATIONS]
    assert len(set(names)) == len(names)


def test_what_needs_no_key_has_a_secret_of_its_own() -> None:
    """A login's state, and an invitation's code."""
    assert {operation.path for operation in OPERATIONS if operation.role is None} == {
        "/oauth/{provider}/callback",
        "/invitations/look",
        "/invitations/accept",
    }


def test_secrets_go_in_and_never_out() -> None:
    """A field that holds a secret is marked so, and no answer's schema has one."""
    schemas = DOCUMENT["components"]["schemas"]
    secret = {name for name, schema in schemas.items() if "password" in str(schema.get("properties"))}
    assert secret == {"NewAccount", "Import"}
    for operation in OPERATIONS:
        answered = DOCUMENT["paths"][API + operation.path][operation.method.lower()]["responses"]
        assert not any(f"schemas/{name}'" in str(answered) for name in secret)


def test_the_documentation_lists_the_operations() -> None:
    text = (ROOT / "docs" / "api.md").read_text()
    listed = text.partition("<!-- made by: python -m tests.control.api_table -->")[2].partition("<!-- end -->")[0]
    assert listed.strip() == table()


TOKENS = {role: f"a-{role}s-own-token-0123456789" for role in Role}

# --- schemathesis ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    users = [{"name": role, "token": TOKENS[role], "role": role} for role in TOKENS]
    with running(tmp_path_factory.mktemp("live"), listen="127.0.0.1:0", users=users, self_service=True) as served:
        # It sends hundreds of requests without a key on purpose, and 429 would be all that it gets.
        served.app.gateway.setup.authentication.guesses.look = lambda address, now: None  # type: ignore[method-assign]
        yield served


def _schema(live: Live, token: str) -> Any:
    """The document as schemathesis has it, calling with this key or token."""
    schema = schemathesis.openapi.from_dict(DOCUMENT)
    schema.config.update(base_url=live.app.addresses[0], request_timeout=60)  # a plan starts a program, and CI is busy
    rejection = schema.config.checks.negative_data_rejection
    rejection.expected_statuses = [*rejection.expected_statuses, "413"]  # some of what it makes is too large to be read

    class Bearer:
        def get(self, _case: object, _context: object) -> str:
            return f"Bearer {token}"

        def set(self, case: schemathesis.Case[Any], data: str, _context: object) -> None:
            case.headers["Authorization"] = data

    schema.auth()(Bearer)
    return schema


@pytest.mark.slow
@pytest.mark.parametrize("role", [Role.MEMBER, Role.VIEWER])
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_what_a_role_may_not_do_is_refused_whatever_is_sent(live: Live, operation: Any, role: Role) -> None:
    schema = _schema(live, TOKENS[role])

    @settings(
        max_examples=5,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=schema[API + operation.path][operation.method].as_strategy(generation_mode=GenerationMode.POSITIVE))
    def check(case: schemathesis.Case[Any]) -> None:
        assume(len(str(case.as_transport_kwargs()["url"])) + len(str(case.query)) < 8000)
        _order(case)
        answer = case.call_and_validate()
        if operation.role is not None and not role.includes(operation.role):
            assert answer.status_code == 403
            assert answer.json()["type"] == "urn:aimux:role"

    check()


def _order(case: schemathesis.Case[Any]) -> None:
    """A schema can't say that a span does not end before it begins."""
    if "until" in (case.query or {}):
        case.query["since"] = "0001-01-01"


@pytest.mark.slow
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["good", "bad"])
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_whatever_is_sent_the_answer_is_a_documented_one(
    live: Live, operation: Any, mode: GenerationMode, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY"):  # nobody asks the internet for a list of prices
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    excluded: list[CheckFunction] = [not_a_server_error] if 502 in operation.errors else []
    schema = _schema(live, live.key)
    credential = (live.state_dir / "claude" / ".credentials.json").read_bytes()
    count = 0

    @settings(
        max_examples=15,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=schema[API + operation.path][operation.method].as_strategy(generation_mode=mode))
    def check(case: schemathesis.Case[Any]) -> None:
        nonlocal count
        assume(len(str(case.as_transport_kwargs()["url"])) + len(str(case.query)) < 8000)  # the head has a bound, too
        count += 1
        if count % 2 and mode is GenerationMode.POSITIVE and "name" in (case.path_parameters or {}):
            put(live.state_dir, "claude", credential)  # a name that is there, whatever was done to it before
            case.path_parameters |= {"provider": "claude", "name": "default"}
        if mode is GenerationMode.POSITIVE:
            _order(case)
        if mode is GenerationMode.POSITIVE and isinstance(case.body, dict) and "until" in case.body:
            # A schema can't say that a time has to be in the future.
            case.body["until"] = (datetime.now(UTC) + timedelta(days=1)).isoformat()
        if mode is GenerationMode.POSITIVE and isinstance(case.body, dict):
            # Nor that a pattern has its `*` at the end alone, or is a regular expression.
            models = case.body.get("models")
            if isinstance(models, dict):
                case.body["models"] = {f"{re.sub('[*/]', '', name)}*": each for name, each in models.items()}
        if mode is GenerationMode.POSITIVE and operation.name == "import_accounts" and isinstance(case.body, dict):
            case.body["provider"] = "nobody"  # nor that a text is a login
        if mode is GenerationMode.POSITIVE and operation.name == "set_limits" and isinstance(case.body, dict):
            # Nor that what is in a body depends on whose it is, as the path says.
            for name in {"user": ["each"], "group": [], "token": ["each", "weight"]}[case.path_parameters["kind"]]:
                case.body.pop(name, None)
        case.call_and_validate(excluded_checks=excluded)

    try:
        check()
    finally:
        put(live.state_dir, "claude", credential)
    assert count
