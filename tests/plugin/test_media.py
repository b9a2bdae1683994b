"""What pictures, transcripts, speech and calls take: what their usage says, else what can be told of them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from multidict import CIMultiDict

from aimux.metering.estimates import Estimates
from aimux.metering.record import RequestRecord
from aimux.plugin import Meter, RequestHead, Usage
from aimux.plugin.formats import openai

USAGE = {"input_tokens": 50, "output_tokens": 4_160, "input_tokens_details": {"image_tokens": 40}}
TOLD = Usage("", 50, 4_160, beside=(Usage(input_tokens=40, tier="image"),))
PAINTED = Usage("", 50, 4_160, beside=(Usage(input_tokens=40, output_tokens=4_160, tier="image"),))
PICTURE = "iVBOR" * 400_000
PLACES = ("/v1/images/generations", "/v1/images/edits", "/v1/audio/transcriptions", "/audio/translations")


def meter_for(path: str, content_type: str) -> Meter:
    head = RequestHead("POST", path, CIMultiDict())
    meter = openai.meter(head, 200, CIMultiDict({"content-type": content_type}))
    assert meter is not None
    return meter


def fed(meter: Meter, raw: bytes, piece: int = 65_536) -> Usage:
    for begin in range(0, len(raw), piece):
        meter.feed(raw[begin : begin + piece])
    meter.end()
    return Estimates().usage(RequestRecord("", 0.0, "POST", "/"), meter)


def answer(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


@pytest.mark.parametrize("path", PLACES)
@pytest.mark.parametrize("piece", [7_000, 65_536, 10_000_000])
def test_the_usage_behind_a_picture_is_read(path: str, piece: int) -> None:
    meter = meter_for(path, "application/json")
    expected = PAINTED if "images" in path else TOLD
    assert fed(meter, answer(created=1, data=[{"b64_json": PICTURE}], usage=USAGE), piece) == expected
    assert meter.consumes
    assert meter.complete


def test_of_a_picture_words_are_only_what_is_called_words() -> None:
    """Which cost a third of what is painted; mostly the answer tells no parts (BerriAI/litellm#31142)."""
    parts = {"output_tokens_details": {"text_tokens": 160, "image_tokens": 4_000}}
    usage = fed(meter_for(PLACES[0], "application/json"), answer(data=[], usage=USAGE | parts))
    assert usage == Usage("", 50, 4_160, beside=(Usage(input_tokens=40, output_tokens=4_000, tier="image"),))


def test_a_drawing_is_written_by_a_model_of_texts() -> None:
    drawn = {"input_tokens": 700, "model": "gpt-6-sol", "output_tokens": 900, "reasoning_tokens": 200}
    written = Usage("gpt-6-sol", 700, 900)
    meter = meter_for(PLACES[0], "application/json")
    told = fed(meter, answer(data=[{"b64_json": PICTURE}], svg_usage=drawn, usage=USAGE))
    assert told == Usage("", 750, 5_060, beside=(*PAINTED.beside, written))
    told = fed(meter_for(PLACES[0], "application/json"), answer(data=[{"b64_json": PICTURE}], svg_usage=drawn))
    assert told == Usage("", 700, 900, beside=(written,))


@pytest.mark.parametrize("path", [*PLACES[:2], "/v1/images/variations"])
def test_where_nothing_is_told_a_picture_is_not_taken_for_words(path: str) -> None:
    assert fed(meter_for(path, "application/json"), answer(data=[{"b64_json": PICTURE}])) == Usage(unknown=True)


VTT = "WEBVTT\n\n00:00.000 --> 00:04.000\nGood morning\n\n01:02:03.000 --> 01:02:07.600\n--> and so on\n"
SRT = "1\n00:00:00,000 --> 00:00:04,000\nGood morning\n\n2\n00:01:00,000 --> 00:01:02,480\nall\n"


@pytest.mark.parametrize("path", PLACES[2:])
@pytest.mark.parametrize(
    ("content_type", "told", "seconds", "estimated"),
    [
        (
            "application/json",
            answer(text='"usage": {"input_tokens": 7}', usage={"type": "duration", "seconds": 63}),
            63,
            False,
        ),
        ("application/json", answer(text="a", usage={"type": "duration", "seconds": 0.2}), 1, False),
        ("application/json", answer(task="transcribe", duration=8.470000267028809, text="b" * 9_000), 8, True),
        ("application/json", answer(text="x" * 300), 21, True),
        ("text/plain; charset=utf-8", b"x" * 300 + b"\n", 20, True),
        ("text/vtt", VTT.encode(), 3600 + 2 * 60 + 8, True),
        ("text/plain", SRT.encode(), 62, True),
        ("text/plain", b"", 0, False),
    ],
)
def test_a_transcript_that_is_sold_by_the_minute(
    path: str, content_type: str, told: bytes, seconds: int, *, estimated: bool
) -> None:
    """As whisper-1 answers in each of its formats; only its JSON says how long it was."""
    usage = fed(meter_for(path, content_type), told, 100)
    assert usage == Usage(seconds=seconds, estimated=estimated)


def test_a_page_is_no_transcript() -> None:
    headers = CIMultiDict({"content-type": "text/html"})
    assert openai.meter(RequestHead("POST", PLACES[2], CIMultiDict()), 200, headers) is None


def test_sound_that_is_heard_has_a_price_of_its_own() -> None:
    told = {"type": "tokens", "input_tokens": 120, "output_tokens": 45, "total_tokens": 165}
    told["input_token_details"] = {"text_tokens": 20, "audio_tokens": 100}
    usage = fed(meter_for(PLACES[2], "application/json"), answer(text="Good morning", usage=told))
    assert usage == Usage("", 120, 45, beside=(Usage(input_tokens=100, tier="audio"),))


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"model": "tts-1", "input": "Grüß Gott, 你好", "voice": "alloy"}, Usage(characters=13)),
        ({"model": "kokoro", "input": "x" * 4_096}, Usage(characters=4_096)),
        (
            {"model": "gpt-4o-mini-tts", "input": "x" * 150, "instructions": "y" * 50},
            Usage("", 50, 200, estimated=True),
        ),
        ({"model": "tts-1", "voice": "alloy"}, Usage(unknown=True)),
        ({"model": "tts-1", "input": 7}, Usage(unknown=True)),
    ],
)
def test_speech_as_a_file_takes_what_was_asked_to_be_said(asked: dict[str, Any], expected: Usage) -> None:
    meter = meter_for("/v1/audio/speech", "audio/mpeg")
    assert meter.reads_request
    meter.asked(json.dumps(asked).encode())
    assert fed(meter, b"\xff\xfb" * 10_000) == expected


@pytest.mark.parametrize(
    "path",
    [
        "/v1/realtime/calls",
        "/v1/realtime/calls/rtc_1/accept",
        "/v1/realtime/translations/calls",
        "/v1/realtime",
        "/v1/live/sessions",
        "/v1/live/sessions/live_A1/accept",
        "/v1/live/sessions/live_A1/fork",
    ],
)
def test_of_a_call_nobody_knows_what_it_takes(path: str) -> None:
    assert fed(meter_for(path, "application/sdp"), b"v=0\r\n") == Usage(unknown=True)
    meter = meter_for(path, "application/json")
    told = answer(session={"id": "live_B2"}, transport={"type": "webrtc", "sdp": "v=0\r\n" * 100})
    assert fed(meter, told) == Usage(unknown=True)
    assert meter.stored == ("live_B2",), "it is its maker's"
    where = CIMultiDict({"content-type": "application/sdp", "location": "https://a.test/v1/realtime/calls/rtc_u1_C3"})
    by_place = openai.meter(RequestHead("POST", path, CIMultiDict()), 201, where)
    assert by_place is not None
    assert fed(by_place, b"v=0\r\n") == Usage(unknown=True)
    assert by_place.stored == ("rtc_u1_C3",)
    assert fed(meter_for(path, "application/json"), answer(session={"id": 1})) == Usage(unknown=True)


@pytest.mark.parametrize("size", [1, 4_000_000], ids=["short", "beyond what is parsed"])
@pytest.mark.parametrize("first", ["model", "data"])
def test_embeddings_count_what_they_say_however_many_they_are(size: int, first: str) -> None:
    """2,048 texts at once are 75 MB of numbers."""
    members = {"model": b'"model":"text-embedding-3-large",', "data": b'"data":[' + b"0.0123456," * size + b"0],"}
    parts = [members.pop(first), *members.values()]
    raw = b'{"object":"list",' + b"".join(parts) + b'"usage":{"prompt_tokens":8,"total_tokens":8}}'
    assert fed(meter_for("/v1/embeddings", "application/json"), raw) == Usage("text-embedding-3-large", 8)


@pytest.mark.parametrize(
    "kind", ["image_generation.completed", "image_edit.completed", "transcript.text.done", "speech.audio.done"]
)
@pytest.mark.parametrize("size", [10, 9 * 1024 * 1024])
def test_so_is_the_one_of_a_streams_last_event(kind: str, size: int) -> None:
    partial = {"type": "image_generation.partial_image", "b64_json": PICTURE[:1000]}
    last = {"type": kind, "b64_json": "x" * size, "usage": USAGE}
    raw = b"".join(b"event: %b\ndata: %b\n\n" % (e["type"].encode(), answer(**e)) for e in (partial, last))  # type: ignore[attr-defined]
    for place, expected in ((PLACES[0], PAINTED), ("/v1/audio/speech", TOLD)):
        assert fed(meter_for(place, "text/event-stream"), raw) == expected
    assert meter_for(PLACES[0], "text/event-stream").complete, "no last event is missed"


@pytest.mark.parametrize("status", ["queued", "in_progress"])
def test_an_answer_that_goes_on_in_the_background_is_no_measure(status: str) -> None:
    begun = {"id": "resp_1", "status": status, "model": "gpt-5.5", "instructions": "x" * 4_000, "usage": None}
    meter = meter_for("/v1/responses", "application/json")
    assert fed(meter, answer(**begun)) == Usage("gpt-5.5")
    assert meter.stored == ("resp_1",)
    whole = fed(meter_for("/v1/responses", "application/json"), answer(**{**begun, "status": "completed"}))
    assert whole.estimated
