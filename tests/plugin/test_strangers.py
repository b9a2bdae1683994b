"""What a plugin makes of aimux's classes: the same on a compiled build, which compiles some of them."""

from __future__ import annotations

import copy
import pickle
import weakref
from typing import Any

import pytest

from aimux.accounts.quota import Quota
from aimux.gateway.meter_feed import MeterFeed
from aimux.plugin import JSONMeter, LimitWindow, MessageMeter, Meter, Usage
from aimux.plugin.formats.anthropic import MessagesAnswer, MessagesStream

ANSWER = b'{"model": "m", "usage": {"input_tokens": 7, "output_tokens": 2}, "container": {"id": "container_1"}}'
STREAM = b'data: {"type": "message_start", "message": {"model": "m", "usage": {"input_tokens": 7}}}\n\n'
DELTA = b'data: {"type": "message_delta", "usage": {"output_tokens": 2}}\n\n'
FINISHED = b'data: {"type": "finished"}\n\n'


class Whole(Meter):
    sees_end = False
    complete = True


class Answer(MessagesAnswer):
    """Attributes of the class that a meter of aimux's has, and more than it reads."""

    sees_end = True
    complete = False
    consumes = False

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def read(self, answer: dict[str, Any]) -> None:
        super().read(answer)
        self.usage.tier = self.name
        self.complete = True


class Stream(MessagesStream):
    needles = (*MessagesStream.needles, b'"finished"')

    def read(self, event: dict[str, Any]) -> None:
        if event.get("type") == "finished":
            self.complete = True
        else:
            super().read(event)


class Told(JSONMeter):
    """What is an attribute of a meter may be a property of another one."""

    @property
    def complete(self) -> bool:  # type: ignore[override]
        return bool(self.usage.model)

    def read(self, answer: dict[str, Any]) -> None:
        self.usage.model = answer["model"]


def seen(meter: Meter, *parts: bytes) -> MeterFeed:
    feed = MeterFeed(meter, "", "acme")
    for part in parts:
        feed.pending.append(part)
        feed.flush()
    feed.end()
    return feed


def test_what_a_class_says_holds_for_its_meters() -> None:
    feed = seen(Whole(), b"anything")
    assert (feed.truncated, feed.whole) == (False, False)


def test_an_attribute_of_an_own_class_stands_in_place_of_aimuxs() -> None:
    meter = Answer("priority")
    assert (meter.complete, meter.consumes, MessagesAnswer().complete) == (False, False, True)
    feed = seen(meter, ANSWER[:20], ANSWER[20:])
    assert meter.usage == Usage("m", 7, 2, tier="priority")
    assert meter.stored == ("container_1",)
    assert (feed.truncated, feed.whole) == (False, True)


def test_a_method_of_an_own_class_is_called_in_place_of_aimuxs() -> None:
    meter = Stream()
    feed = seen(meter, STREAM, DELTA[:9], DELTA[9:] + FINISHED)
    assert meter.usage == Usage("m", 7, 2)
    assert feed.whole


def test_an_attribute_may_be_a_property() -> None:
    assert seen(Told(), b'{"model": "m"}').truncated is False
    assert seen(Told(), b'{"model": ""}').truncated is True


@pytest.mark.parametrize(
    "answer",
    [b"[]", b"{}", b'{"model": 3, "usage": []}', b"\xff", b'{"usage": {"input_tokens": "7"}}'],
)
def test_what_an_answer_lacks_is_not_counted(answer: bytes) -> None:
    meter = Answer("")
    seen(meter, answer)
    assert meter.usage == Usage()


def test_what_an_own_meter_raises_ends_the_metering_alone(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(MessagesAnswer):
        def read(self, answer: dict[str, Any]) -> None:
            super().read(answer)
            raise KeyError("acme")

    meter = Broken()
    feed = seen(meter, ANSWER)
    assert "usage of a acme answer can't be read: KeyError: 'acme'" in caplog.text
    assert meter.usage.input_tokens == 7
    assert not feed.whole


def test_sockets_are_metered_by_an_own_classs_turns() -> None:
    meter = MessageMeter(Stream)
    for line in (STREAM, DELTA, FINISHED):
        meter.feed(line.removeprefix(b"data: ").strip())
    assert (meter.complete, meter.usage) == (True, Usage("m", 7, 2))


def test_meters_and_usage_are_ordinary_objects() -> None:
    meter: Any = MessagesStream()
    meter.note = "of a plugin's own"
    assert weakref.ref(meter)() is meter
    usage = Usage("m", 7, 2, tier="priority")
    assert copy.copy(usage) == pickle.loads(pickle.dumps(usage)) == usage


def test_windows_may_be_a_list_with_whole_numbers() -> None:
    quota = Quota()
    told: Any = [LimitWindow("quota", 1, 2_000), LimitWindow("day", 0, 3_000, scope="big")]
    quota.observe(told, 1_000)
    assert (quota.used, quota.changes_at) == (1, 2_000)
