from __future__ import annotations

from typing import Any, ClassVar

from hypothesis import given
from hypothesis import strategies as st

from aimux.plugin import JSONMeter, SSEMeter, count, sse_events
from aimux.plugin.meters import MAX_LINE


class Seen(SSEMeter):
    needles: ClassVar[tuple[bytes, ...]] = (b'"a"', b'"b+"', b"[END]")

    def __init__(self) -> None:
        super().__init__()
        self.events: list[Any] = []

    def read(self, event: dict[str, Any]) -> None:
        self.events.append(event)

    def read_text(self, data: bytes) -> None:
        self.events.append(data)


def fed(*parts: bytes) -> list[Any]:
    meter = Seen()
    for part in parts:
        meter.feed(part)
    meter.end()
    return meter.events


def test_only_events_with_a_needle_are_parsed() -> None:
    stream = b'data: {"c": 1}\n\ndata: {"a": 2}\n\ndata: {"bb": 3}\n\ndata: {"b+": 4}\n\ndata: [END]\n\n'
    assert fed(stream) == [{"a": 2}, {"b+": 4}, b"[END]"]


def test_a_needle_outside_of_data_is_nothing() -> None:
    assert fed(b'event: "a"\n: "a"\nid: "a"\ndata: 1\n\n') == []


@given(st.data())
def test_lines_may_come_in_any_pieces(data: st.DataObject) -> None:
    stream = b'data: {"a": "x"}\r\n\r\n: comment\n\ndata:{"b+": 1}\n\ndata: {"a": broken\n\ndata: {"a": 3}'
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    parts = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert fed(*parts) == [{"a": "x"}, {"b+": 1}, {"a": 3}]


def test_a_line_without_end_costs_no_memory_and_the_next_is_read() -> None:
    meter = Seen()
    for _ in range(3 * MAX_LINE // 2**20):
        meter.feed(b'data: {"a": "' + bytes(2**20))
    assert meter._tail_size > MAX_LINE
    assert sum(map(len, meter._tail)) <= MAX_LINE
    meter.feed(b'"}\n\ndata: {"a": 1}\n\n')
    assert meter.events == [{"a": 1}]


def test_json_that_is_none_is_not_read() -> None:
    for body in (b"", b"[1]", b"{", b"[" * 100_000, b"\xff"):
        meter = JSONMeter()
        meter.feed(body)
        meter.end()
        assert meter.complete, "framing, not content, says whether an answer is whole"


def test_events_are_taken_whole() -> None:
    stream = b'event: one\ndata: {"a":\ndata: 1}\n\n: comment\n\ndata: x\r\n\r\nevent: bare\n\nevent: cut\ndata: {'
    assert list(sse_events(stream)) == [("one", b'{"a":\n1}'), ("", b"x"), ("bare", b"")]


def test_a_count_is_a_count() -> None:
    assert [count(value) for value in (7, 0, -1, 1.5, True, "7", None, 2**53, [7])] == [7, 0, 0, 0, 0, 0, 0, 0, 0]
