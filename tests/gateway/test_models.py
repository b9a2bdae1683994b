"""Model routing: which target, in which order, and the body that reaches it."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimux.gateway import whole_answers
from aimux.gateway.models import rewrite_model
from aimux.plugin import GatewayError
from aimux.plugin.body import Body

from .answers import OK, body_of, error, head_of, json_of, once, reply, script, status_of
from .conftest import Start, Upstream, request
from .people import add

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6) | st.just("model"), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(
    st.dictionaries(st.text(max_size=6) | st.just("model"), json_values, max_size=5),
    st.sampled_from([None, 0, 2, "\t"]),
)
def test_only_the_models_own_bytes_change(data: dict[str, Any], indent: int | str | None) -> None:
    raw = json.dumps(data, indent=indent, ensure_ascii=False).encode("utf-8", "surrogatepass")
    try:
        raw.decode()
    except UnicodeDecodeError:
        return
    body = Body(raw)
    changed = rewrite_model(body, "new")
    if "model" not in data:
        assert changed is body
        return
    assert json.loads(changed.raw) == {**data, "model": "new"}
    assert list(json.loads(changed.raw)) == list(data)
    assert rewrite_model(changed, "new").raw == changed.raw


def test_every_other_byte_stays() -> None:
    raw = '{ "x" : {"model":"inner"} ,\n "model":\t"old" , "y":[1.50, "ü\\u00e9"], "model" :"old2"}'.encode()
    assert rewrite_model(Body(raw), 'n"w').raw == (
        '{ "x" : {"model":"inner"} ,\n "model":\t"n\\"w" , "y":[1.50, "ü\\u00e9"], "model" :"n\\"w"}'.encode()
    )


@pytest.mark.parametrize("raw", [b"", b"[]", b"nonsense", b'{"model"', b"\xff\xfe", b'"model"'])
def test_what_is_no_object_stays_as_it_is(raw: bytes) -> None:
    body = Body(raw)
    assert rewrite_model(body, "new") is body


@pytest.mark.parametrize("raw", [b'{"model": "a"', b'{"model": "a", "x": 0x1}', b'{"model":"a","x":' + b"[" * 9999])
def test_a_name_that_can_not_be_replaced_is_not_asked_for(raw: bytes) -> None:
    with pytest.raises(GatewayError, match="'a' stands for another model here"):
        rewrite_model(Body(raw), "new")


@pytest.mark.parametrize(
    "raw",
    [
        b'{"model":"old"} x',
        b'{"model":"old" "x":1}',
        b'{"model"="old"}',
        b'{"model":"old","x":"\xff"}',
        b'{"x":1,"model":"old",}',
        b'{1:2,"model":"old"}',
    ],
)
def test_what_else_is_wrong_with_a_body_is_left_to_the_upstream(raw: bytes) -> None:
    assert rewrite_model(Body(raw), "new").raw == raw.replace(b"old", b"new")


def test_a_compressed_body_is_sent_plain() -> None:
    changed = rewrite_model(Body(gzip.compress(b'{"model":"a","x":1}'), "gzip"), "b")
    assert changed.raw == b'{"model": "b","x":1}'.replace(b": ", b":")
    assert changed.encoding == ""


def providers(upstream: Upstream, **more: Any) -> dict[str, Any]:
    base = f"http://127.0.0.1:{upstream.port}"
    return {
        "plain": {"base_url": base},
        "other": {"type": "plain", "base_url": f"{base}/other", "api_key": "other-key-0123456789"},
        **more,
    }


async def ask(start: Start, upstream: Upstream, model: str, models: dict[str, Any]) -> list[bytes]:
    aimux = await start(providers=providers(upstream), models=models)
    assert status_of(await aimux.send(request(body=json.dumps({"model": model, "n": 1}).encode()))) == 200
    return upstream.requests


@pytest.mark.parametrize(
    ("model", "path", "asked_for"),
    [
        ("exact", b"/other/v1/chat", "renamed"),
        ("pre-fixed", b"/other/v1/chat", "pre-fixed"),
        ("pre-longer", b"/v1/chat", "pre-longer"),
        ("r123", b"/other/v1/chat", "r123"),
        ("anything", b"/v1/chat", "fallback"),
    ],
)
async def test_a_model_is_routed_by_name_prefix_expression_or_default(
    start: Start, upstream: Upstream, model: str, path: bytes, asked_for: str
) -> None:
    models = {
        "exact": {"provider": "other", "model": "renamed"},
        "pre-*": {"provider": "other"},
        "pre-long*": {"provider": "plain"},
        "/r[0-9]+/": {"provider": "other"},
        "default": {"provider": "plain", "model": "fallback"},
    }
    sent = (await ask(start, upstream, model, models))[0]
    assert sent.startswith(b"POST " + path + b" HTTP/1.1")
    assert json_of(sent) == {"model": asked_for, "n": 1}


async def test_without_models_the_body_is_untouched(start: Start, upstream: Upstream) -> None:
    sent = (await ask(start, upstream, "m", {}))[0]
    assert sent.endswith(b'{"model": "m", "n": 1}')


@pytest.mark.parametrize("given", ["renamed", "yet-another"])
@pytest.mark.parametrize("asked", ["m-1", "m-\r\nx-evil: 1", ""])
async def test_an_answer_names_the_model_as_the_client_does(
    start: Start, upstream: Upstream, given: str, asked: str
) -> None:
    """Codex tells its user of an `openai-model` that it did not ask for. One that aimux did not ask for stays."""
    script(upstream, {"default": b"HTTP/1.1 200 OK\r\nOpenAI-Model:%b\r\ncontent-length: 2\r\n\r\n{}" % given.encode()})
    target = {"provider": "plain", "model": "renamed"}
    aimux = await start(models={"m-*": target, "default": target})
    head = head_of(await aimux.send(request(body=json.dumps({"model": asked}).encode())))
    wanted = asked if given == "renamed" and asked == "m-1" else given
    assert re.search(rb"\r\nopenai-model: ?(.*)\r\n", head)[1] == wanted.encode()  # type: ignore[index]
    assert b"x-evil" not in head


async def test_targets_are_tried_by_priority_on_failure(start: Start, upstream: Upstream) -> None:
    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while sent := await upstream.read(reader):
            writer.write(error(503) if sent.startswith(b"POST /other") else OK)

    upstream.script = run
    models = {
        "m": [{"account": "plain/default", "model": "second", "priority": 2}, {"provider": "other", "model": "first"}]
    }
    sent = await ask(start, upstream, "m", models)
    assert [json_of(one)["model"] for one in sent] == ["first", "second"]


@pytest.mark.parametrize("waits", [(9000, 3600), (3600, 9000), (9000, 20), (20, 9000)])
async def test_of_several_targets_the_one_that_is_free_first_is_told_and_tried(
    start: Start, upstream: Upstream, waits: tuple[int, int]
) -> None:
    wait_of = dict(zip(("first", "second"), waits, strict=True))

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while sent := await upstream.read(reader):
            wait = wait_of[json_of(sent)["model"]]
            writer.write(error(429, f"retry-after: {wait}", body=b"{}"))

    upstream.script = run
    models = {"m": [{"provider": "other", "model": "first"}, {"account": "plain/default", "model": "second"}]}
    aimux = await start(providers=providers(upstream), models=models)
    for _ in range(2):
        del upstream.requests[:]
        answer = await aimux.send(request(body=b'{"model":"m"}'))
        assert status_of(answer) == 429
        told = int(re.findall(rb"(?i)retry-after: (\d+)", answer)[0])
        assert min(waits) - 5 <= told <= min(waits)
    (last,) = upstream.requests
    assert wait_of[json_of(last)["model"]] == min(waits)


async def test_a_target_may_be_one_account(start: Start, upstream: Upstream) -> None:
    asked = script(upstream, {"default": OK, "two": OK})
    aimux = await start(accounts=("default", "two"), models={"m": {"account": "plain/two"}})
    for _ in range(3):
        await aimux.send(request(body=b'{"model":"m"}'))
    assert asked == ["two"] * 3


@pytest.mark.parametrize(
    "raw",
    [
        b'{"model":"last"}',
        b'{"model":"first","model":"last"}',
        b'{"model":"first","\\u006dodel":"last"}',
        b'{"model":"first","mo\\u0064e\\u006C":"last"}',
        b'{"x":{"model":"inner"},"model":"last"}',
        pytest.param(gzip.compress(b'{"model":"last"}'), id="gzip"),
    ],
)
def test_a_route_is_decided_by_the_model_that_counts_upstream(raw: bytes) -> None:
    assert Body(raw, "gzip" if raw[:1] != b"{" else "").routed_model == "last"


def listing(upstream: Upstream, raw: bytes, *headers: str) -> None:
    upstream.answer = reply(raw, *headers)


@pytest.mark.parametrize("coding", ["", "gzip"])
@pytest.mark.parametrize("many", [10, 5000])
async def test_a_long_list_of_models_is_a_whole_one(start: Start, upstream: Upstream, many: int, coding: str) -> None:
    """OpenRouter's has half a megabyte."""
    raw = json.dumps({"data": [{"id": f"vendor/model-{n}", "description": "d" * 400} for n in range(many)]}).encode()
    listing(upstream, gzip.compress(raw, 0) if coding else raw, *(["content-encoding: gzip"] if coding else []))
    aimux = await start(providers=providers(upstream), models={"mine": {"provider": "other", "model": "theirs"}})
    answer = await aimux.send(request("/plain/v1/models", method="GET", body=b""))
    assert len(json_of(answer)["data"]) == many + 1


@pytest.mark.parametrize("broken", ["too long", "no gzip", "cut"])
async def test_what_cannot_be_read_whole_passes_as_it_came(
    start: Start, upstream: Upstream, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    raw = json.dumps({"data": [{"id": "x" * 300_000}]}).encode()
    listing(upstream, raw, *(["content-encoding: gzip"] if broken == "no gzip" else []))
    if broken == "too long":
        monkeypatch.setattr(whole_answers, "MOST", 150_000)
    if broken == "cut":
        once(upstream, upstream.answer[:-10])
    aimux = await start(providers=providers(upstream), models={"mine": {"provider": "other", "model": "theirs"}})
    answer = await aimux.send(request("/plain/v1/models", method="GET", body=b""))
    assert status_of(answer) == 200
    assert raw.startswith(body_of(answer))
    assert len(body_of(answer)) >= len(raw) - 10


async def test_the_list_of_models_has_the_routed_names(start: Start, upstream: Upstream) -> None:
    models = {"mine": {"provider": "other", "model": "theirs"}, "pre-*": {"provider": "plain"}}
    upstream.answer = reply({"data": [{"id": "their-own"}]})
    aimux = await start(providers=providers(upstream), models=models)
    answer = await aimux.send(request("/plain/v1/models", method="GET", body=b""))
    assert [model["id"] for model in json_of(answer)["data"]] == ["their-own", "mine"]
    upstream.answer = error(404)
    answer = await aimux.send(request("/plain/v1/models", method="GET", body=b""))
    assert json_of(answer)["data"] == [{"id": "mine"}]
    other = await aimux.send(request("/plain/v1/other", method="GET", body=b""))
    assert other.endswith(b'{"e":1}')


async def test_a_list_of_models_keeps_its_etag(start: Start, upstream: Upstream) -> None:
    """Codex compares it with the `x-models-etag` of every answer, and asks for the list again where they differ."""
    aimux = await start(providers=providers(upstream), models={"mine": {"provider": "other", "model": "theirs"}})
    for headers, etag in [(['etag: "abc"'], 'etag: "abc"'), ([], "")]:
        listing(upstream, b'{"data":[{"id":"their-own"}]}', *headers)
        answer = await aimux.send(request("/plain/v1/models", method="GET", body=b""))
        head = answer.partition(b"\r\n\r\n")[0].decode().lower()
        assert (etag in head) if etag else ("etag" not in head)
    listing(upstream, b"", 'etag: "abc"')
    upstream.answer = b'HTTP/1.1 304 Not Modified\r\netag: "abc"\r\n\r\n'
    unchanged = request("/plain/v1/models", headers='If-None-Match: "abc"\r\n', method="GET", body=b"")
    assert status_of(await aimux.send(unchanged)) == 304
    upstream.answer = b'HTTP/1.1 404 Not Found\r\netag: "abc"\r\ncontent-length: 0\r\n\r\n'
    answer = await aimux.send(request("/plain/v1/models", method="GET", body=b""))
    assert (status_of(answer), b"etag" in answer.lower()) == (200, False), "the list is ours"


async def test_who_is_bound_is_listed_the_models_that_may_be_asked_for(start: Start, upstream: Upstream) -> None:
    """Clients offer what is listed (maximhq/bifrost#808, anthropics/claude-code#94311)."""
    names = {name: {"provider": "plain", "model": "theirs"} for name in ("small-mine", "large-mine")}
    listed = {
        "data": [{"id": "small-1"}, {"id": "large-1"}, {"of no": "name"}],
        "models": [{"slug": "small-1", "id": "x"}, {"slug": "large-1"}],
        "last_id": "large-1",
    }
    aimux = await start(models=names)
    bound, free = await add(aimux, "bound", "model:small*"), await add(aimux, "free", "provider:plain")

    async def ask(token: str) -> Any:
        return json_of(await aimux.send(request("/plain/v1/models", token=token, method="GET", body=b"")))

    upstream.answer = reply(listed)
    told = await ask(bound)
    assert (told["models"], told["last_id"]) == ([{"slug": "small-1", "id": "x"}], "large-1")
    assert told["data"] == [{"id": "small-1"}, {"of no": "name"}, {"id": "small-mine"}]
    assert len((await ask(free))["data"]) == 5
    upstream.answer = error(404)
    assert (await ask(bound))["data"] == [{"id": "small-mine"}]
    assert len((await ask(free))["data"]) == 2
