"""For the tests of provider plugins: a contract that every provider keeps, and an HTTP client that follows a script.

    from aimux.testing import SampleAnswer, ProviderContract

    class TestAcme(ProviderContract):
        provider = Acme
        credentials = {"API key": b'{"api_key": "acme-0123456789"}'}
        answers = [SampleAnswer("POST", "/v1/chat", body=b'{"usage": {…}}', usage=Usage(…))]

Needs pytest and hypothesis: the extra `testing`.
"""

import pytest

pytest.register_assert_rewrite("aimux.testing.credentials", "aimux.testing.requests", "aimux.testing.answers")

# The asserts of these modules are rewritten, so they come after the line above.
from aimux.testing.contract import ProviderContract  # noqa: E402
from aimux.testing.samples import SampleAnswer, ScriptedHttp, Sent, reply  # noqa: E402

__all__ = ["ProviderContract", "SampleAnswer", "ScriptedHttp", "Sent", "reply"]
