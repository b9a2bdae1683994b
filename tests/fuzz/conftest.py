"""A long run says what it was started with, or nobody could start it again."""

from __future__ import annotations

from .harness import LONG


def pytest_report_header() -> str:
    return "fuzzing: a short run" if LONG is None else "fuzzing: {:g} s for each target, SEED={}".format(*LONG)
