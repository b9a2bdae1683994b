"""For the tests of provider plugins: a contract that every provider keeps, and an HTTP client that follows a script.

    from aimux.testing import SampleAnswer, ProviderContract

    class TestAcme(ProviderContract):
        provider = Acme
        credentials = {"API key": b'{"api_key": "acme-0123456789"}'}
        answers = [SampleAnswer("POST", "/v1/chat", body=b'{"usage": {…}}', usage=Usage(…))]

Needs pytest and hypothesis: the extra `testing`.
"""

import pytest

_ASSERTING = ("answers", "credentials", "own_limits", "requests", "samples")
pytest.register_assert_rewrite(*(f"{__name__}.{module}" for module in _ASSERTING))

# The asserts of these modules are rewritten, so they come after the line above.
from aimux.testing.answers import AnswerContract  # noqa: E402
from aimux.testing.credentials import CredentialContract  # noqa: E402
from aimux.testing.own_limits import OwnLimitContract  # noqa: E402
from aimux.testing.requests import RequestContract  # noqa: E402
from aimux.testing.samples import SampleAnswer, ScriptedHttp, Sent, reply  # noqa: E402

__all__ = ["ProviderContract", "SampleAnswer", "ScriptedHttp", "Sent", "reply"]


class ProviderContract(CredentialContract, RequestContract, AnswerContract, OwnLimitContract):
    """Subclass it as `Test…`, set `provider` and the samples (see `aimux.testing.base.Samples`), and run pytest."""
