"""What the section `limits` of a configuration comes to, and what is wrong with one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from aimux.config import Config, ConfigError, parse_config
from aimux.config.limits import UserAllowances
from aimux.limits.configured import policy
from aimux.limits.rules import EVERYBODY, LIMITS, Owner, Rule, Scope, Who
from aimux.plugin.loader import load_plugins

PROVIDERS = load_plugins().providers
ROOT = Path(__file__).parents[2]


def load(**limits: Any) -> Config:
    return parse_config({"limits": limits}, environ={"HOME": "/h"}, providers=PROVIDERS)


def problem(**limits: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load(**limits)
    [found] = caught.value.problems
    return f"{found.where}: {found.message} ({found.remedy})"


def test_every_name_is_a_rule_of_its_owner_and_scope() -> None:
    config = load(
        default={"tokens_per_day": 10, "models": {"big-*": {"cost_per_day": 0.5}}},
        users={"alice": {"concurrent_requests": 2, "providers": {"claude": {"requests_per_minute": 3}}}},
        groups={"research": {"cost_per_month": 100, "each": {"cost_per_week": 7}}},
    )
    assert set(policy(config.limits).rules) == {
        Rule(EVERYBODY, "tokens_per_day", 10),
        Rule(EVERYBODY, "cost_per_day", 500_000_000, Scope(model="big-*")),
        Rule(Owner("user", "alice"), "concurrent_requests", 2),
        Rule(Owner("user", "alice"), "requests_per_minute", 3, Scope(provider="claude")),
        Rule(Owner("group", "research"), "cost_per_month", 100_000_000_000),
        Rule(Owner("member", "research"), "cost_per_week", 7_000_000_000),
    }


@pytest.mark.parametrize("name", LIMITS)
def test_nothing_is_a_limit_too(name: str) -> None:
    assert policy(load(default={name: 0}).limits).rules == (Rule(EVERYBODY, name, 0),)


def test_what_anybody_forbids_is_forbidden() -> None:
    limits = policy(
        load(
            default={"providers": {"claude": {"overage": "forbid"}}},
            groups={"interns": {"long_context": "forbid"}, "research": {"each": {"overage": "forbid"}}},
        ).limits
    )
    intern, researcher, other = Who("a", "", ("interns",)), Who("b", "", ("research",)), Who("c")
    assert limits.forbids("overage", other, "claude", "m")
    assert not limits.forbids("overage", other, "chatgpt", "m")
    assert limits.forbids("overage", researcher, "chatgpt", "m")
    assert limits.forbids("long_context", intern, "chatgpt", "m")
    assert not limits.forbids("long_context", other, "chatgpt", "m")


def test_limits_that_the_api_is_given_need_no_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    given = UserAllowances.model_validate({"providers": {"claude": {"requests_per_minute": 3}}})
    assert given.providers["claude"].requests_per_minute == 3


def test_a_weight_is_the_users_or_the_largest_of_the_groups() -> None:
    limits = policy(load(users={"alice": {"weight": 0.5}}, groups={"a": {"weight": 2}, "b": {"weight": 3}}).limits)
    assert limits.weight(Who("alice", "", ("a", "b"))) == 0.5
    assert limits.weight(Who("bob", "", ("a", "b"))) == 3
    assert limits.weight(Who("carol")) == 1


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (
            {"time_zone": "Europe/Berln"},
            r"limits.time_zone: 'Europe/Berln' is not a time zone \(did you mean Europe/Berlin",
        ),
        ({"time_zone": "../etc/passwd"}, "is not a time zone"),
        ({"default": {"tokens_per_hour": 1}}, "limits.default.tokens_per_hour"),
        ({"default": {"tokens_per_day": -1}}, "limits.default.tokens_per_day"),
        ({"default": {"cost_per_day": float("inf")}}, "limits.default.cost_per_day"),
        ({"default": {"cost_per_day": "nan"}}, "limits.default.cost_per_day"),
        ({"default": {"providers": {"cloude": {}}}}, "did you mean claude"),
        ({"default": {"models": {"/(/": {}}}}, "is not a regular expression"),
        ({"users": {"alice": {"weight": 0}}}, "limits.users.alice.weight"),
        ({"users": {"alice": {"each": {}}}}, "limits.users.alice.each"),
        ({"groups": {"a": {"overage": "perhaps"}}}, "limits.groups.a.overage"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(limits: dict[str, Any], words: str) -> None:
    assert re.search(words, problem(**limits))


def test_the_document_names_every_limit() -> None:
    text = (ROOT / "docs/limits.md").read_text()
    assert [name for name in LIMITS if f"`{name}`" not in text] == []
