"""The contract of credentials: read any file, lose nothing, reveal no secret; renew and sort the failures."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimux.plugin import (
    Credential,
    CredentialError,
    HttpUnavailable,
    LoginError,
    RefreshError,
    RefreshRejected,
    RefreshUnavailable,
)
from aimux.testing.base import Samples, credential_or_error, examples, json_values, secrets_of, told_secret
from aimux.testing.samples import ScriptedHttp, Sent, reply

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aimux.plugin import HttpAnswer

STRANGE_KEY = "a-key-of-someone-else's"
STRANGE_VALUE = {"kept": [1, 2.5, None, "ü", {"deep": True}]}
LATER_FAILURES: list[HttpAnswer | Exception] = [
    HttpUnavailable("auth.example: no answer"),
    reply(status=500, body=b"<html>oops</html>"),
    reply(status=502, body=b""),
    reply({"error": "temporarily_unavailable"}, status=503),
    reply({"error": "slow_down"}, status=429),
    reply(status=404, body=b"<html>Not Found</html>"),
    reply(status=302, body=b""),
    reply(status=200, body=b"<html>sign in to this wireless network</html>"),
    reply({"access_token": ""}),
    reply({"access_token": "two\r\nlines: x"}),
]


class CredentialContract(Samples):
    def with_strangers(self, raw: bytes) -> Iterator[tuple[str, bytes]]:
        """The file with an addition that the provider does not know, and where that is.

        A JSON file gets a key in each of its objects. Files of another format are left as they are: override this and
        `lost` for them.
        """
        try:
            document = json.loads(raw)
        except ValueError:
            return
        for path in list(_objects(document, ())):
            strange = json.loads(raw)
            inner = strange
            for key in path:
                inner = inner[key]
            inner[STRANGE_KEY] = STRANGE_VALUE
            yield "/".join(map(str, path)) or "the top level", json.dumps(strange).encode()

    def lost(self, before: bytes, after: bytes) -> str | None:
        """What was in the file before it was renewed, and is not any more."""
        try:
            return _lost(json.loads(before), json.loads(after))
        except ValueError:
            return None

    def test_every_sample_is_read(self) -> None:
        assert self.credentials, "name at least one sample in `credentials`"
        for name, _raw, credential in self.parsed():
            assert credential.kind in {"oauth", "api_key"}, name
            assert credential.secret, name
            assert credential.secret.isprintable(), f"{name}: the secret can't stand in a header"
            assert credential.secret == credential.secret.strip(), name

    def test_a_repr_tells_no_secret(self) -> None:
        for name, _raw, credential in self.parsed():
            assert told_secret(repr(credential), secrets_of(credential)) is None, name

    def test_unknown_keys_change_nothing(self) -> None:
        provider = self.make()
        for name, raw, credential in self.parsed():
            for where, strange in self.with_strangers(raw):
                assert provider.parse_credential(strange) == credential, f"{name}: unknown key in {where}"

    def test_an_api_key_is_written_as_it_is_read(self) -> None:
        provider = self.make()
        try:
            raw = provider.api_key_file("contract-key-0123456789")
        except LoginError as error:
            pytest.skip(f"takes no API keys: {error}")
        credential = provider.parse_credential(raw)
        assert (credential.kind, credential.secret) == ("api_key", "contract-key-0123456789")

    @examples
    @given(st.binary(max_size=200) | json_values.map(lambda value: json.dumps(value).encode()))
    def test_whatever_lies_there_is_read_or_refused(self, raw: bytes) -> None:
        found = credential_or_error(self.make(), raw)
        assert isinstance(found, Credential) or str(found), "a refusal says why"

    @examples
    @given(st.data())
    def test_a_damaged_file_is_read_or_refused_and_tells_no_secret(self, data: st.DataObject) -> None:
        provider = self.make()
        name, raw, credential = data.draw(st.sampled_from(list(self.parsed())))
        cut = data.draw(st.integers(0, len(raw)))
        damaged = data.draw(
            st.sampled_from([raw[:cut], raw[cut:], raw[:cut] + b'"' + raw[cut:], raw[:cut] + b"\r\n\x00" + raw[cut:]])
        )
        found = credential_or_error(provider, damaged)
        if isinstance(found, CredentialError):
            assert told_secret(f"{found} {found!r}", secrets_of(credential)) is None, name

    # --- renewal -----------------------------------------------------------------------------------------------------

    def renewable(self) -> Iterator[tuple[str, bytes, Credential]]:
        for name, raw, credential in self.parsed():
            if credential.renewable:
                yield name, raw, credential

    def renew(self, raw: bytes, *steps: Any) -> tuple[bytes, list[Sent]]:
        http = ScriptedHttp(*steps)
        return asyncio.run(self.make().refresh(raw, http)), http.sent

    def test_what_cannot_be_renewed_is_refused_without_asking_anyone(self) -> None:
        for name, raw, credential in self.parsed():
            if not credential.renewable:
                with pytest.raises(RefreshRejected):
                    self.renew(raw)
                assert name

    def test_a_renewal_brings_new_tokens_and_loses_no_key(self) -> None:
        provider = self.make()
        for name, raw, old in self.renewable():
            for where, strange in [("nowhere", raw), *self.with_strangers(raw)]:
                renewed, _ = self.renew(strange, reply(dict(self.refresh_answer)))
                new = provider.parse_credential(renewed)
                assert new.secret != old.secret, name
                assert new.refresh_token == self.refresh_answer.get("refresh_token", old.refresh_token), name
                assert new.kind == old.kind, name
                for field in ("account_id", "organization", "email", "plan", "scopes"):
                    assert getattr(new, field) or not getattr(old, field), f"{name}: lost its {field}"
                lost = self.lost(strange, renewed)
                assert lost is None, f"{name} (unknown key in {where}): {lost} is lost or changed its type"

    def test_the_old_refresh_token_stays_where_none_comes_back(self) -> None:
        provider = self.make()
        answer = {key: value for key, value in self.refresh_answer.items() if key != "refresh_token"}
        for name, raw, old in self.renewable():
            renewed, _ = self.renew(raw, reply(answer))
            assert provider.parse_credential(renewed).refresh_token == old.refresh_token, name

    def test_a_refresh_token_goes_to_addresses_of_the_settings_only(self) -> None:
        """Endpoints move: each has to be a setting, so that nobody has to wait for a release."""
        provider = self.make()
        known = [url for url in provider.settings.model_dump().values() if isinstance(url, str) and "://" in url]
        for name, raw, _ in self.renewable():
            _, sent = self.renew(raw, reply(dict(self.refresh_answer)))
            for request in sent:
                assert request.url.startswith(tuple(known)), f"{name}: {request.url} is in no setting"
                assert "?" not in request.url, f"{name}: secrets don't belong into a URL"

    def test_a_failure_that_may_pass_is_not_for_good(self) -> None:
        for name, raw, _ in self.renewable():
            for failure in LATER_FAILURES:
                with pytest.raises(RefreshUnavailable) as caught:
                    self.renew(raw, failure)
                assert caught.value.reason, (name, failure)
                assert caught.value.remedy, f"{name}, {failure}: say what a person can do"

    def test_a_refusal_is_for_good(self) -> None:
        for name, raw, _ in self.renewable():
            for refusal in self.refresh_refusals:
                with pytest.raises(RefreshRejected) as caught:
                    self.renew(raw, refusal)
                assert caught.value.remedy, f"{name}, {refusal}: say what a person can do"

    @examples
    @given(st.integers(200, 599), st.binary(max_size=100) | json_values.map(lambda value: json.dumps(value).encode()))
    def test_whatever_the_token_endpoint_answers(self, status: int, body: bytes) -> None:
        provider = self.make()
        for _name, raw, _ in self.renewable():
            try:
                renewed, _ = self.renew(raw, reply(status=status, body=body))
            except RefreshError as error:
                assert error.reason
            else:
                provider.parse_credential(renewed)

    def test_an_error_tells_no_secret_even_if_the_server_quotes_it(self) -> None:
        def quoting(sent: Sent) -> HttpAnswer:
            asked = sent.json or sent.form
            token = next(iter([v for k, v in asked.items() if "refresh" in k]), "") if isinstance(asked, dict) else ""
            return reply({"error": token, "error_description": repr(sent), "message": token}, status=400)

        for name, raw, credential in self.renewable():
            with pytest.raises(RefreshError) as caught:
                self.renew(raw, quoting)
            error = caught.value
            told = f"{error} {error!r} {error.remedy} {error.__cause__!r}"
            assert told_secret(told, secrets_of(credential)) is None, name


def _objects(value: Any, path: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    if isinstance(value, dict):
        yield path
        for key, inner in value.items():
            yield from _objects(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _objects(inner, (*path, index))


def _lost(before: Any, after: Any, path: str = "") -> str | None:
    """Where `after` lacks a key of `before`, or has a value of another type there."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key, value in before.items():
            if key not in after:
                return f"{path}/{key}"
            if found := _lost(value, after[key], f"{path}/{key}"):
                return found
        return None
    same = before is None or isinstance(after, type(before)) or {type(before), type(after)} == {int, float}
    return None if same else path
