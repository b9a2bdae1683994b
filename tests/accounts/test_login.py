"""What a person brings back from a sign-in, in whatever form."""

from __future__ import annotations

import string
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimux.accounts.login import AuthorizationResponse, Logins, denial, from_query, page, read_answer
from aimux.plugin import DeviceCode, Http, LoginError, Provider, ProviderSettings
from aimux.testing import ScriptedHttp

TOKENS = st.text(string.ascii_letters + string.digits + "-_.~", min_size=1, max_size=200)
FORMS = (
    "{code}#{state}",
    "  {code}#{state} \n",
    "https://platform.example/callback?{query}",
    "http://localhost:1455/auth/callback?{query}#",
    "?{query}",
    "{query}",
)


@given(code=TOKENS, state=TOKENS, form=st.sampled_from(FORMS))
def test_every_form_means_the_same(code: str, state: str, form: str) -> None:
    query = urlencode({"code": code, "scope": "a b", "state": state})
    assert read_answer(form.format(code=code, state=state, query=query)) == AuthorizationResponse(code, state)


@given(st.text(max_size=300))
def test_anything_else_is_refused_or_has_a_code(text: str) -> None:
    try:
        answer = read_answer(text)
    except LoginError:
        return
    assert answer.code or answer.error


@pytest.mark.parametrize(
    "text", ["", " ", "#state", "a code with spaces", "https://platform.example/", "https://x.example/?code=&state=s"]
)
def test_nothing_is_not_a_code(text: str) -> None:
    with pytest.raises(LoginError, match="there is no code in that"):
        read_answer(text)


def test_the_address_to_sign_in_at_is_no_answer() -> None:
    with pytest.raises(LoginError, match="the address to sign in at"):
        read_answer("https://claude.example/oauth/authorize?code=true&response_type=code&state=abc")


def test_a_denial_is_an_answer() -> None:
    assert from_query("error=access_denied&state=s") == AuthorizationResponse("", "s", "access_denied")


def test_a_denial_says_more_where_its_description_is_a_code() -> None:
    answer = from_query("error=access_denied&error_description=account_on_hold&state=s")
    assert denial(answer.error) == "the sign-in failed (account_on_hold)"
    assert from_query("error=access_denied&error_description=The+user+said+no&state=s").error == "access_denied"


def test_an_answer_hides_what_it_holds() -> None:
    assert "secret" not in repr(AuthorizationResponse("secret-code", "secret-state"))


@pytest.mark.parametrize("error", ["<script>alert(1)</script>", "server error", "x" * 100, "SECRET"])
def test_a_servers_word_is_repeated_only_if_it_is_one(error: str) -> None:
    assert denial(error) == "the sign-in failed"
    assert denial("invalid_scope") == "the sign-in failed (invalid_scope)"


def test_a_page_shows_text_and_nothing_else() -> None:
    assert b"<script>" not in page("<script>", "<script>")


@pytest.mark.parametrize(
    ("told", "kept"), [(5.0, 5.0), (0.0, 1.0), (-1.0, 1.0), (float("nan"), 1.0), (3600.0, 60.0), (float("inf"), 60.0)]
)
async def test_no_server_makes_a_device_flow_poll_without_a_pause_or_never(told: float, kept: float) -> None:
    class Vendor(Provider):
        name = "vendor"

        async def device_start(self, http: Http) -> DeviceCode:
            return DeviceCode("https://vendor.example/device", "AB-CD", told, 900, secret="device-1")

    settings = ProviderSettings(base_url="https://vendor.example")
    _, device = await Logins[None](ScriptedHttp()).device_begin(Vendor(settings), None)
    assert device.interval == kept
