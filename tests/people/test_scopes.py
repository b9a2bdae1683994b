"""What lists of scopes allow."""

from __future__ import annotations

import time

import pytest

from aimux.config.scopes import ScopeError, parse_scope
from aimux.people.scopes import allowance

PROVIDERS = ("claude", "chatgpt")


@pytest.mark.parametrize(
    ("written", "means"),
    [
        ("claude", "provider:claude"),
        ("provider:claude", "provider:claude"),
        ("model:claude-haiku-*", "model:claude-haiku-*"),
        ("claude-haiku-*", "model:claude-haiku-*"),
        ("*haiku*", "model:*haiku*"),
        ("group:ci", "group:ci"),
        ("gpt-5.5", "model:gpt-5.5"),
        ("ft:gpt-5:team", "model:ft:gpt-5:team"),
        ("model:claude", "model:claude"),
    ],
)
def test_how_they_are_written(written: str, means: str) -> None:
    assert parse_scope(written, PROVIDERS) == means
    assert parse_scope(means, PROVIDERS) == means


@pytest.mark.parametrize(
    "written",
    [
        "",
        "provider:",
        "provider:nosuch",
        "model:a*b",
        "model:",
        "a b",
        "group:../x",
        "*",
        "model:a\tb",
        "modle:x",
        "models:x",
    ],
)
def test_what_can_not_be_read_is_refused(written: str) -> None:
    with pytest.raises(ScopeError):
        parse_scope(written, PROVIDERS)


def test_nothing_is_restricted_where_nothing_is_said() -> None:
    assert allowance([(), ()], [(), ()]) is None


def test_of_each_kind_one_that_fits_is_enough() -> None:
    allowed = allowance([["provider:claude", "model:*haiku*", "model:claude-sonnet-*"]], [])
    assert allowed is not None
    assert allowed.allows("claude", "claude-haiku-4-5")
    assert allowed.allows("claude", "claude-sonnet-4-5")
    assert not allowed.allows("claude", "claude-opus-4-1")
    assert not allowed.allows("chatgpt", "claude-haiku-4-5")


def test_whoever_is_bound_to_models_has_to_name_one() -> None:
    allowed = allowance([["model:gpt-5*"]], [])
    assert allowed is not None
    assert not allowed.allows("chatgpt", "")
    assert allowed.allows("chatgpt", None)
    by_provider = allowance([["provider:chatgpt"]], [])
    assert by_provider is not None
    assert by_provider.allows("chatgpt", "")


def test_user_and_token_bind_both_and_groups_add_up() -> None:
    allowed = allowance([["provider:claude", "provider:chatgpt"], ["model:*mini"]], [["provider:chatgpt"], []])
    assert allowed is not None
    assert allowed.allows("chatgpt", "gpt-5-mini")
    assert not allowed.allows("claude", "claude-mini")
    assert not allowed.allows("chatgpt", "gpt-5")
    either = allowance([], [["provider:claude", "model:claude-haiku-*"], ["provider:chatgpt"]])
    assert either is not None
    assert either.allows("chatgpt", "gpt-5.5")
    assert either.allows("claude", "claude-haiku-4-5")
    assert not either.allows("claude", "claude-opus-4-1")


def test_account_groups() -> None:
    bound = allowance([["group:eu"]], [])
    assert bound is not None
    assert bound.accounts([]) == {"eu"}
    assert bound.accounts(["eu", "ci"]) == {"eu"}
    assert bound.accounts(["ci"]) == frozenset()
    shared = allowance([], [["group:eu"], ["group:us"], ["provider:claude"]])
    assert shared is not None
    assert shared.accounts(["eu", "ci"]) == {"eu"}
    free = allowance([["provider:claude"]], [])
    assert free is not None
    assert free.accounts([]) is None


def test_no_pattern_takes_long() -> None:
    hostile = allowance([["model:*" + "a" * 199 + "*"]], [])
    assert hostile is not None
    started = time.perf_counter()
    assert not hostile.allows("claude", "a" * 198 + "b" + "a" * 57)
    assert time.perf_counter() - started < 0.1


def test_each_of_several_models_has_to_be_allowed() -> None:
    bound = allowance([["model:small-*", "model:exact"]], [])
    assert bound is not None
    assert bound.allows("compat", "small-1, exact,small-2")
    assert not bound.allows("compat", "small-1,large")
    assert not bound.allows("compat", "small-1,")
