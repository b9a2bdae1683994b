"""Whose limits hold for whom."""

from __future__ import annotations

from aimux.limits.rules import NANO, Owner, Policy, Rule, Who
from tests.limits.support import default, lease, limits, refusal, strictest, use


def test_ones_own_limit_stands_in_place_of_the_groups_and_this_of_the_default() -> None:
    rules = (
        default("tokens_per_day", 10),
        default("requests_per_minute", 7),
        Rule(Owner("member", "research"), "tokens_per_day", 50),
        Rule(Owner("member", "interns"), "tokens_per_day", 20),
        Rule(Owner("user", "bob"), "tokens_per_day", 1000),
    )
    policy = Policy(rules)
    assert strictest(policy, Who("carol")) == {"tokens_per_day": 10, "requests_per_minute": 7}
    assert strictest(policy, Who("carol", "", ("research",)))["tokens_per_day"] == 50
    assert strictest(policy, Who("carol", "", ("research", "interns")))["tokens_per_day"] == 20
    assert strictest(policy, Who("bob", "", ("interns",)))["tokens_per_day"] == 1000


def test_a_token_and_a_group_hold_besides() -> None:
    book = limits(
        Rule(Owner("user", "alice"), "tokens_per_day", 100_000),
        Rule(Owner("group", "research"), "tokens_per_day", 60_000),
        Rule(Owner("token", "ci"), "tokens_per_day", 20_000),
    )
    use(book, 30_000, Who("alice", "ci", ("research",)))
    assert refusal(book, Who("alice", "ci", ("research",))).standing.owner == Owner("token", "ci")
    use(book, 40_000, Who("bob", "", ("research",)))
    assert refusal(book).standing.owner == Owner("group", "research"), "what bob used is the group's as well"
    use(book, 1, Who("dave"))


def test_each_user_has_the_default_for_himself() -> None:
    book = limits(default("tokens_per_day", 5000))
    use(book, 6000, Who("alice"))
    refusal(book, Who("alice"))
    lease(book, Who("bob"))


def test_a_scope_holds_for_its_models_and_providers_alone() -> None:
    book = limits(default("requests_per_minute", 1, model="big-*"), default("requests_per_minute", 5, provider="other"))
    lease(book, model="big-1")
    assert refusal(book, model="big-2").standing.scope == "big-*"
    for _ in range(9):
        lease(book, model="small")


def test_who_comes_to_another_group_has_its_limits_at_once() -> None:
    """The limits of a user are compared in one place: those of the former group must not stay there."""
    book = limits(
        Rule(Owner("member", "interns"), "tokens_per_day", 1000),
        Rule(Owner("member", "research"), "cost_per_day", NANO),
        default("requests_per_minute", 4),
    )
    intern, researcher = Who("alice", "", ("interns",)), Who("alice", "", ("research",))
    use(book, 5000, intern)
    refusal(book, intern)
    use(book, 5000, researcher)
    assert refusal(book, intern).standing.limit == "tokens_per_day"
    book.settle(lease(book, researcher), 0, 0, 2 * NANO)
    assert refusal(book, researcher).standing.limit == "cost_per_day"
    assert refusal(book, intern).standing.used == 5000, "what was used elsewhere is none of it"


def test_the_strictest_of_the_present_groups_holds() -> None:
    book = limits(
        Rule(Owner("member", "interns"), "tokens_per_day", 1000),
        Rule(Owner("member", "research"), "tokens_per_day", 9000),
    )
    intern, researcher = Who("alice", "", ("interns",)), Who("alice", "", ("research",))
    use(book, 2000, intern)
    use(book, 2000, researcher)
    assert refusal(book, intern).standing.amount == 1000
    use(book, 2000, researcher)
