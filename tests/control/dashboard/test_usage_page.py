"""What the page of usage makes of the API's sums."""

from __future__ import annotations

import pytest

from aimux.control.dashboard.usage import TOKENS, by_kind

KINDS = {"input": 1.0, "output": 2.0, "cache_read": 0.25, "cache_write": 0.5, "saved": 3.0}


@pytest.mark.parametrize(
    ("total", "rest"),
    [(3.75, None), (3.754, None), (4.75, 1.0), (3.0, -0.75)],  # nothing else; less than a cent; dearer; a factor
)
def test_kinds_and_the_rest_are_the_total(total: float, rest: float | None) -> None:
    found = by_kind({"total": dict.fromkeys(TOKENS, 10) | {"cost_usd": total}, "kinds": KINDS})
    assert [name for name, _, _ in found[:4]] == ["Input", "Output", "Cache read", "Cache write"]
    assert found[4:] == ([] if rest is None else [("The rest", None, rest)])
