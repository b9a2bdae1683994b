"""What an upstream's answers say: meters, verdicts and limits make something of any bytes, or nothing."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator
from dataclasses import astuple, fields
from functools import partial
from typing import Any

from multidict import CIMultiDict

from aimux.plugin import LimitWindow, Meter, Provider, RequestHead, SSEMeter, Usage, Verdict
from aimux.plugin.body import Body
from aimux.plugin.formats import anthropic, anthropic_stored, openai, openai_meters
from aimux.plugin.loader import load_plugins
from aimux.plugin.message_meter import MessageMeter
from aimux.plugin.provider import retry_after

from .harness import fuzz, splits

SECONDS_OF_A_YEAR = 366 * 86400.0
TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def providers() -> Iterator[Provider]:
    for name, provider in load_plugins().providers.items():
        settings = {"base_url": "http://127.0.0.1:1", "format": "openai"} if name == "compatible" else {}
        yield provider(provider.Settings(**settings), instance=name)


PROVIDERS = list(providers())
METERS: list[type[SSEMeter]] = [
    anthropic.MessagesStream,
    openai_meters.ResponsesStream,
    openai_meters.ChatStream,
    openai_meters.CompletionStream,
]
REQUESTS = [
    RequestHead("POST", path, CIMultiDict())
    for path in ("/v1/messages", "/v1/responses", "/v1/chat/completions", "/responses", "/x")
]


COUNTED = [field.name for field in fields(Usage) if field.name != "beside"]


def check_usage(usage: Usage) -> None:
    for one in (usage, *usage.beside):
        for name in COUNTED:
            value = getattr(one, name)
            if type(value) is int:
                assert 0 <= value < 1 << 62
            else:
                assert isinstance(value, str | bool)


def check_limits(limits: tuple[LimitWindow, ...]) -> None:
    for window in limits:
        assert isinstance(window.name, str)
        assert window.used is None or (0 <= window.used < math.inf)
        assert window.resets_at is None or math.isfinite(window.resets_at)
        assert window.status in {"allowed", "warning", "rejected"}


def check_verdict(verdict: Verdict | None) -> None:
    if verdict is not None:
        assert isinstance(verdict.reason, str)
        assert verdict.reason.isprintable()
        assert verdict.until is None or verdict.until < math.inf


def feed(meter: Meter, pieces: list[bytes]) -> tuple[Any, ...]:
    for piece in pieces:
        meter.feed(piece)
        check_usage(meter.usage)
    meter.end()
    check_usage(meter.usage)
    check_limits(meter.limits)
    check_verdict(meter.verdict)
    return astuple(meter.usage), meter.complete


_WORDS = (
    b"data: ",
    b"\n\n",
    b"\r\n",
    b'"usage"',
    b'"usage":{',
    b"{}",
    b"[]",
    b"null",
    b"-1",
    b"1e999",
    b"NaN",
    b"Infinity",
    b"9" * 400,
    b"true",
    b'"error"',
    b'"message_stop"',
    b'"response.completed"',
    b"[" * 2000,
    b"\xff",
    b"\\ud800",
)


@fuzz("streams", *_WORDS, share=4)
def test_meters_of_streams(data: bytes) -> None:
    """No matter how the bytes are cut."""
    for make in METERS:
        results = [feed(make(), pieces) for pieces in splits(data)]
        assert results[0] == results[1] == results[2], make
    for provider in PROVIDERS:
        for request in REQUESTS:
            meter = provider.meter(request, 200, CIMultiDict({"content-type": "text/event-stream"}))
            if meter is not None:
                feed(meter, [data])


@fuzz("results", *_WORDS, share=4)
def test_meters_of_what_was_made_behind_an_answer(data: bytes) -> None:
    batch = partial(anthropic_stored.BatchResults, "msgbatch_01")
    for make in (batch, openai_meters.BackgroundStream, openai.KeptAnswer):
        found = []
        for pieces in splits(data):
            meter = make()
            feed(meter, pieces)
            for over in meter.over:
                assert over.id
                for usage in over.usage:
                    check_usage(usage)
            found.append(meter.over)
        assert found[0] == found[1] == found[2], make


@fuzz("streams", *_WORDS)
def test_meters_of_sockets(data: bytes) -> None:
    for provider in PROVIDERS:
        meter = provider.websocket_meter(RequestHead("GET", "/v1/responses", CIMultiDict()))
        for each in (meter, MessageMeter(openai_meters.ResponsesStream)):
            if each is None:
                continue
            for message in data.split(b"\n\n"):
                each.asked(message)
                each.feed(message.removeprefix(b"data: "))
                check_usage(each.usage)
                check_limits(each.limits)
                check_verdict(each.verdict)


@fuzz("streams", *_WORDS)
def test_the_start_of_a_stream(data: bytes) -> None:
    """What is decided stays decided however much more comes."""
    for provider in PROVIDERS:
        decided = None
        for end in range(0, len(data) + 1, max(1, len(data) // 40)):
            verdict = provider.opening(CIMultiDict(), data[:end])
            check_verdict(verdict)
            if decided is not None:
                assert verdict is not None
                assert verdict.action is decided.action
            decided = verdict


@fuzz("answers", *_WORDS, b'"type"', b'"code"', b'"message"', b'"resets_at"', b'"rate_limit_error"')
def test_answers_and_errors(data: bytes) -> None:
    for provider in PROVIDERS:
        for status in (400, 401, 402, 403, 404, 429, 500, 529, 599):
            verdict = provider.classify(status, CIMultiDict(), data, model="m")
            check_verdict(verdict)
            assert len(verdict.reason) < 200, "no more than a code of what the upstream said"
        for request in REQUESTS:
            meter = provider.meter(request, 200, CIMultiDict({"content-type": "application/json"}))
            if meter is not None:
                feed(meter, [data[:7], data[7:]])
        provider.list_models(RequestHead("GET", "/v1/models", CIMultiDict()), data, {"name": "model"})
        provider.conversation_key(REQUESTS[0], Body(data))


@fuzz(
    "limit_headers",
    *_WORDS,
    b": rejected",
    b"\nretry-after: ",
    b"\nretry-after-ms: ",
    b"0",
    b"1" * 30,
    b"inf",
    b"Mon, 01 Jan 0001 00:00:00 GMT",
    b"0001-01-01T00:00:00+23:59",
    b"9999-12-31T23:59:59-23:59",
    b"\xc2\xb2",
)
def test_limits_in_headers(data: bytes) -> None:
    lines = (line.partition(b":") for line in data.split(b"\n"))
    headers = CIMultiDict(
        # Other names don't get through the parser of heads.
        [(name.decode(), value.strip().decode("latin-1")) for name, _, value in lines if TOKEN.fullmatch(name)]
    )
    now = time.time()
    wait = retry_after(headers)
    assert wait is None or 0 <= wait < math.inf
    for provider in PROVIDERS:
        check_limits(provider.limits(headers))
        verdict = provider.classify(429, headers, b"", model="m")
        check_verdict(verdict)
        if verdict.until is not None and wait is None:
            assert verdict.until <= now + SECONDS_OF_A_YEAR, "no account is lost for ever by a header"
