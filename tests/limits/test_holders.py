"""Whose limits hold for whom."""

from __future__ import annotations

import itertools

import pytest

from aimux.limits.rules import EVERYBODY, NANO, Forbidden, Grant, Key, Owner, Policy, Rule, Scope, Who
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


@pytest.mark.parametrize(
    ("pattern", "covered", "others"),
    [
        ("", ["big-1", ""], []),
        ("big-1", ["big-1"], ["big-10", "a-big-1", "BIG-1", ""]),
        ("big-*", ["big-1", "big-"], ["big", "a-big-1", ""]),
        ("/big-[0-9]|tiny/", ["big-1", "tiny"], ["big-10", "tiny-2", "a-tiny", ""]),
        ("//", ["//"], ["big-1", ""]),
    ],
)
def test_a_scope_is_a_name_a_beginning_or_an_expression(pattern: str, covered: list[str], others: list[str]) -> None:
    for model in (*covered, *others):
        assert Scope(model=pattern).covers("one", model) == (model in covered)
        assert Scope("one", pattern).covers("one", model) == (model in covered)
        assert not Scope("two", pattern).covers("one", model)


def test_who_has_set_a_limit_is_whose_amount_holds() -> None:
    big, both = Scope(model="big-*"), ("interns", "research")
    policy = Policy(
        (
            default("tokens_per_day", 90),
            default("cost_per_day", 80),
            default("tokens_per_day", 5, model="big-*"),
            Rule(Owner("member", "research"), "tokens_per_day", 50),
            Rule(Owner("member", "interns"), "tokens_per_day", 60),
            Rule(Owner("member", "interns"), "cost_per_day", 10),
            Rule(Owner("user", "bob"), "tokens_per_day", 70),
            Rule(Owner("user", "bob"), "cost_per_month", 7),
            Rule(Owner("group", "research"), "tokens_per_day", 500),
            Rule(Owner("token", "ci"), "tokens_per_day", 40, big),
        )
    )
    for who in (Who("bob", "ci", both), Who("ann", "ci", both), Who("ann", "", ("interns",)), Who("bob"), Who("")):
        for (owner, limit, scope), amount in policy.holdings(who):
            set_by = policy.set_by(who, owner, limit, str(scope))
            assert Rule(set_by, limit, amount, scope) in policy.rules, (who, owner, limit, scope)
            assert owner.kind == "user" or set_by == owner
    assert policy.set_by(Who("bob", "", both), Owner("user", "bob"), "cost_per_day", "") == Owner("member", "interns")
    assert policy.set_by(Who("bob", "", both), Owner("user", "bob"), "tokens_per_day", "big-*") == EVERYBODY


def test_a_grant_is_for_one_limit_of_one_owner() -> None:
    grant = Grant("g", Owner("user", "alice"), "tokens_per_day", 1000, 0.0, 1.0)
    policy = Policy((), (grant,))
    for owner, limit, scope in itertools.product(
        (Owner("user", "alice"), Owner("user", "bob"), Owner("token", "alice")),
        ("tokens_per_day", "tokens_per_week"),
        (Scope(), Scope("one")),
    ):
        held = (owner, limit, scope) == (grant.owner, grant.limit, Scope())
        assert policy.grants_for(Key(owner, limit, scope)) == ((grant,) if held else ())


def test_what_is_forbidden_to_a_user_a_token_or_a_group_is_to_nobody_else() -> None:
    everyone = [Who("x"), Who("y", "x"), Who("z", "", ("x",)), Who("w")]
    for kind, concerned in (("user", [0]), ("token", [1]), ("group", [2]), ("member", [2]), ("default", [0, 1, 2, 3])):
        owner = Owner(kind, "" if kind == "default" else "x")
        policy = Policy(forbidden=frozenset({Forbidden(owner, "overage", Scope(model="big-*"))}))
        assert policy.by_model
        for number, who in enumerate(everyone):
            assert policy.restricts(who) == policy.forbids("overage", who, "one", "big-1") == (number in concerned)
            assert not policy.forbids("overage", who, "one", "small")
            assert not policy.forbids("long_context", who, "one", "big-1")


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
