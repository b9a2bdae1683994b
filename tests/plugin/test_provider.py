from __future__ import annotations

import json
import time

import pytest
from multidict import CIMultiDict
from pydantic import ValidationError

from aimux.plugin import Body, CredentialError, ProviderSettings, credential_text, load_object, retry_after


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "17"}, 17),
        ({"retry-after": " 1.5 "}, 1.5),
        ({"retry-after-ms": "250", "retry-after": "17"}, 0.25),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "²"}, None),
        ({"retry-after-ms": "inf"}, None),
        ({"retry-after-ms": "nan"}, None),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}, 0),
        ({}, None),
    ],
)
def test_how_long_to_wait(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(CIMultiDict(headers)) == seconds


def test_how_long_to_wait_until_a_date(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1_700_000_000.0)
    assert retry_after(CIMultiDict({"retry-after": "Tue, 14 Nov 2023 22:13:37 GMT"})) == 17


def test_an_object_is_read_without_quoting_it() -> None:
    assert load_object(b'{"a": 1}') == {"a": 1}
    for raw in (b'{"secret": "0123', b"[]", b"[" * 100_000, b"\xff\xfe"):
        with pytest.raises(CredentialError) as caught:
            load_object(raw)
        assert "0123" not in str(caught.value)


TEXT = '{"name": "Zoë", "token": "secret-0123"}'


@pytest.mark.parametrize(
    "raw",
    [
        TEXT.encode(),
        b"\xef\xbb\xbf" + TEXT.encode() + b"\r\n",
        TEXT.encode("utf-16"),
        b"\xfe\xff" + TEXT.encode("utf-16-be"),
        TEXT.encode("utf-16-le"),
        TEXT.encode("utf-16-be"),
        TEXT.encode().hex().encode() + b"\n",
        b"0x" + TEXT.encode().hex().upper().encode(),
    ],
    ids=["utf-8", "bom", "utf-16", "utf-16-be", "le without bom", "be without bom", "hex", "0x"],
)
def test_a_file_of_another_system_is_the_same_object(raw: bytes) -> None:
    assert load_object(raw) == {"name": "Zoë", "token": "secret-0123"}


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"  sk-a-key\r\n", "sk-a-key"),
        ("sk-a-key\r\n".encode("utf-16"), "sk-a-key"),
        (b"cafe1234", "cafe1234"),  # hex, but of no object: then it is the token itself
        (b"7b7", "7b7"),
        (b"", ""),
    ],
)
def test_the_text_of_a_file(raw: bytes, text: str) -> None:
    assert credential_text(raw) == text


@pytest.mark.parametrize(
    ("raw", "model"),
    [
        (b'{"model": "m", "messages": []}', "m"),
        (b'{"messages": [], "model": "m"}', "m"),
        (b'{"model": "a\\u0062c"}', "abc"),
        (b'{"model": 7}', ""),
        (b"", ""),
        (b'["model"]', ""),
    ],
)
def test_the_model_of_a_body(raw: bytes, model: str) -> None:
    assert Body(raw).model == model


def test_a_model_that_is_named_twice_is_the_last_one_where_it_decides() -> None:
    assert Body(b'{"model": "m", "model": "n"}').json()["model"] == "n"


def test_a_bomb_for_a_body_reads_as_nothing() -> None:
    import brotli

    compressor = brotli.Compressor(quality=5)
    bomb = b"".join([*(compressor.process(b" " * 2**20) for _ in range(65)), compressor.finish()])
    assert Body(bomb, "br").json() == {}
    assert Body(json.dumps({"model": "m"}).encode(), "unheard-of").model == ""


@pytest.mark.parametrize(
    "url", ["api.example", "ftp://api.example", "https://", "https://user:secret@api.example", "https://x/?k=v"]
)
def test_a_base_url_is_an_address_and_holds_no_secret(url: str) -> None:
    with pytest.raises(ValidationError):
        ProviderSettings(base_url=url)


def test_a_slash_at_the_end_of_a_url_makes_no_difference() -> None:
    assert ProviderSettings(base_url="https://api.example/v1/").base_url == "https://api.example/v1"
