"""What the parts of the contract share: the samples that a subclass names, and how examples are made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from aimux.plugin import Credential, CredentialError, Provider
from aimux.testing.samples import reply

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from aimux.plugin import HttpAnswer
    from aimux.testing.samples import SampleAnswer

# The same examples in each run, and nothing is written to disk. No shrinking: an example goes through all samples, so
# it would take a minute, and examples are small. Subclasses share the inherited tests.
examples = settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=60,
    phases=[Phase.explicit, Phase.generate],
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.differing_executors, HealthCheck.too_slow],
)

json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)


class Samples:
    """Set these in a subclass."""

    provider: ClassVar[type[Provider]]
    settings: ClassVar[Mapping[str, Any]] = {}
    """For `provider.Settings`; settings without a default have to be here."""
    credentials: ClassVar[Mapping[str, bytes]]
    """A credential file of every format that the provider reads, by a name for messages."""
    refresh_answer: ClassVar[Mapping[str, Any]] = {
        "access_token": "contract-access-2",
        "refresh_token": "contract-refresh-2",
        "expires_in": 3600,
    }
    """The token endpoint's answer to a renewal. Without its `refresh_token` the old one has to stay."""
    refresh_refusals: ClassVar[Sequence[HttpAnswer]] = (reply({"error": "invalid_grant"}, status=400),)
    """Answers of the token endpoint that refuse for good."""
    answers: ClassVar[Sequence[SampleAnswer]] = ()
    """The upstream's answers, streamed and not, with their usage."""
    limit_headers: ClassVar[Sequence[str]] = ()
    """Names of response headers that `limits` and `classify` read; they are tried with all sorts of values."""

    def make(self) -> Provider:
        return self.provider(self.provider.Settings(**self.settings))

    def parsed(self) -> Iterator[tuple[str, bytes, Credential]]:
        provider = self.make()
        for name, raw in self.credentials.items():
            yield name, raw, provider.parse_credential(raw)


def secrets_of(credential: Credential) -> list[str]:
    return [secret for secret in (credential.secret, credential.refresh_token) if secret]


def told_secret(text: str, secrets: list[str]) -> str | None:
    """The first of `secrets` of which `text` reveals more than eight characters."""
    for secret in secrets:
        for start in range(max(1, len(secret) - 8)):
            if secret[start : start + 9] in text and len(secret) >= 9:
                return secret
    return None


def credential_or_error(provider: Provider, raw: bytes) -> Credential | CredentialError:
    try:
        return provider.parse_credential(raw)
    except CredentialError as error:
        return error
