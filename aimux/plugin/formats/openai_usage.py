"""What an answer in OpenAI's formats says of its usage, and of what is kept or over."""

from __future__ import annotations

from typing import Any

from aimux.plugin.reading import MOST_TOKENS, count, number, word
from aimux.plugin.types import BATCH, Over
from aimux.plugin.usage import Usage

PAINTER = "gpt-image-1"
"""The model of the tool for pictures, if a request names none."""
BEGINS = ("batch", "video", "fine_tuning.job", "eval.run", "agent.session")
"""Objects that stand for work that goes on when the answer about them is over."""
_AT_WORK = (
    "queued",
    "in_progress",
    "validating",
    "validating_files",
    "running",
    "paused",
    "finalizing",
    "cancelling",
)


def read_usage(usage: Usage, answer: dict[str, Any]) -> None:
    """Take over the usage of an answer or chunk.

    OpenAI counts what is read from a cache, or written to it, as input; `Usage` keeps all three apart. What a total
    holds beyond input and output is thinking, which xAI and Gemini count in neither.
    """
    if isinstance(model := answer.get("model"), str):
        usage.model = model
    usage.tier = word(answer.get("service_tier")) or usage.tier
    items, told = answer.get("output"), answer.get("usage")
    if usage.beside and (isinstance(items, list) or isinstance(told, dict)):
        usage.put_beside(())
    files, tools = 0, answer.get("tool_usage")
    if isinstance(items, list):
        usage.server_tools = sum(map(_is_search, items))
        files = sum(isinstance(item, dict) and item.get("type") == "file_search_call" for item in items)
    if isinstance(tools, dict) and isinstance(searches := tools.get("web_search"), dict):
        usage.server_tools = count(searches.get("num_requests"))  # leaves out those that are not charged
    drawn = [_drawing(one) for one in (answer, *(items if isinstance(items, list) else ())) if _has_drawn(one)]
    if not isinstance(told, dict):
        if not drawn:
            return
        told = {}
    if told.get("type") == "duration":
        usage.seconds = seconds(told.get("seconds"))
    total = count(told.get("input_tokens")) or count(told.get("prompt_tokens"))
    details = came = _details(told, "input_tokens_details", "prompt_tokens_details", "input_token_details")
    # Moonshot and DeepSeek write it beside the totals.
    read = count(details.get("cached_tokens") or told.get("cached_tokens") or told.get("prompt_cache_hit_tokens"))
    # DashScope, and gateways before Anthropic's models, use Anthropic's word for it.
    created = details.get("cache_creation_input_tokens") or told.get("cache_creation_input_tokens")
    written = count(details.get("cache_write_tokens") or created)
    output = count(told.get("output_tokens")) or count(told.get("completion_tokens"))
    whole = count(told.get("total_tokens"))
    if not total and not output:
        total = whole  # all that Voyage and Jina tell of embeddings and rankings
    if read + written and whole == total + output + read + written:
        total += read + written  # a gateway before other vendors' models counts them apart
    usage.cache_read_tokens = min(total, read)
    usage.cache_write_tokens = min(total - usage.cache_read_tokens, written)
    if isinstance(kept := details.get("cache_write_tokens_details"), dict):
        usage.cache_write_1h_tokens = min(usage.cache_write_tokens, count(kept.get("ttl_12h_tokens")))
    usage.input_tokens = total - usage.cache_read_tokens - usage.cache_write_tokens
    beyond = max(0, whole - total - output)
    usage.output_tokens = output + beyond
    details = _details(told, "output_tokens_details", "completion_tokens_details")
    usage.reasoning_tokens = min(usage.output_tokens, max(beyond, count(details.get("reasoning_tokens"))))
    if came or details:
        usage.beside = _by_kind(came, details, usage.input_tokens, usage.output_tokens - usage.reasoning_tokens)
    if files:
        usage.put_beside((*usage.beside, Usage(tier="file_search", server_tools=files)))
    if isinstance(tools, dict):
        usage.put_beside((*usage.beside, *_pictures(tools.get("image_gen"), answer.get("tools"), usage.tier)))
    if drawn:
        usage.put_beside((*usage.beside, *drawn))


def seconds(value: object) -> int:
    """A length in whole seconds, as vendors charge it; 0 for what is none."""
    told = number(value)
    return count(max(1, round(told))) if told is not None and 0 < told < MOST_TOKENS else 0


def _by_kind(came: dict[str, Any], made: dict[str, Any], total_in: int, total_out: int) -> tuple[Usage, ...]:
    """The part of these totals that is sound or pictures, which have prices of their own."""
    found = []
    for kind in ("audio", "image"):
        input_ = min(total_in, count(came.get(f"{kind}_tokens")))
        output = min(total_out, count(made.get(f"{kind}_tokens")))
        total_in, total_out = total_in - input_, total_out - output
        if input_ or output:
            found.append(Usage(input_tokens=input_, output_tokens=output, tier=kind))
    return tuple(found)


def _pictures(told: object, tools: object, tier: str) -> tuple[Usage, ...]:
    """What a response's own tool has painted: another model's tokens, which its usage leaves out."""
    if not isinstance(told, dict):
        return ()
    tools = tools if isinstance(tools, list) else []
    models = [tool.get("model") for tool in tools if isinstance(tool, dict) and tool.get("type") == "image_generation"]
    model = next((model for model in models if isinstance(model, str) and model), PAINTER)
    whole = count(told.get("input_tokens"))
    read = min(whole, count(told.get("cached_tokens")))
    seen = min(read, count(_details(told, "cached_tokens_details").get("cached_image_tokens")))
    made = Usage(model, whole - read, count(told.get("output_tokens")), read, tier=tier)
    came, details = _details(told, "input_tokens_details"), _details(painted(told), "output_tokens_details")
    came = {**came, "image_tokens": count(came.get("image_tokens")) - seen}
    parts = _by_kind(came, details, made.input_tokens, made.output_tokens)
    for part in parts:
        part.model = model
        if part.tier == "image":
            part.cache_read_tokens, seen = seen, 0
        made.input_tokens -= part.input_tokens
        made.output_tokens -= part.output_tokens
        made.cache_read_tokens -= part.cache_read_tokens
    return tuple(one for one in (made, *parts) if one.total_input or one.output_tokens)


def painted(told: dict[str, Any]) -> dict[str, Any]:
    """A usage of pictures. Where it tells no parts of its output, none of it is words, which cost less."""
    if told.get("output_tokens_details"):
        return told
    return {**told, "output_tokens_details": {"image_tokens": told.get("output_tokens")}}


def _has_drawn(item: object) -> bool:
    return isinstance(item, dict) and isinstance(item.get("svg_usage"), dict)


def _drawing(item: dict[str, Any]) -> Usage:
    """What a text model took that wrote a picture as SVG, which the usage of pictures leaves out."""
    told = item["svg_usage"]
    model = told.get("model")
    return Usage(
        model if isinstance(model, str) else "", count(told.get("input_tokens")), count(told.get("output_tokens"))
    )


def _details(told: dict[str, Any], *names: str) -> dict[str, Any]:
    details = next((found for name in names if (found := told.get(name))), None)
    return details if isinstance(details, dict) else {}


def _is_search(item: object) -> bool:
    """Whether it is what OpenAI bills as a search of the web: to open a page that was found costs nothing."""
    if not isinstance(item, dict) or item.get("type") != "web_search_call":
        return False
    action = item.get("action")
    return not isinstance(action, dict) or action.get("type") in (None, "search")


def told_over(answer: dict[str, Any]) -> tuple[Over, ...]:
    """What a batch, a response, a film, a fine-tuning job or a run of an eval that is over took."""
    kind, one, status = answer.get("object"), answer.get("id"), answer.get("status")
    if kind not in ("response", *BEGINS) or status in _AT_WORK or not isinstance(one, str):
        return ()
    if kind == "eval.run":
        return _of_models(one, answer)
    if kind == "agent.session":
        return _of_session(one, answer)
    usage = Usage()
    read_usage(usage, answer)
    if kind == "video" and status == "completed":
        usage.seconds = seconds(answer.get("seconds"))
    elif kind == "fine_tuning.job":
        usage.input_tokens = count(answer.get("trained_tokens"))
        usage.unknown = bool(usage.input_tokens)  # no list has the price of training
    if not usage.anything:
        counts = answer.get("request_counts")
        nothing = status == "failed" or (isinstance(counts, dict) and counts.get("completed") == 0)
        return (Over(one, ()),) if nothing else ()  # else it may still be reported
    if kind == "batch":
        usage.tier = BATCH
        counts = answer.get("request_counts")
        usage.requests = (count(counts.get("completed")) if isinstance(counts, dict) else 0) or 1
    return (Over(one, (usage,)),)


def _of_models(one: str, run: dict[str, Any]) -> tuple[Over, ...]:
    """What a run of an eval took: the models that were asked, and those that judged them."""
    models, found = run.get("per_model_usage"), []
    for told in models if isinstance(models, list) else ():
        if isinstance(told, dict):
            usage = Usage(requests=count(told.get("invocation_count")) or 1)
            read_usage(usage, {"model": told.get("model_name"), "usage": told})
            found.append(usage)
    found = [usage for usage in found if usage.anything]
    return (Over(one, tuple(found)),) if found or run.get("status") == "failed" else ()


def _of_session(one: str, session: dict[str, Any]) -> tuple[Over, ...]:
    """What a session of agents took so far: it may go on at any time."""
    agent, usage = session.get("agent"), Usage()
    read_usage(usage, {"model": agent.get("model") if isinstance(agent, dict) else None, "usage": session.get("usage")})
    return (Over(one, (usage,), whole=False),) if usage.anything else ()


def stored_response(response: dict[str, Any]) -> tuple[str, ...]:
    """The id of a response, unless it says that it isn't kept."""
    one = response.get("id")
    if response.get("store") is False or not isinstance(one, str):
        return ()
    return (one,) if one.startswith("resp") or (one and response.get("object") == "response") else ()
