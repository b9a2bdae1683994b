"""Notices on their way: once, signed, tried again where that may help, and never waited for."""

from __future__ import annotations

import asyncio
import hmac
import json
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from types import ModuleType

import pytest

from aimux.config.notices import Notices
from aimux.notices import Notice, Teller
from aimux.notices import teller as module
from tests.notices.receiver import Receiver, receiver
from tests.waiting import until

__all__ = ["receiver"]

SECRET = "a-secret-of-sixteen-and-more"
PAUSES = module.PAUSES


@pytest.fixture
async def make(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Callable[..., Teller]]:
    monkeypatch.setattr(module, "PAUSES", (0.01, 0.01))
    made: list[Teller] = []

    def teller(url: str, **more: object) -> Teller:
        made.append(Teller(Notices.model_validate({"webhooks": [{"url": url, **more}]})))
        return made[-1]

    yield teller
    for one in made:
        await one.close()


def notice(once: object = None) -> Notice:
    return Notice("limit", "user:alice", "alice has used 81%.", 1_795_700_000.0, {"used": 16.2}, once)


async def test_it_is_told_once_and_signed(receiver: Receiver, make: Callable[..., Teller]) -> None:
    told = make(receiver.url, secret=SECRET)
    for _ in range(3):
        told.tell(notice())
    told.tell(notice(once="another"))
    await receiver.until(2)
    headers, body = receiver.got[0]
    assert json.loads(body) == {
        "event": "limit",
        "about": "user:alice",
        "message": "alice has used 81%.",
        "time": "2026-11-26T13:33:20+00:00",
        "details": {"used": 16.2},
    }
    moment, _, given = headers["x-aimux-signature"].removeprefix("t=").partition(",v1=")
    expected = hmac.new(SECRET.encode(), f"{moment}.".encode() + body, "sha256").hexdigest()
    assert given == expected
    assert abs(int(moment) - time.time()) < 60
    await asyncio.sleep(0.02)
    assert len(receiver.got) == 2
    assert [one.once for one in told.recent] == [None, "another"]


async def test_what_is_over_may_be_told_again(receiver: Receiver, make: Callable[..., Teller]) -> None:
    told = make(receiver.url)
    told.tell(notice())
    told.forget(notice())
    told.tell(notice())
    await receiver.until(2)
    assert "x-aimux-signature" not in receiver.got[0][0]


async def test_beyond_as_many_as_may_wait_one_is_shown_and_not_sent(
    receiver: Receiver, make: Callable[..., Teller], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WAITING", 1)
    told = make(receiver.url)
    for once in range(module.KEPT + 1):
        told.tell(notice(once))
    assert caplog.text.count("a notice was not sent: 1 others are still waiting") == module.KEPT
    assert [one.once for one in told.recent] == [*range(1, module.KEPT + 1)]
    await receiver.until(1)
    async with asyncio.timeout(5):  # for the first to be over
        while len(receiver.got) < 2:
            told.tell(notice(object()))
            await asyncio.sleep(0.005)


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (404, "it answers with status 404"),
        (302, "it redirects (status 302), which is not followed"),
        (101, "it answers with status 101"),
    ],
)
async def test_the_log_says_which_receiver_refuses_and_how(
    receiver: Receiver, make: Callable[..., Teller], caplog: pytest.LogCaptureFixture, status: int, told: str
) -> None:
    receiver.answers = [status]
    make(receiver.url).tell(notice())
    where = receiver.url.removeprefix("http://").removesuffix("/hook")
    await until(lambda: f"a notice could not be sent to {where}: {told}" in caplog.text, 5)


async def test_the_log_says_why_a_receiver_is_not_reached(
    make: Callable[..., Teller], unused_tcp_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    make(f"http://127.0.0.1:{unused_tcp_port}/secret").tell(notice())
    await until(lambda: f"a notice waits for 127.0.0.1:{unused_tcp_port}: it can't be reached (" in caplog.text, 5)
    assert "secret" not in caplog.text


@pytest.mark.parametrize(
    ("answers", "attempts"),
    [([503, 429, 200], 3), ([500, 408, 425], 3), ([404], 1), ([400], 1), ([300], 1), ([302], 1), ([0, 200], 2)],
)
async def test_it_is_sent_again_where_that_may_help(
    receiver: Receiver,
    make: Callable[..., Teller],
    monkeypatch: pytest.MonkeyPatch,
    answers: list[int],
    attempts: int,
) -> None:
    if 0 in answers:
        monkeypatch.setattr(module, "SECONDS", 0.1)
    receiver.answers = list(answers)
    make(receiver.url).tell(notice())
    await receiver.until(attempts)
    await asyncio.sleep(0.05)
    assert len(receiver.got) == attempts


async def test_a_receiver_that_is_away_for_an_hour_gets_it_once(
    receiver: Receiver, make: Callable[..., Teller], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "PAUSES", tuple(pause / 1e5 for pause in PAUSES))
    away = next(count for count in range(100) if sum(PAUSES[:count]) > 3600)
    receiver.answers = [503, 429] * (away // 2) + [500]
    make(receiver.url).tell(notice())
    await receiver.until(len(receiver.answers) + 1)
    await asyncio.sleep(0.05)
    assert len({body for _, body in receiver.got}) == 1
    assert receiver.answers == []
    assert caplog.text.count("a notice waits for 127.0.0.1") == 1
    assert "could not be sent" not in caplog.text


async def test_what_has_not_arrived_at_the_end_is_said(
    receiver: Receiver, make: Callable[..., Teller], caplog: pytest.LogCaptureFixture
) -> None:
    receiver.answers = [503] * 3
    told = make(receiver.url)
    told.tell(notice())
    await told.close()
    assert "notices that have not arrived are given up: 1" in caplog.text


async def test_a_receiver_that_a_reload_has_removed_gets_nothing_more(
    receiver: Receiver, make: Callable[..., Teller], caplog: pytest.LogCaptureFixture
) -> None:
    receiver.answers = [503] * 3
    told = make(receiver.url)
    told.tell(notice())
    await receiver.until(1)
    told.settings = Notices()
    await asyncio.sleep(0.05)
    assert len(receiver.got) == 1
    assert "could not be sent" not in caplog.text


async def test_no_part_of_an_address_is_in_the_log(
    make: Callable[..., Teller], caplog: pytest.LogCaptureFixture
) -> None:
    make("http://user:secret@127.0.0.1:1/a-secret-path?token=secret").tell(notice())
    await until(lambda: "could not be sent to 127.0.0.1" in caplog.text, 5)
    assert "secret" not in caplog.text


def install(monkeypatch: pytest.MonkeyPatch, apprise: type) -> None:
    """Have this be what the package `apprise` brings."""
    fake = ModuleType("apprise")
    fake.__dict__["Apprise"] = apprise
    monkeypatch.setitem(sys.modules, "apprise", fake)


async def test_apprise_that_is_not_there_is_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "apprise", None)
    told = Teller(Notices.model_validate({"apprise": ["mailto://x"]}))
    told.tell(notice())
    await until(lambda: "pip install apprise" in caplog.text, 5)
    await told.close()


async def test_apprise_is_prepared_beside_the_loop_and_its_faults_tell_no_address(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    threads: list[int] = []

    class Apprise:
        def __init__(self) -> None:
            threads.append(threading.get_ident())

        def add(self, url: str) -> bool:
            return url.startswith("mailto:")

        async def async_notify(self, *, title: str, body: str) -> bool:
            raise RuntimeError("mailto://user:secret@host")

    install(monkeypatch, Apprise)
    told = Teller(Notices.model_validate({"apprise": ["mailto://user:secret@host", "odd://x"]}))
    told.tell(notice())
    async with asyncio.timeout(5):
        while "was not sent: RuntimeError" not in caplog.text:
            await asyncio.sleep(0.005)
        while "notices.apprise[1] is no address that apprise understands" not in caplog.text:
            await asyncio.sleep(0.005)
    assert "secret" not in caplog.text
    assert threads != [threading.get_ident()]
    await told.close()


async def test_who_was_reached_by_apprise_is_not_told_again_for_the_sake_of_another(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "PAUSES", (0.01, 0.01))
    told: list[str] = []
    bodies: list[str] = []

    class Apprise:
        def __init__(self) -> None:
            self.urls: list[str] = []

        def add(self, url: str) -> bool:
            self.urls.append(url)
            return True

        async def async_notify(self, *, title: str, body: str) -> bool:
            told.extend(self.urls)
            bodies.append(body)
            return "mailto://away" not in self.urls

    install(monkeypatch, Apprise)
    teller = Teller(Notices.model_validate({"apprise": ["slack://there", "mailto://away"]}))
    teller.tell(notice())
    await until(lambda: "a notice could not be sent to notices.apprise[1]" in caplog.text, 5)
    assert sorted(told) == ["mailto://away"] * 3 + ["slack://there"]
    assert set(bodies) == {"alice has used 81%. (2026-11-26 13:33 UTC)"}, "one that comes late says when it was"
    await teller.close()


async def test_an_address_of_apprise_that_a_reload_has_removed_gets_nothing_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "PAUSES", (0.01, 0.01))
    told: list[str] = []

    class Apprise:
        def add(self, url: str) -> bool:
            return True

        async def async_notify(self, *, title: str, body: str) -> bool:
            told.append(body)
            teller.settings = Notices()
            return False

    install(monkeypatch, Apprise)
    teller = Teller(Notices.model_validate({"apprise": ["mailto://away"]}))
    teller.tell(Notice("limit", "user:alice", "alice has used 81%.", time.time()))
    await until(lambda: told, 5)
    await asyncio.sleep(0.05)
    assert told == ["alice has used 81%."]
    await teller.close()
