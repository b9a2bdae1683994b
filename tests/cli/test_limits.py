"""`aimux limits`, with a server that obeys at once and on its database without one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from aimux.plugin import LimitWindow
from tests.cli.accounts.conftest import commands
from tests.cli.support import Commands
from tests.control.live import running

USERS = [{"name": "alice", "token": "alice-token-0123456789abcdef", "groups": ["research"]}]


@pytest.fixture(params=[True, False], ids=["served", "unserved"])
def aimux(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Commands]:
    limits = {"default": {"tokens_per_day": 2_000_000, "overage": "forbid"}}
    with running(tmp_path, serve=request.param, users=USERS, limits=limits) as live:
        yield commands(live)


def test_limits_are_set_one_by_one_and_shown(aimux: Commands) -> None:
    assert "tokens_per_day 4,100,000" in aimux("limits", "set", "user:alice", "tokens_per_day=4.1m").stdout
    aimux("limits", "set", "user:alice", "tokens_per_day=1.5M", "cost_per_week=20")
    said = aimux("limits", "set", "user:alice", "concurrent_requests=4", "tokens_per_day=none").stdout
    assert sorted(said.splitlines()) == ["concurrent_requests 4", "cost_per_week $20.00"]
    aimux("limits", "set", "user:alice", "--model", "claude-opus-*", "cost_per_day=5")
    [alice] = aimux.json("limits", "show", "user:alice")
    assert alice["limits"] == {
        "concurrent_requests": 4,
        "cost_per_week": 20,
        "models": {"claude-opus-*": {"cost_per_day": 5}},
    }
    shown = aimux("limits").stdout
    assert "default (in the configuration)\n  tokens_per_day 2,000,000\n  overage forbid" in shown
    assert "  cost_per_week $20.00: $0.00 of $20.00 used, until " in shown
    assert "  claude-opus-*: cost_per_day $5.00: $0.00" in shown


def test_one_owner_is_shown_with_what_others_set_for_him(aimux: Commands) -> None:
    shown = aimux("limits", "show", "user:alice").stdout.splitlines()
    assert shown[0] == "user:alice"
    assert shown[1].startswith("  tokens_per_day 2,000,000 (default): 0 of 2,000,000 used, until ")
    assert shown[2:] == ["  overage forbid (default)"]
    aimux("limits", "set", "user:alice", "tokens_per_day=5", "overage=forbid")
    shown = aimux("limits", "show", "user:alice").stdout.splitlines()
    assert shown[1].startswith("  tokens_per_day 5: 0 of 5 used, until ")
    assert shown[2:] == ["  overage forbid"]


def test_what_is_refused_now_is_shown_with_its_beginning_and_end(tmp_path: Path) -> None:
    limits = {"default": {"overage": "forbid"}}
    with running(tmp_path, users=USERS, limits=limits) as live:
        end = datetime.now(UTC) + timedelta(hours=2)
        window = LimitWindow("5h", 1.0, end.timestamp())
        account = live.app.pools["claude"].accounts["default"]
        begun = end - timedelta(hours=3)
        live.loop.call_soon_threadsafe(account.observe, [window], begun.timestamp())
        shown = commands(live)("limits", "show", "user:alice").stdout
        since, until = (f"{one.astimezone():%Y-%m-%d %H:%M %Z}" for one in (begun, end))
    said = f"  claude refuses every model since {since}, until {until}: nothing that is included is left\n"
    assert said in shown


def test_a_limit_of_a_provider_that_is_not_there_can_only_be_taken_away(aimux: Commands) -> None:
    aimux("limits", "set", "user:alice", "cost_per_day=5")
    aimux("limits", "set", "user:alice", "--provider", "cloud", "cost_per_day=5", expect=1)
    said = aimux("limits", "set", "user:alice", "--provider", "cloud", "cost_per_day=none").stdout
    assert said == "cost_per_day $5.00\n"


@pytest.mark.parametrize("serve", [True, False])
def test_limits_of_a_user_whom_nobody_knows_are_shown(tmp_path: Path, serve: bool) -> None:
    with running(tmp_path, serve=serve, limits={"users": {"nobody": {"tokens_per_day": 5}}}) as live:
        aimux = commands(live)
        assert aimux("limits").stdout.startswith("user:nobody (in the configuration)\n  tokens_per_day 5")
        assert "tokens_per_day 5" in aimux("limits", "show", "user:nobody").stdout
        aimux("limits", "grant", "user:nobody", "tokens_per_day=5", "--until", "3d", expect=1)


def test_limits_outlive_their_owner_and_can_be_taken_away(aimux: Commands) -> None:
    aimux("users", "add", "bob")
    aimux("limits", "set", "user:bob", "tokens_per_day=7")
    aimux("users", "remove", "bob", "--yes")
    assert "user:bob\n  tokens_per_day 7" in aimux("limits").stdout
    assert "tokens_per_day 7" in aimux("limits", "show", "user:bob").stdout
    assert "There is no user 'bob'" in aimux("limits", "set", "user:bob", "tokens_per_day=8", expect=1).stderr
    aimux("limits", "remove", "user:bob")
    assert "bob" not in aimux("limits").stdout


def test_where_everybodys_stand_is_told(aimux: Commands) -> None:
    said = aimux("limits", "set", "default", "tokens_per_day=7", expect=2).stderr
    assert "everybody's default stands in the configuration (limits.default)" in said


def test_a_grant_is_given_until_a_moment(aimux: Commands) -> None:
    day = (datetime.now(UTC) + timedelta(days=3)).date()
    end = day + timedelta(days=1)
    said = aimux("limits", "grant", "user:alice", "tokens_per_day=1M", "--until", f"{day}").stdout
    assert said == f"user:alice has 1,000,000 more of tokens_per_day until {end} 00:00 UTC.\n"
    said = aimux("limits", "grant", "user:alice", "tokens_per_day=5", "--until", f"{day:%A}").stdout
    assert said == f"user:alice has 5 more of tokens_per_day until {end} 00:00 UTC.\n"
    aimux("limits", "set", "group:research", "cost_per_month=1.5k")
    grant = aimux.json("limits", "grant", "group:research", "cost_per_month=20", "--until", "12h")
    assert grant["amount"] == 20
    assert "granted: cost_per_month +$20.00 until " in aimux("limits", "show", "group:research").stdout


def test_they_are_removed(aimux: Commands) -> None:
    aimux("limits", "set", "group:research", "cost_per_month=5", "overage=forbid", "weight=2")
    assert "  weight 2\n" in aimux("limits", "show", "group:research").stdout
    removed = json.loads(aimux("limits", "remove", "group:research", "--json").stdout)
    assert removed == {"kind": "group", "name": "research", "removed": True}
    assert aimux("limits", "show", "group:research").stdout == "It has no limits of its own.\n"
    assert "has no limits of its own" in aimux("limits", "remove", "group:research", expect=1).stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["set", "user:alcie", "tokens_per_day=1"], 1, "There is no user 'alcie'"),
        (["set", "alice", "tokens_per_day=1"], 2, "write user:NAME, group:NAME or token:ID"),
        (["set", "user:alice", "tokens=1"], 2, "with one of concurrent_requests"),
        (["set", "user:alice", "tokens_per_day=1", "tokens_per_day=2"], 2, "Say tokens_per_day once."),
        (["set", "user:alice", "tokens_per_day=lots"], 2, "is not an amount"),
        (["set", "user:alice", "tokens_per_day=1.2.3"], 2, "'1.2.3' is not an amount"),
        (["set", "user:alice", "tokens_per_day="], 2, "'tokens_per_day=' has no amount: write it like"),
        (["set", "user:alice", "--model", "", "tokens_per_day=1"], 2, "'--model': is empty"),
        (["grant", "user:alice", "tokens_per_day=1", "--until", "9999-12-31"], 2, "write 3d, 12h"),
        (["grant", "user:alice", "tokens_per_day=1", "--until", "99999999d"], 2, "write 3d, 12h"),
        (["set", "user:alice", "--provider", "cloud", "tokens_per_day=1"], 1, "There is no provider 'cloud'; there "),
        (["set", "user:alice", "tokens_per_day=1.5"], 2, "tokens_per_day is a whole number, and not 1.5"),
        (["set", "user:alice", "overage=no"], 2, "overage is allow or forbid"),
        (["grant", "user:alice", "overage=forbid", "--until", "3d"], 2, "A grant is of a number"),
        (["grant", "user:alice", "tokens_per_day=none", "--until", "3d"], 2, "A grant is of a number"),
        (["grant", "user:alice", "tokens_per_day=1", "--until", "soon"], 2, "write 3d, 12h"),
        (["grant", "user:alice", "cost_per_day=1", "--until", "3d"], 1, "aimux limits set user:alice cost_per_day="),
    ],
)
def test_what_is_wrong_is_said(aimux: Commands, arguments: list[str], code: int, words: str) -> None:
    assert words in aimux("limits", *arguments, expect=code).stderr
