"""The contract of aimux's own limits: clients can read them, however much is used of whichever limit."""

from __future__ import annotations

import json
import re
import time

from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from aimux.plugin import LimitReached, LimitState, LimitWindow, RequestHead
from aimux.testing.base import Samples, examples

_states = st.builds(
    LimitState,
    unit=st.sampled_from(("tokens", "usd")),
    period=st.sampled_from(("day", "week", "month")),
    amount=st.floats(0, 1e15),
    used=st.floats(0, 1e15),
    resets_at=st.floats(1e9, 4e9),
    shared=st.booleans(),
)
_windows = st.builds(
    LimitWindow,
    name=st.sampled_from(("5h", "7d", "overage", "primary", "30m", "7d_x", "x")),
    used=st.none() | st.floats(0, 1),
    resets_at=st.none() | st.floats(1e9, 4e9),
    scope=st.none() | st.just("x"),
)
_FIELD = re.compile(r"[a-z0-9-]+")


def _check_headers(headers: object) -> None:
    for name, value in dict(headers).items():  # type: ignore[call-overload]
        assert _FIELD.fullmatch(name), f"{name}: header names are in lower case"
        assert isinstance(value, str)
        assert value.isascii() and value.isprintable()


class OwnLimitContract(Samples):
    @examples
    @given(st.lists(_states, max_size=4), st.lists(_windows, min_size=1, max_size=4))
    def test_limits_go_into_headers_that_stand_in_the_upstreams_place(
        self, states: list[LimitState], windows: list[LimitWindow]
    ) -> None:
        provider = self.make()
        headers = provider.limit_headers(states, windows)
        _check_headers(headers)
        prefix = provider.limit_header_prefix
        assert prefix == prefix.lower()
        if headers:
            assert prefix, "the account's own limits must not stand beside them"
            assert all(name.startswith(prefix) for name in headers)

    @examples
    @given(st.lists(_states, max_size=4), st.lists(_windows, max_size=4))
    def test_a_client_that_asks_is_answered_in_json(self, states: list[LimitState], windows: list[LimitWindow]) -> None:
        assert isinstance(json.loads(self.make().usage(states, windows)), dict)

    @examples
    @given(st.none() | _states, st.floats(-10, 40 * 86400))
    def test_a_limit_that_is_reached_is_told_with_its_sentence(self, state: LimitState | None, wait: float) -> None:
        provider = self.make()
        error = LimitReached("You have used $5 of $5.", until=time.time() + wait, limit=state)
        answer = provider.error(error)
        assert (answer.status or error.status) == 429, "whatever else it is, clients ask again and again"
        assert error.message in answer.body.decode()
        _check_headers(answer.headers)
        message = provider.websocket_error(error, RequestHead("GET", "/", CIMultiDict()))
        assert not message or error.message in message.decode()

    def test_what_only_asks_does_not_count(self) -> None:
        for answer in self.answers:
            counts = self.make().counts(answer.request)
            assert counts or answer.usage is None, f"{answer.target}: consumes something"
        assert not self.make().counts(RequestHead("GET", "/v1/models", CIMultiDict()))
