"""The contract finds what it is there for: each of these providers breaks one promise, and one test says so."""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
from typing import Any

import pytest

from aimux import testing
from aimux.plugin import (
    Action,
    Credential,
    CredentialError,
    ErrorAnswer,
    GatewayError,
    Headers,
    Http,
    Meter,
    RequestHead,
    SSEMeter,
    Upstream,
    Verdict,
)
from aimux.testing import ProviderContract
from aimux_chatgpt import ChatGPT
from tests.contracts import test_providers


class QuotesTheFile(ChatGPT):
    def parse_credential(self, raw: bytes) -> Credential:
        try:
            return super().parse_credential(raw)
        except CredentialError as error:
            raise CredentialError(f"{error}: {raw!r}") from None


class RaisesKeyError(ChatGPT):
    def parse_credential(self, raw: bytes) -> Credential:
        json.loads(raw)["tokens"]
        return super().parse_credential(raw)


class Replaces(ChatGPT):
    async def refresh(self, raw: bytes, http: Http) -> bytes:
        renewed = json.loads(await super().refresh(raw, http))
        holder = renewed.get("tokens") or renewed.get("openai") or renewed
        kept = {key: holder.get(key) for key in ("access_token", "refresh_token", "account_id", "expires_at")}
        return json.dumps({"tokens": kept}).encode()


class AsksAnotherHost(ChatGPT):
    async def refresh(self, raw: bytes, http: Http) -> bytes:
        return await ChatGPT(self.settings.model_copy(update={"token_url": "https://else.example/t"})).refresh(
            raw, http
        )


class ForwardsTheClientsToken(ChatGPT):
    def prepare(self, request: RequestHead, credential: Credential) -> Upstream:
        upstream = super().prepare(request, credential)
        return Upstream(upstream.base_url, upstream.target, {"x-original": request.headers.get("authorization", "")})


class FollowsTheTarget(ChatGPT):
    def prepare(self, request: RequestHead, credential: Credential) -> Upstream:
        upstream = super().prepare(request, credential)
        return Upstream("http:/" + request.target if request.target.startswith("//") else upstream.base_url, "/")


class ChangesTheHeaders(ChatGPT):
    def prepare(self, request: RequestHead, credential: Credential) -> Upstream:
        request.headers.pop("authorization", None)  # type: ignore[union-attr]
        return super().prepare(request, credential)


class CoolsDownForever(ChatGPT):
    def classify(self, status: int, headers: Headers, body: bytes, *, model: str = "") -> Verdict:
        return Verdict(Action.COOL_DOWN) if status == 429 else super().classify(status, headers, body)


class ParksWithoutAWord(ChatGPT):
    def classify(self, status: int, headers: Headers, body: bytes, *, model: str = "") -> Verdict:
        return Verdict(Action.PARK) if status == 402 else super().classify(status, headers, body)


class ForgetsTheMessage(ChatGPT):
    def error(self, error: GatewayError) -> ErrorAnswer:
        return ErrorAnswer(b'{"error": {"message": "something went wrong"}}')


class Careless(SSEMeter):
    needles = (b'"usage"', b"completed")

    def feed(self, data: bytes) -> None:
        for line in data.split(b"\n"):
            if b"completed" in line:
                self.read(json.loads(line[5:]))

    def read(self, event: dict[str, Any]) -> None:
        self.complete = True
        self.usage.output_tokens = event["response"]["usage"]["output_tokens"]


class MetersCarelessly(ChatGPT):
    def meter(self, request: RequestHead, status: int, headers: Headers) -> Meter | None:
        meter = super().meter(request, status, headers)
        return Careless() if isinstance(meter, SSEMeter) and request.path.endswith("/responses") else meter


class AlwaysComplete(ChatGPT):
    def meter(self, request: RequestHead, status: int, headers: Headers) -> Meter | None:
        meter = super().meter(request, status, headers)
        if meter is not None:
            meter.complete = True
        return meter


class TakesContentForAnError(ChatGPT):
    def opening(self, headers: Headers, payload: bytes, *, model: str = "") -> Verdict | None:
        return Verdict(Action.BACK_OFF, "overloaded") if b"error" in payload else None


BREACHES = [
    (QuotesTheFile, "test_a_damaged_file_is_read_or_refused_and_tells_no_secret"),
    (RaisesKeyError, "test_whatever_lies_there_is_read_or_refused"),
    (Replaces, "test_a_renewal_brings_new_tokens_and_loses_no_key"),
    (AsksAnotherHost, "test_a_refresh_token_goes_to_addresses_of_the_settings_only"),
    (ForwardsTheClientsToken, "test_prepare"),
    (FollowsTheTarget, "test_requests_stay_with_the_addresses_of_the_settings"),
    (ChangesTheHeaders, "test_prepare"),
    (CoolsDownForever, "test_any_answer_gets_a_verdict"),
    (ParksWithoutAWord, "test_every_status_without_a_word"),
    (ForgetsTheMessage, "test_an_error_of_each_kind"),
    (MetersCarelessly, "test_usage_is_the_same_wherever_the_bytes_are_cut"),
    (MetersCarelessly, "test_no_json_breaks_a_meter"),
    (AlwaysComplete, "test_a_stream_that_was_cut_short_is_not_complete"),
    (TakesContentForAnError, "test_a_good_stream_is_relayed_once_content_follows"),
]


@pytest.mark.parametrize(("broken", "name"), BREACHES, ids=[f"{one.__name__}-{name}" for one, name in BREACHES])
def test_a_broken_promise_is_found(broken: type[ChatGPT], name: str) -> None:
    contract = type("Contract", (ProviderContract,), {**_samples(), "provider": broken})()
    with pytest.raises((AssertionError, KeyError, TypeError, ValueError, AttributeError)):
        getattr(contract, name)()


def _samples() -> dict[str, Any]:
    names = ("credentials", "refresh_answer", "refresh_refusals", "answers", "limit_headers")
    return {name: getattr(test_providers.TestChatGPT, name) for name in names}


def test_pytest_explains_every_assert_of_the_contract() -> None:
    """It does for modules that were registered before they were imported; in any other a failure says nothing."""
    modules = [importlib.import_module(f"aimux.testing.{one.name}") for one in pkgutil.iter_modules(testing.__path__)]
    asserting = [one for one in modules if " assert " in inspect.getsource(one)]
    assert asserting
    assert not [one.__name__ for one in asserting if "@pytest_ar" not in vars(one)]
