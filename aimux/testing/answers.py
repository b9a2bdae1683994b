"""The contract of answers: verdicts on any answer, meters that nothing can break, openings that decide once."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from aimux.plugin import Action, LimitWindow, Verdict
from aimux.testing.base import Samples, examples, json_values

if TYPE_CHECKING:
    from aimux.plugin import Headers, Meter
    from aimux.testing.samples import SampleAnswer

_values = (
    st.sampled_from(["", "0", "1", "-1", "0.5", "1e400", "nan", "inf", "rejected", "allowed", "4102444800", "²"])
    | st.sampled_from(["2100-01-01T00:00:00Z", "Fri, 31 Dec 2100 23:59:59 GMT", "6m0s", "99999999999999999999"])
    | st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=20)
)
_problems = json_values | st.dictionaries(
    st.sampled_from(["type", "code", "message", "status", "param", "resets_at", "resets_in_seconds"]), json_values
)
_bodies = st.binary(max_size=80) | (
    _problems | st.fixed_dictionaries({"error": _problems}) | st.fixed_dictionaries({"detail": _problems})
).map(lambda value: json.dumps(value).encode())


class AnswerContract(Samples):
    def headers(self, data: st.DataObject) -> Headers:
        names = st.sampled_from(["retry-after", "retry-after-ms", "content-type", *self.limit_headers])
        return CIMultiDict(data.draw(st.lists(st.tuples(names, _values), max_size=6)))

    @examples
    @given(st.data(), st.integers(400, 599), _bodies, st.sampled_from(["", "a-model"]))
    def test_any_answer_gets_a_verdict(self, data: st.DataObject, status: int, body: bytes, model: str) -> None:
        verdict = self.make().classify(status, self.headers(data), body, model=model)
        _check(verdict)
        if status == 401:
            assert verdict.action in {Action.REFRESH, Action.PARK}, "the client can't mend a credential of aimux's"
        if status in {404, 413}:
            assert verdict.action is Action.RELAY, "the caller's own fault"

    def test_every_status_without_a_word(self) -> None:
        for status in range(400, 600):
            _check(self.make().classify(status, CIMultiDict(), b""))

    def test_a_429_that_does_not_say_until_when_is_not_held_against_the_account(self) -> None:
        assert self.make().classify(429, CIMultiDict(), b"").action is not Action.PARK
        assert self.make().classify(429, CIMultiDict(), b"").action is not Action.COOL_DOWN

    @examples
    @given(st.data())
    def test_limits_are_read_from_any_headers(self, data: st.DataObject) -> None:
        for window in self.make().limits(self.headers(data)):
            assert isinstance(window, LimitWindow)
            assert window.name
            assert window.used is None or 0 <= window.used <= 1
            assert window.resets_at is None or math.isfinite(window.resets_at)
            assert window.status in {"allowed", "warning", "rejected"}

    def test_hidden_headers_are_lower_case(self) -> None:
        assert all(name == name.lower() for name in self.make().hidden_headers)

    # --- usage -------------------------------------------------------------------------------------------------------

    def meter(self, answer: SampleAnswer) -> Meter | None:
        return self.make().meter(answer.request, answer.status, answer.headers)

    def test_usage_is_read(self) -> None:
        for answer in self.answers:
            meter = self.meter(answer)
            if answer.usage is None:
                assert meter is None or not meter.consumes, f"{answer.target}: consumes nothing"
                continue
            assert meter is not None, f"{answer.method} {answer.target}: has no meter"
            _feed(meter, [answer.body])
            assert meter.usage == answer.usage, answer.target
            assert meter.complete, f"{answer.target}: this answer is whole"

    def test_usage_is_the_same_wherever_the_bytes_are_cut(self) -> None:
        for answer in self.answers:
            if answer.usage is None:
                continue
            for cut in range(0, len(answer.body), max(1, len(answer.body) // 400)):
                meter = self.meter(answer)
                assert meter is not None
                _feed(meter, [answer.body[:cut], answer.body[cut:]])
                assert (meter.usage, meter.complete) == (answer.usage, True), f"{answer.target}, cut at {cut}"
            meter = self.meter(answer)
            assert meter is not None
            _feed(meter, [answer.body[at : at + 1] for at in range(len(answer.body))])
            assert meter.usage == answer.usage, f"{answer.target}, byte by byte"

    def test_a_stream_that_was_cut_short_is_not_complete(self) -> None:
        """Otherwise a client would take half an answer for a whole one."""
        for answer in self.answers:
            if answer.usage is None or not answer.streamed:
                continue
            cut = answer.body.rfind(b"data:", 0, len(answer.body) // 2)
            meter = self.meter(answer)
            assert meter is not None
            _feed(meter, [answer.body[:cut]])
            assert not meter.complete, f"{answer.target}: half of it"

    @examples
    @given(st.data(), st.lists(st.binary(max_size=60), max_size=8))
    def test_no_bytes_break_a_meter(self, data: st.DataObject, parts: list[bytes]) -> None:
        for answer in self.answers:
            meter = self.meter(answer)
            if meter is None:
                continue
            cut = data.draw(st.integers(0, len(answer.body)))
            _feed(meter, [answer.body[:cut], *parts, answer.body[cut:]])

    @examples
    @given(st.data(), json_values)
    def test_no_json_breaks_a_meter(self, data: st.DataObject, value: Any) -> None:
        """Known keys with values that nobody expects."""
        for answer in self.answers:
            meter = self.meter(answer)
            if meter is None:
                continue
            _feed(meter, [_mangled(answer.body, value, data)])

    @examples
    @given(st.lists(st.binary(max_size=60) | json_values.map(lambda value: json.dumps(value).encode()), max_size=4))
    def test_no_message_breaks_a_sockets_meter(self, messages: list[bytes]) -> None:
        for answer in self.answers:
            meter = self.make().websocket_meter(answer.request)
            if meter is None:
                continue
            for message in messages:
                meter.asked(message)
                meter.feed(message)

    @examples
    @given(st.data(), json_values)
    def test_no_message_with_known_keys_breaks_a_sockets_meter(self, data: st.DataObject, value: Any) -> None:
        for answer in self.answers:
            meter = self.make().websocket_meter(answer.request)
            if meter is None or not answer.streamed:
                continue
            for line in _mangled(answer.body, value, data).split(b"\n"):
                meter.feed(line.removeprefix(b"data:"))

    # --- the start of a stream ---------------------------------------------------------------------------------------

    def test_a_good_stream_is_relayed_once_content_follows(self) -> None:
        provider = self.make()
        for answer in self.answers:
            if not answer.streamed or answer.status != 200:
                continue
            decided = [provider.opening(answer.headers, answer.body[:end]) for end in range(len(answer.body) + 1)]
            assert decided[-1] is not None, f"{answer.target}: never decided"
            assert {v.action for v in decided if v is not None} == {Action.RELAY}, answer.target
            first = next(at for at, verdict in enumerate(decided) if verdict is not None)
            assert all(verdict is not None for verdict in decided[first:]), "once decided, it stays decided"

    @examples
    @given(st.binary(max_size=120) | json_values.map(lambda value: b"data: " + json.dumps(value).encode() + b"\n\n"))
    def test_any_start_of_a_stream_can_be_looked_at(self, payload: bytes) -> None:
        verdict = self.make().opening(CIMultiDict(), payload)
        if verdict is not None:
            _check(verdict)

    @examples
    @given(st.data(), json_values)
    def test_the_start_of_a_stream_may_have_known_keys_with_anything_in_them(
        self, data: st.DataObject, value: Any
    ) -> None:
        for answer in self.answers:
            if not answer.streamed:
                continue
            mangled = _mangled(answer.body, value, data)
            unnamed = b"\n".join(line for line in mangled.split(b"\n") if not line.startswith(b"event:"))
            for payload in (mangled, unnamed):
                verdict = self.make().opening(answer.headers, payload)
                if verdict is not None:
                    _check(verdict)


def _check(verdict: Verdict) -> None:
    assert isinstance(verdict, Verdict)
    assert verdict.reason.isprintable(), "a reason is one line in a log"
    assert len(verdict.reason) <= 200, "a reason is not the upstream's whole answer"
    if verdict.action is Action.COOL_DOWN:
        assert verdict.until is not None, "a cooldown says until when"
        assert math.isfinite(verdict.until)
    if verdict.action is Action.PARK:
        assert verdict.reason, "a parked account says why …"
        assert verdict.remedy, "… and what a person can do"


def _feed(meter: Meter, parts: list[bytes]) -> None:
    for part in parts:
        meter.feed(part)
    meter.end()


def _mangled(body: bytes, value: Any, data: st.DataObject) -> bytes:
    """`body` with one value in one of its JSON objects (the lines of a stream have one each) replaced."""
    lines = body.split(b"\n")
    objects = [at for at, line in enumerate(lines) if _object(line)]
    if not objects:
        return body
    at = data.draw(st.sampled_from(objects))
    start = lines[at].index(b"{")
    event = inner = _object(lines[at])
    while True:
        key = data.draw(st.sampled_from(sorted(inner)))
        if not (isinstance(inner[key], dict) and inner[key] and data.draw(st.booleans())):
            break
        inner = inner[key]
    inner[key] = value
    lines[at] = lines[at][:start] + json.dumps(event).encode()
    return b"\n".join(lines)


def _object(line: bytes) -> dict[str, Any]:
    """The JSON object in a line; `{}` where there is none."""
    start = line.find(b"{")
    try:
        found = json.loads(line[start:]) if start >= 0 else None
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
