"""Who may call."""

from __future__ import annotations

import ipaddress

import pytest
from multidict import CIMultiDict

from aimux.config import Config
from aimux.gateway.auth import Authentication
from aimux.gateway.client_address import TrustedProxies
from aimux.gateway.cors import Cors
from aimux.gateway.guesses import FREE
from aimux.people import Directory, from_config
from aimux.people.tokens import make_token
from aimux.plugin import GatewayError, Provider

TOKEN = "ann-token-0123456789"


class Vendor(Provider):
    name = "vendor"

    def vendor_token_advice(self, token: str) -> str | None:
        return "set VENDOR_TOKEN" if token.startswith("vendor-") else None


PROVIDER = Vendor(Provider.Settings())


def authentication(*, users: int = 1, anonymous: bool = False, trusted: str = "") -> Authentication:
    config = Config.model_validate({"users": [{"name": "ann", "token": TOKEN}] * users})
    networks = [ipaddress.ip_network(trusted)] if trusted else []
    directory = Directory(from_config(config))
    return Authentication(directory, allow_anonymous=anonymous, proxies=TrustedProxies(networks))


def refused(auth: Authentication, headers: dict[str, str], peer: str = "127.0.0.1", now: float = 0.0) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        auth.authenticate(CIMultiDict(headers), peer, PROVIDER, now)
    return caught.value


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": f"Bearer {TOKEN}"},
        {"Authorization": f"bearer  {TOKEN} "},
        {"x-api-key": TOKEN},
        {"authorization": f"Bearer {TOKEN}", "x-api-key": TOKEN},
        {"authorization": "Bearer something-else-entirely", "x-api-key": TOKEN},
        {"authorization": f"Bearer {TOKEN}", "x-api-key": "sk-ant-api03-theirs"},
        # The variable held `Bearer …`, or another gateway wanted it so.
        {"authorization": f"Bearer Bearer {TOKEN}"},
        {"x-api-key": f"Bearer {TOKEN}"},
        {"x-aimux-token": f"bearer  {TOKEN}"},
    ],
)
def test_a_token_is_taken_from_either_header(headers: dict[str, str]) -> None:
    caller = authentication().authenticate(CIMultiDict(headers), "8.8.8.8", PROVIDER, 0.0)
    assert caller.name == "ann"
    assert caller.token == TOKEN.encode()


@pytest.mark.parametrize(
    "headers", [{}, {"authorization": TOKEN}, {"authorization": f"Basic {TOKEN}"}, {"x-api-key": ""}]
)
def test_with_users_a_request_without_a_valid_token_is_refused_also_from_loopback(headers: dict[str, str]) -> None:
    error = refused(authentication(), headers)
    assert error.status == 401
    assert error.retry is False
    assert "aimux token" in error.message or "not known" in error.message


def test_allow_anonymous_does_not_open_an_aimux_with_users() -> None:
    assert refused(authentication(anonymous=True), {}).status == 401


@pytest.mark.parametrize("form", ["{0:.40}", '"{0}"', "'{0}'", "token={0}"])
def test_a_token_with_something_around_it_is_told_from_an_unknown_one(form: str) -> None:
    """`docker --env-file` keeps quotation marks."""
    token = make_token()
    error = refused(authentication(), {"authorization": f"Bearer {form.format(token)}"})
    assert "quotation marks" in error.message
    assert token[:20] not in error.message
    assert "not known" in refused(authentication(), {"authorization": f"Bearer {token}"}).message


def test_a_vendors_own_token_gets_advice_and_is_not_repeated() -> None:
    error = refused(authentication(), {"authorization": "Bearer vendor-secret-123"})
    assert error.status == 401
    assert error.message == "set VENDOR_TOKEN"


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1", ""])
def test_without_users_this_machine_is_served(peer: str) -> None:
    caller = authentication(users=0).authenticate(CIMultiDict(), peer, PROVIDER, 0.0)
    assert caller.user is None


@pytest.mark.parametrize("peer", ["192.168.1.5", "8.8.8.8", "2001:db8::1", "::ffff:10.0.0.1"])
def test_without_users_everyone_else_gets_403(peer: str) -> None:
    assert refused(authentication(users=0), {}, peer).status == 403


def test_allow_anonymous_serves_everyone_without_users() -> None:
    assert authentication(users=0, anonymous=True).authenticate(CIMultiDict(), "8.8.8.8", PROVIDER, 0.0).user is None


@pytest.mark.parametrize(
    "headers",
    [
        {"x-forwarded-for": "8.8.8.8"},
        {"x-forwarded-for": "127.0.0.1"},
        {"forwarded": "for=127.0.0.1"},
        {"host": "evil.example:8080"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site", "host": "127.0.0.1"},
    ],
)
def test_a_proxy_or_a_web_page_on_this_machine_is_not_this_machine(headers: dict[str, str]) -> None:
    assert refused(authentication(users=0), headers).status == 403


def guess(number: int) -> dict[str, str]:
    return {"x-api-key": f"wrong-wrong-wrong-{number}"}


def test_other_people_change_nothing_else() -> None:
    page = CIMultiDict({"origin": "https://app.example", "sec-fetch-site": "cross-site", "host": "127.0.0.1"})
    proxies, nobody = TrustedProxies([ipaddress.ip_network("10.0.0.0/8")]), Directory()
    before = Authentication(nobody, allow_anonymous=False, proxies=proxies, cors=Cors(["https://app.example"]))
    ann = Directory(from_config(Config.model_validate({"users": [{"name": "ann", "token": TOKEN}]})))
    with_ann = before.with_people(ann, None)
    assert refused(with_ann, dict(page)).status == 401
    after = with_ann.with_people(nobody, None)
    assert after.authenticate(page, "127.0.0.1", PROVIDER, 0.0).access is None
    assert after.proxies is proxies
    assert after.guesses is before.guesses


def test_guesses_are_slowed_down_and_forgiven() -> None:
    auth = authentication()
    statuses = [refused(auth, guess(number), "8.8.8.8").status for number in range(FREE + 2)]
    assert statuses == [401] * FREE + [429] * 2
    error = refused(auth, guess(99), "8.8.8.8")
    assert (error.retry, error.retry_after) == (True, 1)
    assert "this one was not looked at" in error.message
    assert refused(auth, guess(100), "8.8.4.4").status == 401
    assert refused(auth, guess(101), "8.8.8.8", now=3.0).status == 401


def test_the_right_token_passes_while_others_are_slowed_down() -> None:
    """One that was right there before, or has aimux's own form."""
    auth = authentication()
    mine = CIMultiDict({"x-api-key": TOKEN})
    assert auth.authenticate(mine, "8.8.8.8", PROVIDER, 0.0).name == "ann"
    for number in range(FREE * 5):
        refused(auth, guess(number), "8.8.8.8")
    assert refused(auth, guess(-1), "8.8.8.8").status == 429
    assert auth.authenticate(mine, "8.8.8.8", PROVIDER, 0.0).name == "ann"
    assert refused(auth, {"x-api-key": make_token()}, "8.8.8.8").status == 401, "it was looked at"


def test_the_same_wrong_token_stays_a_401_however_often_it_is_tried() -> None:
    """Codex asks again and again, and would end with "too many requests" instead of what is wrong."""
    auth = authentication()
    assert {refused(auth, guess(1), "8.8.8.8").status for _ in range(FREE * 5)} == {401}
    statuses = [refused(auth, guess(number), "8.8.8.8").status for number in range(FREE + 2)]
    assert statuses[-1] == 429
    assert refused(auth, guess(FREE - 1), "8.8.8.8").status == 401, "also while others are slowed down"


def test_a_token_with_a_typing_error_is_no_guess() -> None:
    auth = authentication()
    whole = make_token()
    for number in range(FREE + 2):
        error = refused(auth, {"x-api-key": whole[: 20 + number]}, "8.8.8.8")
        assert error.status == 401
        assert "typing error" in error.message


@pytest.mark.parametrize(
    ("shown", "filled"),
    [
        *((name, False) for name in ("${AIMUX_TOKEN}", "$AIMUX_TOKEN", "{env:AIMUX_TOKEN}", "{{ secrets.AIMUX }}")),
        *((name, False) for name in ("%AIMUX_TOKEN%", "undefined", "None", "[object Object]", "<your aimux token>")),
        *((name, True) for name in ("dummy", '{"token": "sk-12345678"}', "$ecret-of-16-signs", "a<b>c", "nullable")),
    ],
)
def test_whoever_sends_a_variable_that_was_not_filled_in_hears_so(shown: str, *, filled: bool) -> None:
    told = refused(authentication(), {"authorization": f"Bearer {shown}"}, "8.8.8.8").message
    assert ("did not fill in" in told) is not filled
    assert shown not in told


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer vendor-login-0123456789"}])
def test_what_is_no_guess_is_never_slowed_down(headers: dict[str, str]) -> None:
    """Claude Code's probes come without a token, Codex's own login comes a dozen times at each start."""
    auth = authentication()
    assert {refused(auth, headers, "8.8.8.8").status for _ in range(FREE + 2)} == {401}
    assert refused(auth, {"x-api-key": "wrong-wrong-wrong-wrong"}, "8.8.8.8").status == 401


@pytest.mark.parametrize(("shown", "kept"), [("1", b""), ("dummy", b""), ("sk-no-key-required", b"sk-no-key-required")])
def test_a_placeholder_of_an_anonymous_caller_is_no_secret(shown: str, kept: bytes) -> None:
    """Headers that hold it by chance go upstream."""
    caller = authentication(users=0).authenticate(CIMultiDict({"x-api-key": shown}), "127.0.0.1", PROVIDER, 0.0)
    assert caller.token == kept
