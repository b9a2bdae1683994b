"""What is cut out of a log line, and what stays readable."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimux.plugin import CredentialError, RefreshRejected, RequestRefused
from aimux.redaction import holding, mask, masking, redact

TAIL = "Zq7" * 12


@pytest.mark.parametrize(
    "text",
    [
        f"upstream said: bad key sk-ant-api03-{TAIL}",
        f"sk-ant-oat01-{TAIL}",
        f"sk-ant-ort01-{TAIL}",
        f"sk-proj-{TAIL}",
        f"Authorization: Bearer {TAIL}",
        f"authorization: bearer {TAIL}",
        f"{{'Authorization': 'Bearer {TAIL}'}}",
        f'{{"refresh_token": "{TAIL}"}}',
        f"grant_type=refresh_token&refresh_token={TAIL}&client_id=x",
        f"x-api-key: {TAIL}",
        f"rt_{TAIL}",
        f"eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.{TAIL}",
        f"GET /callback?code={TAIL}&state=x",
        f"code_verifier={TAIL}",
        f"opaque {TAIL * 2}",
    ],
)
def test_a_secret_keeps_at_most_eight_characters(text: str) -> None:
    cut = redact(text)
    assert "…" in cut
    assert TAIL[:9] not in cut


@pytest.mark.parametrize(
    "text",
    [
        "users[0].token: must have at least 16 characters",
        "the account claude/default was parked: refresh_token_reused",
        "request req_011CSHoEeqs5C35K2UUqR7Fy took 3 s",
        "session 0198c2a4-7d2e-7c3f-9e52-0d1c6a3b2f10 moved to claude/team-2",
        "fingerprint 3f786850e387550fdab836ed7e6dc881de23001b3f786850e387550fdab836ed",
        "reading /home/someone/.aimux/claude/Team-2026-Account-With-A-Very-Long-Name-Indeed/.credentials.json",
        "task-force risk-assessment basic authentication is not offered",
        "a token that is fine",
    ],
)
def test_ordinary_text_stays(text: str) -> None:
    assert redact(text) == text


@given(st.text(alphabet=st.characters(codec="ascii", categories=("L", "N")), min_size=20, max_size=200))
def test_no_bearer_token_survives_in_any_form(token: str) -> None:
    for text in (f"Bearer {token}", f"x-api-key={token}", f'"access_token": "{token}"', f"sk-{token}"):
        assert token[:9] not in redact(text).replace(token[:8] + "…", "")


FORMS = [
    b"access_token=%s\nkind=login\n",
    b"access_token: '%s'",
    b'{"access_token":"%s","kind":"login"}',
    b'{\n  "tokens": {\n    "access_token": "%s"\n  }\n}',
    b"[login]\naccess_token = %s\n",
]


@pytest.mark.parametrize(
    ("raw", "secret"),
    [
        *((form, secret) for form in FORMS for secret in ("correct-horse-battery", "correct horse battery")),
        *((form, "Y29ycmVjdCBob3JzZQ==") for form in (*FORMS, b"%s", b"%s\n")),
    ],
)
def test_an_error_quotes_nothing_of_the_file_that_it_is_about(raw: bytes, secret: str) -> None:
    file = raw % secret.encode()
    for words in (str(file), f"no access_token in {file.decode()}", f"{secret} is odd"):
        error = RefreshRejected(words, remedy=f"replace {secret}")
        with pytest.raises(RefreshRejected) as raised, masking(file):
            raise error
        assert secret not in f"{raised.value} {error.reason} {error.remedy}"
    with pytest.raises(CredentialError, match=r"^there is no access_token in it$"), masking(file):
        raise CredentialError("there is no access_token in it")


def test_what_is_held_is_masked_by_its_value_for_as_long_as_it_is() -> None:
    with holding(lambda: ["correct horse", "short"]), pytest.raises(RequestRefused) as raised, masking():
        raise RequestRefused("correct horse may not, short may")
    assert raised.value.message == str(raised.value) == "correc… may not, short may"
    assert mask("correct horse") == "correct horse"
