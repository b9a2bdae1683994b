"""The model that a form names decides like any other's, and where that is unclear, nothing goes up."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from aimux.gateway.forms import SLICE, Form, read_form
from aimux.gateway.models import rewrite_model
from aimux.plugin import GatewayError, RequestHead
from aimux.plugin.body import Body
from tests.gateway.conftest import Start, Upstream, request

from .answers import body_of, status_of

FILE = b'Content-Disposition: form-data; name="file"; filename="a \xc3\xa4.wav"\r\nContent-Type: audio/wav'
MODEL = b'Content-Disposition: form-data; name="model"'
ROUTED = {"alias": {"provider": "plain", "model": "real"}, "default": {"provider": "plain"}}


def form(*parts: tuple[bytes, bytes], end: bytes = b"--\r\n", boundary: bytes = b"XyZ") -> bytes:
    each = [b"--%b\r\n%b\r\n\r\n%b\r\n" % (boundary, head, value) for head, value in parts]
    return b"".join([*each, b"--", boundary, end])


def read(raw: bytes, content_type: str = "multipart/form-data; boundary=XyZ", coding: str = "") -> Form:
    head = RequestHead("POST", "/v1/audio/transcriptions", CIMultiDict({"content-type": content_type}))
    return asyncio.run(read_form(Body(raw, coding), head, None))


@pytest.mark.parametrize("size", [0, 10, 2 * SLICE])
@pytest.mark.parametrize("last", [True, False])
def test_the_model_is_found_wherever_it_stands(size: int, last: bool) -> None:
    parts = [(FILE, b"\r\n--Xy\0" * (size // 7)), (MODEL, b"whisper-1")]
    raw = form(*parts if last else parts[::-1])
    assert read(raw).model == "whisper-1"


@given(st.binary(max_size=40), st.integers(1, 20), st.text("abc", max_size=5))
def test_a_slice_may_end_anywhere(content: bytes, size: int, model: str) -> None:
    raw = form((FILE, content), (MODEL, model.encode()), (FILE, b""))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("aimux.gateway.forms.SLICE", size)
        found = read(raw)
    if b"\r\n--XyZ" not in b"\r\n" + content:
        assert found.model == model


@pytest.mark.parametrize(
    "disposition",
    [
        b'content-disposition:form-data;name="model"',
        b"Content-Type: text/plain; charset=utf-8\r\nContent-Disposition: form-data; name=model",  # .NET
        b'Content-Disposition: form-data; name="model"\r\nContent-Length: 9',  # OkHttp
        b'Content-Disposition: form-data; name="model"\r\nContent-Transfer-Encoding: 8bit',
    ],
)
def test_clients_write_it_in_several_ways(disposition: bytes) -> None:
    assert read(form((disposition, b"whisper-1")), 'Multipart/Form-Data;boundary="XyZ"').model == "whisper-1"


async def test_so_does_aiohttp() -> None:
    data = aiohttp.FormData({"model": "whisper-1"})
    data.add_field("file", b"\0" * 100, filename='ä ".wav', content_type="audio/wav")
    written = data()
    raw = await written.as_bytes()
    head = RequestHead("POST", "/", CIMultiDict({"content-type": written.headers["Content-Type"]}))
    assert (await read_form(Body(raw), head, None)).model == "whisper-1"


def test_beside_a_calls_session_which_says_its_model_nothing_else_may_say_one() -> None:
    session = (b'Content-Disposition: form-data; name="session"', b'{"model": "gpt-realtime"}')
    assert read(form(session)).model == ""
    with pytest.raises(GatewayError, match="can't be read"):
        _ = read(form(session, (MODEL, b"gpt-realtime-mini"))).model


def test_a_form_may_name_none() -> None:
    assert read(form((FILE, b"x"))).model == ""
    assert read(form()).model == ""


UNCLEAR: dict[str, tuple[bytes, str]] = {
    "two": (form((MODEL, b"a"), (MODEL, b"b")), ""),
    "a file": (form((MODEL + b'; filename="x"', b"a")), ""),
    "a second name": (form((MODEL + b'; name="x"', b"a")), ""),
    "another name behind a file's": (form((FILE[:55] + b'; name="model"', b"a")), ""),
    "written with escapes": (form((b'Content-Disposition: form-data; name="mod\\el"', b"a")), ""),
    "in another charset": (form((b"Content-Disposition: form-data; name*=utf-8''model", b"a")), ""),
    "a folded line": (form((b'Content-Disposition: form-data;\r\n name="model"', b"a")), ""),
    "encoded": (form((MODEL + b"\r\nContent-Transfer-Encoding: quoted-printable", b"=61")), ""),
    "bare line feeds": (form((MODEL, b"a")).replace(b"\r\n", b"\n"), ""),
    "something in front": (b"\r\n" + form((MODEL, b"a")), ""),
    "something behind": (form((FILE, b"x")) + form((MODEL, b"a")), ""),
    "no end": (form((FILE, b"x"), end=b""), ""),
    "a longer boundary": (form((FILE, b"x"), boundary=b"XyZZ"), ""),
    "no boundary": (form((MODEL, b"a")), "multipart/form-data"),
    "two boundaries": (form((MODEL, b"a")), "multipart/form-data; boundary=XyZ; boundary=abc"),
    "another kind": (form((MODEL, b"a")), "multipart/mixed; boundary=XyZ"),
    "a long one": (form((MODEL, b"a" * 300)), ""),
}


@pytest.mark.parametrize(("raw", "content_type"), UNCLEAR.values(), ids=UNCLEAR)
def test_what_servers_may_read_in_two_ways_is_unclear(raw: bytes, content_type: str) -> None:
    found = read(raw, content_type or "multipart/form-data; boundary=XyZ")
    assert found.summary.model == ""
    with pytest.raises(GatewayError, match="can't be read") as caught:
        _ = found.model
    assert caught.value.status == 400


def test_so_is_a_compressed_one() -> None:
    with pytest.raises(GatewayError):
        _ = read(form((MODEL, b"a")), coding="gzip").model


def test_another_model_takes_its_place_and_nothing_else_changes() -> None:
    raw = form((FILE, b"alias"), (MODEL, b"alias"), (FILE, b""))
    changed = rewrite_model(asyncio.run(read(raw).changeable(Body(raw))), 'a "longer" one')
    assert changed.raw == form((FILE, b"alias"), (MODEL, b'a "longer" one'), (FILE, b""))
    none = form((FILE, b"alias"))
    assert rewrite_model(asyncio.run(read(none).changeable(Body(none))), "x").raw == none


def upload(raw: bytes) -> bytes:
    return request(body=raw, headers="Content-Type: multipart/form-data; boundary=XyZ\r\n")


async def test_a_form_is_routed_and_recorded_by_its_model(start: Start, upstream: Upstream) -> None:
    aimux = await start(models=ROUTED)
    raw = form((FILE, b"\0" * 300_000), (MODEL, b"alias"))
    assert status_of(await aimux.send(upload(raw))) == 200
    assert body_of(upstream.requests[0]) == raw.replace(b"alias", b"real")
    assert "model=alias" in aimux.log
    assert status_of(await aimux.send(upload(UNCLEAR["two"][0]))) == 400
    assert len(upstream.requests) == 1


async def test_where_no_model_decides_any_form_goes_up_as_it_came(start: Start, upstream: Upstream) -> None:
    aimux = await start()
    for raw in (form((FILE, b"x"), (MODEL, b"whisper-1")), UNCLEAR["two"][0], b"nonsense"):
        assert status_of(await aimux.send(upload(raw))) == 200
        assert upstream.requests[-1].endswith(raw)
    assert "model=whisper-1" in aimux.log


async def test_a_models_limit_holds_for_forms(start: Start, upstream: Upstream) -> None:
    limits: dict[str, Any] = {"default": {"models": {"whisper-1": {"requests_per_minute": 1}}}}
    aimux = await start(limits=limits)
    asked = [upload(form((FILE, b"x"), (MODEL, model))) for model in (b"whisper-1", b"whisper-1", b"other")]
    assert [status_of(await aimux.send(one)) for one in asked] == [200, 429, 200]
