from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimux.plugin import CredentialError, HttpAnswer, HttpUnavailable, LoginError, RefreshRejected, RefreshUnavailable
from aimux.plugin.oauth import (
    device_code,
    device_tokens,
    dump_like,
    error_code,
    header_safe,
    jwt_claims,
    lifetime,
    read_time,
    redeem,
    renew,
    write_time,
)
from aimux.testing import ScriptedHttp, reply
from aimux.testing.base import json_values

URL = "https://auth.example/token"
NOTATIONS: list[Any] = [1, 1.5, "1700000000", 1_700_000_000_000, "1700000000000", "2023-11-14T22:13:20Z"]


@given(st.integers(200_000_000, 4_000_000_000), st.sampled_from(NOTATIONS))
def test_a_time_is_written_as_it_was_found(moment: int, like: Any) -> None:
    written = write_time(moment, like)
    assert read_time(written) == moment
    assert isinstance(written, str) == isinstance(like, str)


@given(json_values | st.text() | st.floats())
def test_whatever_stands_for_a_time(value: Any) -> None:
    moment = read_time(value)
    assert moment is None or isinstance(moment, float)
    if moment is not None:
        write_time(1_700_000_000, value)


@pytest.mark.parametrize(
    ("value", "moment"),
    [
        ("2023-11-14T22:13:20.123456789Z", 1_700_000_000.123456),
        ("2023-11-14T23:13:20+01:00", 1_700_000_000.0),
        ("2023-11-14T22:13:20", 1_700_000_000.0),
        (True, None),
        ("soon", None),
        (float("nan"), None),
        (10**400, None),
        (None, None),
    ],
)
def test_times(value: Any, moment: float | None) -> None:
    assert read_time(value) == moment


@given(json_values)
def test_a_lifetime_is_sensible_or_the_default(value: Any) -> None:
    assert 0 < lifetime({"expires_in": value}, 3600) < 10 * 365 * 86400
    assert lifetime({"expires_in": "28800"}, 1) == lifetime({"expires_in": 28800}, 1) == 28800


@given(st.text() | st.binary().map(lambda raw: f"a.{base64.urlsafe_b64encode(raw).decode()}.b"))
def test_any_text_may_be_taken_for_a_jwt(token: str) -> None:
    assert isinstance(jwt_claims(token), dict)


@given(st.dictionaries(st.text(max_size=5), json_values, max_size=3))
def test_claims_are_read_with_or_without_padding(claims: dict[str, Any]) -> None:
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode()
    assert jwt_claims(f"h.{payload}.s") == jwt_claims(f"h.{payload.rstrip('=')}.s") == claims


@pytest.mark.parametrize("secret", ["", "  ", "a b", "a\nb", "ü", "a\x00", "x" * 20_000])
def test_what_cannot_stand_in_a_header_is_refused_unquoted(secret: str) -> None:
    with pytest.raises(CredentialError) as caught:
        header_safe(secret)
    assert not secret.strip() or secret not in str(caught.value)


def test_white_space_around_a_secret_is_dropped() -> None:
    assert header_safe(" token\n") == "token"


@given(json_values, st.booleans())
def test_a_document_stays_what_it_is(document: Any, indented: bool) -> None:
    raw = json.dumps(document, indent=2 if indented else None).encode()
    assert json.loads(dump_like(document, raw)) == document


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"error": "invalid_grant"}, "invalid_grant"),
        ({"error": {"code": "refresh_token_reused", "type": "invalid_request_error"}}, "refresh_token_reused"),
        ({"error": {"code": None, "type": "invalid_request_error"}}, "invalid_request_error"),
        ({"code": "denied", "error": {"message": "…"}}, "denied"),
        ({"error": "sk-ant-ort01-a-token"}, ""),
        ({"error": "Long words\nwith lines"}, ""),
        ([], ""),
    ],
)
def test_only_what_looks_like_a_code_is_told(body: Any, code: str) -> None:
    assert error_code(reply(body, status=400)) == code


def test_failures_of_a_renewal_are_sorted() -> None:
    def renewing(step: Any, **options: Any) -> Any:
        return asyncio.run(renew(ScriptedHttp(step), URL, instance="acme-2", json={"refresh_token": "r"}, **options))

    with pytest.raises(RefreshRejected) as refused:
        renewing(reply({"error": "invalid_grant"}, status=400))
    assert refused.value.remedy == "log in again: aimux login acme-2"
    with pytest.raises(RefreshUnavailable) as moved:
        renewing(reply(status=404, body=b""), setting="renew_url")
    assert "providers.acme-2.renew_url" in moved.value.remedy
    with pytest.raises(RefreshUnavailable, match="no answer"):
        renewing(HttpUnavailable("auth.example: no answer"))
    with pytest.raises(RefreshRejected):
        renewing(reply({"detail": "no"}, status=401), permanent_statuses=frozenset({401}))
    with pytest.raises(RefreshUnavailable, match="not in its own words") as between:
        renewing(reply(status=401, body=b"<html>"), permanent_statuses=frozenset({401}))
    assert "Cloudflare" in between.value.remedy
    assert renewing(reply({"access_token": "new"}))["access_token"] == "new"
    with pytest.raises(RefreshRejected, match=r"answered 403 \(access_denied: on_hold\)") as held:
        said = {"error": "access_denied", "error_description": "on_hold"}
        renewing(reply(said, status=403), remedies={"on_hold": "ask them"})
    assert held.value.remedy == "ask them"
    with pytest.raises(RefreshRejected, match=r"\(invalid_grant\)"):
        renewing(reply({"error": "invalid_grant", "error_description": "Refresh token sk-1 expired"}, status=400))


def test_failures_of_an_exchange_are_for_a_person() -> None:
    def exchanging(step: Any) -> Any:
        return asyncio.run(redeem(ScriptedHttp(step), URL, instance="acme", form={"code": "c"}))

    for step, says in (
        (reply({"error": "invalid_grant"}, status=400), "start again"),
        (reply(status=404, body=b""), "providers.acme.token_url"),
        (reply(status=503, body=b""), "503"),
        (
            reply(status=403, body=b"<title>Just a moment...</title>"),
            "403, and not in its own words: something in betw",
        ),
        (reply({}), "no access token"),
        (HttpUnavailable("auth.example: no answer"), "no answer"),
    ):
        with pytest.raises(LoginError, match=says):
            exchanging(step)
    assert exchanging(reply({"access_token": "new"})) == {"access_token": "new"}


SCOPED = {"grant_type": "refresh_token", "scope": "user:inference"}


@pytest.mark.parametrize("kind", ["json", "form"])
async def test_a_scope_that_is_refused_is_left_out_once(kind: str) -> None:
    refusal = reply({"error": "invalid_scope"}, status=400)
    http = ScriptedHttp(refusal, reply({"access_token": "a"}))
    scoped: dict[str, Any] = {kind: SCOPED}
    assert (await renew(http, URL, instance="demo", **scoped))["access_token"] == "a"
    first, second = (getattr(sent, kind) for sent in http.sent)
    assert first == SCOPED
    assert second == {"grant_type": "refresh_token"}
    refusing = ScriptedHttp(
        reply({"error": "invalid_scope"}, status=400), reply({"error": "invalid_scope"}, status=400)
    )
    with pytest.raises(RefreshUnavailable):
        await renew(refusing, URL, instance="demo", **scoped)
    unscoped: dict[str, Any] = {kind: {"grant_type": "refresh_token"}}
    with pytest.raises(RefreshUnavailable):
        await renew(ScriptedHttp(refusal), URL, instance="demo", **unscoped)


@pytest.mark.parametrize(
    ("headers", "told"), [({"Retry-After": "120"}, 120.0), ({}, None), ({"retry-after": "x"}, None)]
)
async def test_how_long_the_server_asks_to_wait_is_handed_on(headers: dict[str, str], told: float | None) -> None:
    with pytest.raises(RefreshUnavailable) as caught:
        await renew(ScriptedHttp(HttpAnswer(429, headers, b"{}")), URL, instance="demo", json={})
    assert caught.value.retry_after == told


async def test_an_access_token_that_no_header_takes_is_none() -> None:
    """Every request with it would be refused. The refresh token beside it is alive."""
    http = ScriptedHttp(reply({"access_token": "a" * 900_000, "refresh_token": "rt-new"}))
    with pytest.raises(RefreshUnavailable, match="an access token that can't be in a header") as caught:
        await renew(http, URL, instance="demo", json={"refresh_token": "rt"})
    assert caught.value.refresh_token is not None


def test_an_answer_of_very_many_values_is_not_parsed() -> None:
    """A MiB of them took 0.2 s of the event loop, each time that it was asked for."""
    few, many = ({"access_token": "a", "more": [[]] * count} for count in (1_000, 200_000))
    assert reply(few).json() == few
    assert reply(many).json() == {}


@pytest.mark.parametrize(("given", "kept"), [("rt-new", "rt-new"), ("", None), ("of two words", None), (7, None)])
async def test_a_refresh_token_without_an_access_token_is_passed_on(given: Any, kept: str | None) -> None:
    http = ScriptedHttp(reply({"refresh_token": given}))
    with pytest.raises(RefreshUnavailable) as caught:
        await renew(http, URL, instance="demo", json={"refresh_token": "rt"})
    token = caught.value.refresh_token
    assert (token.get_secret_value() if token is not None else None) == kept
    assert "rt-new" not in repr(vars(caught.value))


async def test_a_slow_renewal_is_waited_for_as_long_as_a_stop_allows() -> None:
    """What it gives is lost otherwise, and the token that was sent may be dead."""
    waits: list[float] = []

    class Slow(ScriptedHttp):
        async def request(self, *args: Any, timeout: float = 30.0, **named: Any) -> HttpAnswer:
            waits.append(timeout)
            return await super().request(*args, timeout=timeout, **named)

    await renew(Slow(reply({"access_token": "new"})), URL, instance="demo", json={})
    assert 45 < waits[0] < 60


FORM = {"client_id": "mine"}
STARTED = {"device_code": "secret-9", "user_code": "ABCD", "verification_uri": "https://v.example/d", "expires_in": 300}


def start(answer: HttpAnswer | Exception) -> Any:
    return asyncio.run(device_code(ScriptedHttp(answer), URL, instance="acme", form=FORM))


def poll(answer: HttpAnswer | Exception) -> Any:
    return asyncio.run(device_tokens(ScriptedHttp(answer), URL, "secret-9", instance="acme", form=FORM))


def test_a_device_login_begins_with_a_code_for_a_person() -> None:
    device = start(reply(STARTED))
    assert (device.verification_url, device.user_code) == ("https://v.example/d", "ABCD")
    assert (device.interval, device.expires_in, device.secret) == (5.0, 300, "secret-9")
    whole = STARTED | {"verification_uri_complete": "https://v.example/d?c=ABCD", "interval": "7", "expires_in": "soon"}
    device = start(reply(whole))
    assert (device.verification_url, device.interval, device.expires_in) == ("https://v.example/d?c=ABCD", 7.0, 600)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (HttpUnavailable("auth.example: no answer"), "no answer"),
        (reply({}, status=404), "`providers.acme.device_url` answered 404, and gave no code: set"),
        (reply({"error": "invalid_client"}, status=400), "answered 400 (invalid_client)"),
        (reply(STARTED | {"user_code": 5}), "gave no code"),
        (reply(status=200, body=b"<html>secret-9</html>"), "gave no code"),
    ],
)
def test_a_device_login_that_does_not_begin_says_why(answer: HttpAnswer | Exception, words: str) -> None:
    with pytest.raises(LoginError) as caught:
        start(answer)
    assert words in str(caught.value)
    assert "secret-9" not in str(caught.value)


@pytest.mark.parametrize(
    "answer",
    [
        reply({"error": "authorization_pending"}, status=400),
        reply({"error": "slow_down"}, status=400),
        reply({}, status=429),
        reply(status=503, body=b"<html>"),
        HttpUnavailable("auth.example: no answer"),
    ],
)
def test_a_device_login_waits_for_its_person(answer: HttpAnswer | Exception) -> None:
    assert poll(answer) is None


def test_a_device_login_ends_with_tokens_or_says_why_not() -> None:
    assert poll(reply({"access_token": "a", "refresh_token": "r"})) == {"access_token": "a", "refresh_token": "r"}
    for code, words in {
        "access_denied": "refused",
        "expired_token": "in time",
        "invalid_client": "answered 400",
    }.items():
        with pytest.raises(LoginError, match=words):
            poll(reply({"error": code}, status=400))


async def test_a_device_login_sends_what_the_standard_wants() -> None:
    http = ScriptedHttp(reply({"access_token": "a"}))
    await device_tokens(http, URL, "secret-9", instance="acme", form=FORM)
    (sent,) = http.sent
    grant = "urn:ietf:params:oauth:grant-type:device_code"
    assert sent.form == {"grant_type": grant, "device_code": "secret-9", "client_id": "mine"}
