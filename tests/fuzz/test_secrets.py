"""Credential files, token endpoints' answers and tokens: read, or refused in words that hold nothing of them."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Coroutine
from typing import Any

from aimux.accounts.login import denial, read_answer
from aimux.plugin import (
    Credential,
    CredentialError,
    HttpAnswer,
    LoginError,
    Provider,
    RefreshError,
    RefreshRejected,
    RefreshUnavailable,
)
from aimux.plugin.oauth import error_code, jwt_claims, read_time, write_time
from aimux.testing import ScriptedHttp
from aimux_chatgpt.credentials import is_openai_jwt

from .harness import CORPUS, fuzz
from .test_answers import PROVIDERS

SECRET = "SECRETSECRET"
"""All secrets of the corpus repeat this; at most eight characters of one may be told."""


def answer(status: int, body: bytes) -> HttpAnswer:
    return HttpAnswer(status, {"content-type": "application/json"}, body)


def answering(status: int, body: bytes) -> ScriptedHttp:
    """Whatever is asked, as often as anybody may."""
    return ScriptedHttp(*[answer(status, body)] * 9)


def run(work: Coroutine[Any, Any, Any]) -> Any:
    """Nothing in it waits."""
    try:
        work.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("it waits")


def check_credential(credential: Credential) -> None:
    assert credential.kind in {"oauth", "api_key"}
    for header in (credential.secret, credential.account_id or "x"):
        assert header
        assert header.isascii()
        assert header.isprintable()
        assert not set(header) & set("\r\n\0")
    assert credential.expires_at is None or math.isfinite(credential.expires_at)
    assert SECRET not in repr(credential)
    for text in (credential.organization, credential.email, credential.plan, credential.refresh_token):
        assert text is None or isinstance(text, str)
    assert all(isinstance(scope, str) for scope in credential.scopes)


def parsed(provider: Provider, raw: bytes) -> Credential | None:
    try:
        credential = provider.parse_credential(raw)
    except CredentialError as error:
        assert str(error)
        assert SECRET not in str(error)
        assert error.__cause__ is None, "a cause would be logged with what it was about"
        return None
    check_credential(credential)
    return credential


_WORDS = (
    b"null",
    b"true",
    b"1e999",
    b"-1",
    b"9" * 30,
    b"[]",
    b"{}",
    b'""',
    b"\\u0000",
    b"\\ud800",
    b"\\r\\n",
    b"\xff",
    b"\xef\xbb\xbf",
    b'"access_token"',
    b'"api_key"',
    b'"tokens"',
    b'"claudeAiOauth"',
    b" ",
    b"\n",
)


@fuzz("credentials", *_WORDS)
def test_a_credential_file(data: bytes) -> None:
    for provider in PROVIDERS:
        parsed(provider, data)


@fuzz("credentials", *_WORDS)
def test_a_credential_file_is_renewed_or_stays(data: bytes) -> None:
    """A good answer merges into whatever can be read; no key that isn't the tokens' is lost."""
    for provider in PROVIDERS:
        credential = parsed(provider, data)
        if credential is None:
            continue
        body = (CORPUS / "oauth_answers" / ("openai" if provider.wire_format == "openai" else "anthropic")).read_bytes()
        try:
            fresh = run(provider.refresh(data, answering(200, body)))
        except RefreshRejected as error:
            assert not credential.renewable
            assert SECRET not in str(error) + error.remedy
            continue
        renewed = provider.parse_credential(fresh)
        check_credential(renewed)
        assert renewed.secret == json.loads(body)["access_token"]
        assert renewed.refresh_token == json.loads(body)["refresh_token"]
        assert not renewed.expires_within(60, time.time())
        assert json.loads(data).keys() <= json.loads(fresh).keys()


FILES = {
    "claude": (CORPUS / "credentials" / "claude").read_bytes(),
    "chatgpt": (CORPUS / "credentials" / "codex").read_bytes(),
}


@fuzz("oauth_answers", *_WORDS, b'"expires_in"', b'"refresh_token"', b'"error"', b"invalid_grant")
def test_an_answer_of_a_token_endpoint(data: bytes) -> None:
    """It renews, or says for good or for now that it doesn't; never does it cost the credential that was there."""
    for provider in PROVIDERS:
        if provider.instance not in FILES:
            continue
        raw = FILES[provider.instance]
        before = provider.parse_credential(raw)
        for status in (200, 201, 400, 401, 403, 404, 429, 500, 302):
            try:
                fresh = run(provider.refresh(raw, answering(status, data)))
            except (RefreshRejected, RefreshUnavailable) as error:
                assert SECRET not in f"{error} {error.remedy}"
                if isinstance(error, RefreshRejected):
                    assert status not in {302, 404}
                    assert error_code(answer(status, data)) or status in {400, 401, 403}, (
                        "only its own word ends a login"
                    )
            else:
                assert status == 200
                renewed = provider.parse_credential(fresh)
                check_credential(renewed)
                assert renewed.refresh_token, "a login that can be renewed stays one"
                assert renewed.account_id or not before.account_id


@fuzz("oauth_answers", *_WORDS, b'"interval"', b'"user_code"', b'"expires_at"', b'"authorization_code"')
def test_an_answer_during_a_login(data: bytes) -> None:
    for provider in PROVIDERS:
        for status in (200, 400, 403, 404, 500):
            http = answering(status, data)
            try:
                raw = run(
                    provider.exchange(http, code="c", state="s", verifier="v", redirect_uri="http://localhost/cb")
                )
            except (LoginError, CredentialError) as error:
                assert SECRET not in str(error)
            else:
                parsed(provider, raw)
            try:
                device = run(provider.device_start(http))
                raw = run(provider.device_poll(http, device))
            except (LoginError, CredentialError, RefreshError) as error:
                assert SECRET not in str(error)
            else:
                assert SECRET not in repr(device)
                if raw is not None:
                    parsed(provider, raw)


@fuzz("pasted", b"code=", b"&state=", b"error=", b"#", b"?", b"http://[", b"%ff", b"%00", b"\r\n", b";", b"=" * 50)
def test_what_a_person_pasted(data: bytes) -> None:
    """A code and a state, or words that repeat neither."""
    text = data.decode("utf-8", "replace")
    try:
        answer = read_answer(text)
    except LoginError as error:
        assert str(error)
        assert text.strip() not in str(error) or len(text.strip()) < 9
        return
    assert answer.code or answer.error
    assert denial(answer.error).isprintable()
    assert answer.code not in repr(answer) or len(answer.code) < 9


@fuzz("tokens", b".", b"e30", b"=", b"-", b"_", b"+", b"/", b"\0", b"\xff")
def test_a_token(data: bytes) -> None:
    """Whatever looks like a JWT, and whatever a client sends in a vendor's token's place."""
    token = data.decode("utf-8", "surrogateescape")
    assert isinstance(jwt_claims(token), dict)
    assert isinstance(is_openai_jwt(token), bool)
    for provider in PROVIDERS:
        advice = provider.vendor_token_advice(token)
        assert advice is None or (advice.isprintable() and (len(token) < 9 or token[:9] not in advice))


@fuzz("tokens", b"9" * 20, b"e", b".", b"-", b":", b"T", b"Z", b"+23:59", b"2026-11-21", b"0001-01-01", b"9999-12-31")
def test_a_time(data: bytes) -> None:
    moment = read_time(data.decode("utf-8", "surrogateescape"))
    assert moment is None or math.isfinite(moment)
    likes: list[object] = [data.decode("latin-1"), 1, 1.8e12, None, True, [], "2026-11-21T00:00:00Z"]
    for like in likes:
        assert read_time(write_time(1_800_000_000.0, like)) == 1_800_000_000.0


def test_the_loop_is_not_needed() -> None:
    """`run` would hide an await that never returns."""
    try:
        run(asyncio.sleep(0))
    except AssertionError:
        return
    raise AssertionError
