"""Streams that were cut short: nobody uses the accounts for nothing."""

from __future__ import annotations

from typing import Any

import pytest

from aimux.metering.estimates import MAX_KEPT, Estimates
from aimux.metering.record import TURN, RequestRecord
from tests.metering.support import record


def stream(**changes: Any) -> RequestRecord:
    return record(**{"coding": "identity", "bytes_in": 4000, "bytes_out": 20_000} | changes)


def cut(estimates: Estimates, **changes: Any) -> tuple[int, int, bool]:
    """Input, output and whether a part is an estimate."""
    told = {"input_tokens": 10, "output_tokens": 0} | changes.pop("usage", {})
    broken = stream(**{"error": "client_gone", "usage": told} | changes)
    estimates(broken)
    assert broken.usage is not None
    return broken.usage.input_tokens, broken.usage.output_tokens, broken.usage.estimated


def test_before_anything_is_known_a_token_is_four_characters() -> None:
    estimates = Estimates()
    assert cut(estimates) == (10, 500, True)
    assert cut(estimates, usage={"input_tokens": 0}) == (1000, 500, True)
    assert cut(estimates, usage={"cache_read_tokens": 7, "input_tokens": 0}) == (0, 500, True)


def test_what_a_byte_stands_for_is_learned_for_each_model_and_form() -> None:
    estimates = Estimates()
    for _ in range(30):
        estimates(stream(usage={"input_tokens": 2000, "output_tokens": 2000}))
    assert cut(estimates, bytes_out=5000) == (10, 500, True)
    assert cut(estimates, usage={"input_tokens": 0}) == (2000, 2000, True)
    for other in ({"usage": {"model": "opus"}}, {"coding": "gzip"}, {"provider": "chatgpt"}):
        assert cut(estimates, **other)[1] == 500
    turn = stream(error="client_gone", usage={"output_tokens": 0})
    turn.method = TURN
    estimates(turn)
    assert turn.usage is not None
    assert turn.usage.output_tokens == 500


@pytest.mark.parametrize(
    "changes",
    [
        {"error": ""},
        {"coding": ""},
        {"status": 529},
        {"usage": {"output_tokens": 900}},
    ],
    ids=["whole", "no stream", "refused", "told more"],
)
def test_what_was_told_stays(changes: dict[str, Any]) -> None:
    broken = stream(**{"error": "client_gone"} | changes)
    before = repr(broken.usage)
    Estimates()(broken)
    assert repr(broken.usage) == before


def test_nothing_is_learned_from_estimates_and_short_answers_and_it_is_bounded() -> None:
    estimates = Estimates()
    estimates(stream(usage={"output_tokens": 20_000, "estimated": True}))
    estimates(stream(usage={"output_tokens": 31}))
    assert cut(estimates) == (10, 500, True)
    for number in range(MAX_KEPT + 10):
        cut(estimates, usage={"model": f"m{number}"})
    estimates(stream(usage={"output_tokens": 2000, "model": "m0"}))
    assert cut(estimates, usage={"model": "m0"}) == (10, 2000, True)
