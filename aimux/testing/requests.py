"""The contract of requests: `prepare`, conversation keys, logins, and aimux's own errors in the provider's format."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from aimux.plugin import (
    Body,
    Credential,
    DeviceCode,
    ErrorKind,
    GatewayError,
    HttpUnavailable,
    LoginError,
    Provider,
    RequestHead,
    RequestRefused,
)
from aimux.testing.base import Samples, examples, json_values, told_secret
from aimux.testing.samples import ScriptedHttp, reply

TOKEN = "aimux-contract-user-token"  # noqa: S105 - a client's, made up
MESSAGE = 'What went wrong: "quotes", \\ and ünïcode.\nTry again.'
_names = st.sampled_from(
    ["authorization", "x-api-key", "Accept", "User-Agent", "cookie", "session-id", "anthropic-beta", "openai-beta"]
) | st.from_regex(r"[A-Za-z][A-Za-z0-9-]{0,20}", fullmatch=True)
_values = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40)
_targets = st.sampled_from(
    ["/", "/v1", "/v1/messages?beta=true", "/v1/responses", "/v1/chat/completions", "/v1/models", "//v1/messages"]
) | st.from_regex(r"/[a-z0-9._~%/-]{0,40}(\?[a-z0-9=&]{0,20})?", fullmatch=True)
_lists = json_values | st.fixed_dictionaries(
    {"data": json_values | st.lists(st.fixed_dictionaries({"id": json_values}), max_size=3)}
)


class RequestContract(Samples):
    @examples
    @given(st.sampled_from(["GET", "HEAD", "POST", "DELETE"]), _targets, st.lists(st.tuples(_names, _values)))
    def test_prepare(self, method: str, target: str, fields: list[tuple[str, str]]) -> None:
        provider = self.make()
        keys = [(name, TOKEN) for name in dict.fromkeys(("x-api-key", provider.key_header))]
        headers = CIMultiDict([("Authorization", f"Bearer {TOKEN}"), *keys, *fields])
        before = headers.copy()
        request = RequestHead(method, target, headers)
        for name, _raw, credential in self.parsed():
            try:
                upstream = provider.prepare(request, credential)
            except RequestRefused as refusal:
                assert refusal.message, name
                assert credential.secret not in refusal.message, name
                continue
            assert headers == before, f"{name}: the client's headers were changed in place"
            assert provider.prepare(request, credential) == upstream, f"{name}: not a function of its arguments"
            address = upstream.base_url + upstream.target
            assert upstream.base_url.startswith(("http://", "https://")), name
            assert upstream.target.startswith("/"), name
            assert credential.secret not in address, f"{name}: a credential does not belong into a URL"
            assert TOKEN not in address, f"{name}: the client's token goes upstream"
            for header, value in upstream.set_headers.items():
                assert TOKEN not in value, f"{name}: the client's token goes upstream in {header}"
                assert not set("\r\n\0") & set(header + value), f"{name}: {header} breaks the head"
                value.encode("latin-1")
            assert all(header == header.lower() for header in upstream.drop_headers), name
            told = repr(upstream)
            assert told_secret(told, [credential.secret]) is None, f"{name}: a repr tells the secret"

    def test_requests_stay_with_the_addresses_of_the_settings(self) -> None:
        """A credential goes to its own host only, whatever a client asks for."""
        provider = self.make()
        known = [url for url in provider.settings.model_dump().values() if isinstance(url, str) and "://" in url]
        hosts = {urlsplit(url).netloc for url in known}
        assert hosts, "the settings need a `base_url`"
        for _name, _raw, credential in self.parsed():
            for target in ("/v1/models", "//evil.example/v1", "/@evil.example", "/v1/https://evil.example/"):
                try:
                    upstream = provider.prepare(RequestHead("GET", target, CIMultiDict()), credential)
                except RequestRefused:
                    continue
                assert urlsplit(upstream.base_url + upstream.target).netloc in hosts

    def test_the_cheapest_request_can_be_sent(self) -> None:
        provider = self.make()
        for name, _raw, credential in self.parsed():
            request, body = provider.cheapest_request(credential)
            upstream = provider.prepare(request, credential)
            assert upstream.target.startswith("/"), name
            assert isinstance(body, bytes), name

    @examples
    @given(st.lists(st.tuples(_names, _values)), st.binary(max_size=80) | json_values)
    def test_a_conversation_key_can_be_asked_of_any_request(self, fields: list[tuple[str, str]], content: Any) -> None:
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        request = RequestHead("POST", "/v1/messages", CIMultiDict(fields))
        key = self.make().conversation_key(request, Body(raw))
        assert key is None or (isinstance(key, str) and key)

    @examples
    @given(st.binary(max_size=80) | _lists)
    def test_models_of_the_configuration_are_added_to_any_list(self, listed: Any) -> None:
        raw = listed if isinstance(listed, bytes) else json.dumps(listed).encode()
        request = RequestHead("GET", f"{self.provider.api_version_path}/models", CIMultiDict())
        answer = self.make().list_models(request, raw, {"a-model-of-ours": "a-model"})
        assert answer is None or "a-model-of-ours" in _strings(json.loads(answer))
        other = RequestHead("POST", "/v1/anything-else", CIMultiDict())
        assert self.make().list_models(other, raw, {"a-model-of-ours": "a-model"}) is None

    @examples
    @given(st.text(max_size=60))
    def test_advice_does_not_repeat_the_token(self, token: str) -> None:
        advice = self.make().vendor_token_advice(token)
        assert advice is None or told_secret(advice, [token]) is None

    def test_the_vendors_own_credentials_get_advice_without_repeating_them(self) -> None:
        for name, _raw, credential in self.parsed():
            advice = self.make().vendor_token_advice(credential.secret)
            assert advice is None or told_secret(advice, [credential.secret]) is None, name

    # --- aimux's own errors ------------------------------------------------------------------------------------------

    def test_an_error_of_each_kind(self) -> None:
        for kind in ErrorKind:
            error = GatewayError(kind, MESSAGE)
            for request_id in (None, "req_0123"):
                error.request_id = request_id
                answer = self.make().error(error)
                assert answer.body, kind
                if "json" in answer.content_type:
                    assert MESSAGE in _strings(json.loads(answer.body)), f"{kind}: the message is not in the answer"

    def test_a_stream_can_end_with_an_error(self) -> None:
        for answer in self.answers or ():
            for kind in ErrorKind:
                event = self.make().stream_error(GatewayError(kind, MESSAGE), answer.request)
                if not event or "event-stream" not in answer.content_type:
                    continue
                assert event.endswith(b"\n\n"), "an event ends with an empty line"
                data = [line[5:].strip() for line in event.split(b"\n") if line.startswith(b"data:")]
                assert any(MESSAGE in _strings(json.loads(one)) for one in data), kind

    # --- login -------------------------------------------------------------------------------------------------------

    def test_where_the_vendors_own_logins_are(self) -> None:
        places = self.make().vendor_logins({}, Path("/home/someone"))
        assert all(isinstance(place, Path) for place in places)

    def test_the_sign_in_address(self) -> None:
        provider = self.make()
        for flow in provider.login_flows & {"loopback", "paste"}:
            redirect = provider.redirect_uri(flow, 1455)
            url = provider.authorization_url(redirect_uri=redirect, state="the-state", challenge="the-challenge")
            query = parse_qs(urlsplit(url).query)
            assert query["state"] == ["the-state"], flow
            assert query["redirect_uri"] == [redirect], flow
            assert query["code_challenge"] == ["the-challenge"], flow
            assert query["code_challenge_method"] == ["S256"], flow

    def exchanged(self, provider: Provider, *steps: Any) -> Credential:
        http = ScriptedHttp(*steps)
        call = provider.exchange(
            http, code="code-0123456789", state="the-state", verifier="verifier-0123456789", redirect_uri="http://here"
        )
        return provider.parse_credential(asyncio.run(call))

    def test_a_code_becomes_a_credential(self) -> None:
        provider = self.make()
        if provider.login_flows & {"loopback", "paste"}:
            credential = self.exchanged(provider, reply(dict(self.refresh_answer)))
            assert credential.kind == "oauth"
            assert credential.renewable

    @examples
    @given(st.integers(200, 599), st.binary(max_size=100) | json_values.map(lambda value: json.dumps(value).encode()))
    def test_a_failed_exchange_is_a_login_error(self, status: int, body: bytes) -> None:
        provider = self.make()
        if not provider.login_flows & {"loopback", "paste"}:
            return
        for step in (reply(status=status, body=body), HttpUnavailable("auth.example: no answer")):
            try:
                self.exchanged(provider, step)
            except LoginError as error:
                assert str(error)
                assert told_secret(str(error), ["code-0123456789", "verifier-0123456789"]) is None

    def test_a_device_flow_that_cannot_start_is_a_login_error(self) -> None:
        provider = self.make()
        if "device" not in provider.login_flows:
            return
        for step in (HttpUnavailable("auth.example: no answer"), reply(status=404, body=b""), reply({}), reply([])):
            with pytest.raises(LoginError):
                asyncio.run(provider.device_start(ScriptedHttp(step)))

    def test_a_device_code_tells_no_secret(self) -> None:
        device = DeviceCode("https://there", "AB-CD", 5, 900, secret="device-secret-0123")  # noqa: S106
        assert "device-secret" not in repr(device)


def _strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [found for inner in value.values() for found in _strings(inner)]
    if isinstance(value, list):
        return [found for inner in value for found in _strings(inner)]
    return [value] if isinstance(value, str) else []
