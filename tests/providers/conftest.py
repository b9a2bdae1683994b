from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from aimux_chatgpt import ChatGPT
from aimux_claude import Claude

NOW = 1_780_000_000.0


@pytest.fixture
def claude() -> Claude:
    return Claude(Claude.Settings())


@pytest.fixture
def chatgpt() -> ChatGPT:
    return ChatGPT(ChatGPT.Settings())


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> Iterator[float]:
    """The clock stands still."""
    monkeypatch.setattr(time, "time", lambda: NOW)
    yield NOW
