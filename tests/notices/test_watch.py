"""What is worth a notice, in a running aimux."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import create_autospec

import pytest

from aimux.accounts.account import Renewal
from aimux.certificates import ServerTLS, TLSFiles
from aimux.limits.leases import Mark, Standing
from aimux.limits.rules import Owner
from aimux.notices import watch
from aimux.plugin import Action, Credential, LimitWindow, Verdict
from tests.certificates.certificates import DAY, NOW, Files, Issued
from tests.gateway.answers import answer
from tests.gateway.conftest import Aimux, Start, Upstream, request, start, upstream
from tests.waiting import until

__all__ = ["start", "upstream"]


@pytest.fixture
def way() -> str:
    """How requests come in."""
    return "lane"


def look(aimux: Aimux, now: float | None = None) -> list[tuple[str, str]]:
    """The new notices of a look."""
    before = len(aimux.app.notices.recent)
    aimux.app.watch.look(time.time() if now is None else now)
    return [(one.event, one.about) for one in list(aimux.app.notices.recent)[before:]]


async def test_windows_are_told_at_80_and_95_percent_and_anew_after_their_reset(start: Start) -> None:
    aimux = await start()
    assert look(aimux) == []
    reset = time.time() + 3600

    def tell(used: float, resets_at: float = reset, **more: Any) -> None:
        aimux.account().observe((LimitWindow("5h", used, resets_at, **more),), time.time())

    for used, expected in ((0.7, 0), (0.8, 1), (0.9, 0), (0.96, 1), (0.99, 0)):
        tell(used)
        assert look(aimux) == [("window", "plain/default")] * expected, used
    tell(0.85, reset + 5 * 3600)
    assert look(aimux) == [("window", "plain/default")]
    assert aimux.app.notices.recent[-1].message == "plain/default has used 85% of its 5h window."


@pytest.mark.parametrize(
    "window",
    [
        LimitWindow("7d_opus", 0.99, time.time() + 3600, scope="opus"),
        LimitWindow("5h", 0.99, time.time() - 1),
        LimitWindow("5h", None, time.time() + 3600, status="rejected"),
    ],
    ids=["of one model", "over", "how full nobody knows"],
)
async def test_other_windows_are_not_told(start: Start, window: LimitWindow) -> None:
    aimux = await start()
    aimux.account().observe((window,), time.time())
    assert ("window", "plain/default") not in look(aimux)


@pytest.mark.parametrize(("resets", "told"), [(True, 1), (False, 2)])
async def test_a_window_that_wavers_at_a_mark_is_told_once(start: Start, resets: bool, told: int) -> None:
    aimux = await start()
    reset = time.time() + 3600 if resets else None
    events = []
    for used in (0.8, 0.79, 0.8):
        aimux.account().observe((LimitWindow("5h", used, reset),), time.time())
        events += look(aimux)
    assert events == [("window", "plain/default")] * told


async def test_so_is_one_whose_reset_wavers(start: Start) -> None:
    aimux = await start()
    reset = time.time() // 600 * 600 + 3600
    events = []
    for seconds in range(0, 600, 60):
        for late in (-1, 1):
            aimux.account().observe((LimitWindow(f"5h{seconds}", 0.9, reset + seconds + late),), time.time())
            events += look(aimux)
    assert len(events) == 10


async def test_parked_and_limited_accounts_are_told_when_it_begins(start: Start) -> None:
    aimux = await start(accounts=("default", "other"))
    aimux.account().apply(Verdict(Action.PARK, "revoked", remedy="log in again"), time.time())
    assert look(aimux) == [("account_parked", "plain/default")]
    assert look(aimux) == []
    aimux.account("other").apply(Verdict(Action.COOL_DOWN, "limited", until=time.time() + 600), time.time())
    assert look(aimux) == [("accounts_limited", "plain")]
    again = aimux.account("other").quota.free_at("")
    when = f"{datetime.fromtimestamp(again, UTC):%Y-%m-%d %H:%M} UTC"
    assert aimux.app.notices.recent[-1].message == f"No plain account has room: the next one is free at {when}."
    aimux.account().enable()
    assert look(aimux) == []
    aimux.account().apply(Verdict(Action.PARK, "revoked", remedy="log in again"), time.time())
    assert set(look(aimux)) == {("account_parked", "plain/default"), ("accounts_limited", "plain")}
    aimux.account().enable()
    assert look(aimux) == []
    for one in ("default", "other"):
        aimux.account(one).apply(Verdict(Action.PARK, "revoked", remedy="log in again"), time.time())
    assert look(aimux)[-1] == ("accounts_limited", "plain")
    assert aimux.app.notices.recent[-1].message == "No plain account has room: none comes back by itself."
    aimux.account("other").quota.end_cooldowns(time.time())
    aimux.account().enable()
    assert look(aimux) == []
    aimux.account().apply(Verdict(Action.PARK, "revoked", remedy="log in again"), time.time())
    assert look(aimux) == [("account_parked", "plain/default")], "no limit is the cause"


async def test_a_provider_without_accounts_is_no_notice(start: Start) -> None:
    aimux = await start(accounts=())
    assert look(aimux) == []


@pytest.mark.parametrize(("days", "told"), [(20, 0), (13, 1), (2, 1), (-1, 1)])
async def test_a_login_that_can_not_be_renewed_is_told_before_its_end(start: Start, days: int, told: int) -> None:
    aimux = await start()
    ends = time.time() + days * 86400
    aimux.account().publish(Credential("oauth", "t", refresh_token="r", expires_at=ends), time.time())
    assert look(aimux) == []
    aimux.account().publish(Credential("oauth", "s", expires_at=ends), time.time())
    assert [event for event, _ in look(aimux)].count("credential") == told
    if told:
        verb = "ends" if days > 0 else "has ended"
        assert f"can't be renewed, {verb} on " in aimux.app.notices.recent[-1].message


async def test_the_end_of_a_login_is_told_however_long_its_token_lasts(start: Start) -> None:
    """realiti4/claude-swap#347: a month after it was made, and nobody was told before."""
    aimux = await start()
    now = time.time()
    login = Credential("oauth", "t", refresh_token="r", expires_at=now + 3600, login_ends_at=now + 13 * 86400)
    aimux.account().publish(login, now)
    assert look(aimux) == [("credential", "plain/default")]
    assert "has to log in again, ends on " in aimux.app.notices.recent[-1].message
    assert aimux.account().state(now).reason == ""
    soon = aimux.account().state(now + 11 * 86400)
    assert (soon.status, soon.reason[:17]) == ("healthy", "its login ends on")
    assert soon.remedy == "log in again: aimux login plain --account default"
    assert aimux.account().state(now + 14 * 86400).reason.startswith("its login ended on ")


async def test_each_mark_before_an_end_is_told_once(start: Start) -> None:
    aimux = await start()
    ends = time.time() + 20 * 86400
    aimux.account().publish(Credential("oauth", "s", expires_at=ends), time.time())
    told = [
        look(aimux, ends - days * 86400).count(("credential", "plain/default")) for days in (15, 13, 5, 2, 1, 0, -1)
    ]
    assert told == [0, 1, 0, 1, 0, 1, 0]


@pytest.mark.parametrize(
    ("life", "left", "told"), [(90, 15, 0), (90, 13, 1), (6, 5, 0), (6, 1, 1), (6, -1, 1)], ids=str
)
async def test_a_certificate_is_told_when_it_should_have_been_renewed(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, life: int, left: int, told: int
) -> None:
    """One that lives for six days is new, and no news, with five left."""
    files = Files(tmp_path / "cert.pem", tmp_path / "key.pem")
    files.issue(Issued(not_after=NOW - DAY + life * DAY))
    aimux = await start()
    monkeypatch.setattr(aimux.app, "tls", ServerTLS(TLSFiles(files.cert, files.key)))
    now = (NOW + (life - 1 - left) * DAY).timestamp()
    assert look(aimux, now).count(("certificate", "certificate")) == told


async def test_it_looks_by_itself(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "EVERY", 0.01)
    aimux = await start()
    aimux.account().apply(Verdict(Action.PARK, "revoked", remedy="log in again"), time.time())
    await until(lambda: aimux.app.notices.recent)
    assert aimux.app.notices.recent[0].message == "plain/default is parked: revoked → log in again"


async def test_nor_is_one_whose_renewal_is_refused_told_only_when_it_has_ended(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    aimux = await start()
    renewer = create_autospec(Renewal, instance=True, trouble=("it can't be renewed: refused", ""), refused=True)
    monkeypatch.setattr(aimux.account(), "renewer", renewer)
    aimux.account().publish(Credential("oauth", "t", refresh_token="r", expires_at=time.time() + 600), time.time())
    assert look(aimux) == [("credential", "plain/default")]


async def test_a_price_that_nobody_knows_is_told(start: Start) -> None:
    aimux = await start(prices={"own": {"input": 1, "output": 2}})
    aimux.app.metering.prices.tariffs["plain", "odd"] = None
    aimux.app.metering.prices.tariffs["plain", ""] = None  # a request that named no model
    aimux.app.metering.prices.tariffs["plain", "own"] = None  # no list has it, and the configuration does
    assert look(aimux) == [("unknown_price", "plain/odd")]
    assert look(aimux) == []


async def test_models_that_a_client_makes_up_do_not_flood_anybody(start: Start) -> None:
    aimux = await start()
    tariffs = aimux.app.metering.prices.tariffs
    tariffs |= dict.fromkeys((("plain", f"odd{number}") for number in range(300)), None)
    told = [("unknown_price", f"plain/odd{number}") for number in range(20)] + [("unknown_price", "others")]
    assert look(aimux) == told
    tariffs |= dict.fromkeys((("plain", f"even{number}") for number in range(300)), None)
    assert look(aimux) == []
    del tariffs["plain", "odd3"]
    assert look(aimux) == [("unknown_price", "plain/odd20")]
    tariffs.clear()
    tariffs["plain", "a\n@everyone"] = None
    assert look(aimux) == [("unknown_price", "plain/a\n@everyone")]
    assert "\n" not in aimux.app.notices.recent[-1].message


async def test_a_limit_is_told_by_those_who_count_it(start: Start, upstream: Upstream) -> None:
    upstream.answer = answer(850)
    aimux = await start(limits={"default": {"tokens_per_day": 1000}})
    await aimux.send(request())
    [notice] = aimux.app.notices.recent
    assert (notice.event, notice.about) == ("limit", "user:ann")
    assert notice.message == "user:ann has used 85% of tokens_per_day (1,000)."


async def test_a_limit_in_money_for_some_requests_says_so(start: Start) -> None:
    aimux = await start()
    standing = Standing("cost_per_week", Owner("user", "ann"), "m", 20.0, 16.0, None)
    aimux.app.watch.marked(Mark(standing, 0.8))
    assert aimux.app.notices.recent[-1].message == "user:ann has used 80% of cost_per_week for m ($20.00)."
