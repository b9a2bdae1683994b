"""What a message of the Anthropic format says of its usage. Compiled: it is read for each answer."""

from __future__ import annotations

from typing import Any

from aimux.plugin.reading import count, word
from aimux.plugin.types import FAST, REGIONAL
from aimux.plugin.usage import Usage

_FALLBACK = "fallback_message"
_ATTEMPTS = frozenset({"message", _FALLBACK})
"""The `iterations` that a usage's own counts include: neither compaction nor the advisor's, which has another model.
Where another model took over, they are the attempts of the one that served."""
_MOST_ITERATIONS = 100
_NOTHING_SAID = 1
"""Tokens of output that a refusal counts which comes before any: it is not billed."""
_NOT_APIECE = frozenset({"web_fetch_requests", "tool_search_requests", "code_execution_requests"})
"""Tools that cost nothing besides their tokens, or by the hour, of which no answer tells."""
_PLAIN = frozenset({"", "standard", "priority", "batch"})
"""Tiers that say nothing of speed and region."""


def read_usage(usage: Usage, message: dict[str, Any]) -> None:
    """Take over what a message (or delta) reports. Counts that it does not name stay, and so do those that it repeats
    as 0.

    Some compatible servers report everything in `message_start`, others everything in the last `message_delta`.
    """
    if isinstance(model := message.get("model"), str):
        usage.model = model
    told = message.get("usage")
    if not isinstance(told, dict):
        return
    if beside := usage.beside:
        usage.put_beside(())
    _read_counts(usage, told)
    if isinstance(iterations := told.get("iterations"), list):
        sampled = [one for one in iterations if isinstance(one, dict)][:_MOST_ITERATIONS]
        apart = [one for one in sampled if one.get("type") not in _ATTEMPTS]
        beside = tuple(_read_iteration(one, usage.tier) for one in [*_taken_over(usage, sampled), *apart])
    if beside:
        usage.put_beside(beside)


def _taken_over(usage: Usage, sampled: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The attempts of models that declined, and were billed because they had begun to answer. A stream's first event
    counts the first of them, and its model, so `usage` becomes what the last model took."""
    served = [model for one in sampled if one.get("type") == _FALLBACK and isinstance(model := one.get("model"), str)]
    if not served:
        return []
    attempts = [one for one in sampled if one.get("type") in _ATTEMPTS]
    declined = [one for one in attempts if isinstance(model := one.get("model"), str) and model != served[-1]]
    if not declined:
        return []
    usage.model = served[-1]
    usage.input_tokens = usage.output_tokens = usage.cache_read_tokens = 0
    usage.cache_write_tokens = usage.cache_write_1h_tokens = 0
    for one in attempts:
        if one not in declined:
            usage.add(_read_iteration(one, usage.tier))
    return [one for one in declined if count(one.get("output_tokens")) > _NOTHING_SAID]


def _read_iteration(told: dict[str, Any], tier: str) -> Usage:
    model = told.get("model")
    usage = Usage(model if isinstance(model, str) else "", tier=tier)
    _read_counts(usage, told)
    return usage


def _read_counts(usage: Usage, told: dict[str, Any]) -> None:
    usage.input_tokens = count(told.get("input_tokens")) or usage.input_tokens
    usage.output_tokens = count(told.get("output_tokens")) or usage.output_tokens
    usage.cache_read_tokens = count(told.get("cache_read_input_tokens")) or usage.cache_read_tokens
    written, known = count(told.get("cache_creation_input_tokens")), 0
    split = told.get("cache_creation")
    if isinstance(split, dict):
        one_hour = count(split.get("ephemeral_1h_input_tokens"))
        known = one_hour + count(split.get("ephemeral_5m_input_tokens"))
    # The total goes on with each of several samplings, the split is that of the first.
    if known:
        usage.cache_write_1h_tokens = one_hour if written <= known else one_hour * written // known
    elif written > usage.cache_write_tokens > 0:
        usage.cache_write_1h_tokens = usage.cache_write_1h_tokens * written // usage.cache_write_tokens
    usage.cache_write_tokens = max(written, known) or usage.cache_write_tokens
    if isinstance(tools := told.get("server_tool_use"), dict):
        billed = sum(count(number) for name, number in tools.items() if name not in _NOT_APIECE)
        usage.server_tools = billed or usage.server_tools
    if told.get("inference_geo") == "us" or told.get("speed") == FAST or usage.tier not in _PLAIN:
        usage.tier = _tier(told, usage.tier)
    else:
        usage.tier = word(told.get("service_tier")) or usage.tier


def _tier(told: dict[str, Any], before: str) -> str:
    """With the speed and the region, each of which only one of several events may name."""
    tier = before
    if told.get("speed") == FAST:
        tier = FAST
    elif not before.startswith(FAST):
        tier = word(told.get("service_tier")) or before
    regional = told.get("inference_geo") == "us" or REGIONAL in before
    return tier + REGIONAL if regional and REGIONAL not in tier else tier


def is_free(usage: Usage, *, began: bool) -> bool:
    """Whether what stopped with `refusal` was refused by the model's classifiers before any output: the API does not
    bill that, whatever its usage counts. `began`: there was content."""
    return not began and usage.output_tokens <= _NOTHING_SAID and not usage.beside


def stored_message(message: dict[str, Any]) -> tuple[str, ...]:
    """The message itself, from which a later request may go on."""
    one = message.get("id")
    return (one,) if isinstance(one, str) and one else ()


def stored_container(message: dict[str, Any]) -> tuple[str, ...]:
    """The container that a message's code ran in, which a later one may name again."""
    container = message.get("container")
    one = container.get("id") if isinstance(container, dict) else None
    return (one,) if isinstance(one, str) and one else ()
