"""What a user has stored with a vendor is that user's, whoever shares the account."""

from __future__ import annotations

import gzip
import json
import time

import pytest

from aimux.gateway.deposit_rows import DepositRows
from aimux.gateway.forms import FIELDS_SLICE
from aimux.plugin import Body, RequestHead
from aimux.plugin.stored import EVERYBODYS

from ..answers import status_of
from ..conftest import BOTH_WAYS, TOKEN, Plain, Start, request
from .conftest import BOB, USERS, Vendor, answer, ask, listed, upload


@BOTH_WAYS
@pytest.mark.parametrize("method", ["GET", "DELETE", "POST"])
async def test_what_another_user_has_stored_is_not_found(start: Start, vendor: Vendor, method: str) -> None:
    aimux = await start(users=USERS)
    named = await upload(aimux)
    del vendor.asked[:]
    spelled = (named, f"{named}/content", named.replace("-", "%2D"), f"{named};x", f"/{named}", f"{named}%20")
    for target in (*spelled, f"{named}:download", f"file-1?call_id={named.replace('-', '%2D')}"):
        status, told = await ask(aimux, f"files/{target}", BOB, method=method)
        assert (status, told) == (404, {"plain": f"{named} was not found among what you have stored here."})
    assert not vendor.asked
    assert (await ask(aimux, f"files/{named}"))[0] == 200


@pytest.mark.parametrize("prefix", ["file_" + "aGVs+bG8=" * 50, "ad5663da-63e6-86c6-e0be-ff15effa"])
async def test_a_name_may_be_long_or_no_word(start: Start, vendor: Vendor, prefix: str) -> None:
    """Another gateway in an account's place has such ones, in base64; Mistral's are UUIDs."""
    vendor.prefix = prefix
    aimux = await start(users=USERS)
    named = await upload(aimux)
    del vendor.asked[:]
    for target in (named, named.replace("=", "%3D").replace("+", "%2B")):
        assert (await ask(aimux, f"files/{target}", BOB))[0] == 404
    escaped = named.replace("=", "\\u003D").replace("+", "\\u002b")
    assert (await ask(aimux, "chat", BOB, method="POST", body=f'{{"file": "{escaped}"}}'.encode()))[0] == 404
    body = json.dumps({"file": named}).encode()
    assert (await ask(aimux, "chat", BOB, method="POST", body=body))[0] == 404
    assert not vendor.asked
    assert (await ask(aimux, "chat", method="POST", body=body))[0] == 200


@pytest.mark.parametrize("prefix", ["batches.of:", "20261129"])
async def test_a_name_may_look_like_none(start: Start, vendor: Vendor, prefix: str) -> None:
    vendor.prefix = prefix
    aimux = await start(users=USERS)
    named = await upload(aimux)
    assert (await ask(aimux, f"files/{named}", BOB))[0] == 404
    assert await listed(aimux, BOB) == []
    assert (await ask(aimux, f"files/{named}"))[0] == 200
    assert await listed(aimux) == [named]


async def test_nor_is_it_what_a_body_names(start: Start, vendor: Vendor) -> None:
    aimux = await start(users=USERS)
    named = await upload(aimux)
    escaped = named.replace("-", "\\u002d")
    for body in (
        {"file": named},
        {"file": {"a": [{}], "id": named}},
        {"file": {"a": [[{"b": named}]]}},
        {"a": [{"a name that no provider knows": [[named]]}]},
        {"file": {"junk": "x" * 200_000, "id": named}},
        {"a": [{"files": ["x" * 500] * 450 + [named]}]},
        {"files": ["file-1", named]},
        {"files": [{"type": "self"}, {"id": named}]},
        {"x": [{"file": named}], "file": "file-9"},
        {"files": ["x" * 40] * 200 + [named], "padding": "y" * 200_000},
    ):
        assert (await ask(aimux, "chat", BOB, method="POST", body=json.dumps(body).encode()))[0] == 404
        assert (await ask(aimux, "chat", method="POST", body=json.dumps(body).encode()))[0] == 200
    for raw in (
        f'{{"\\u0066ile":  "{escaped}"}}',
        f'{{"file": "{escaped}", "padding": "{"y" * 200_000}"}}',
        f'{{"file": {{"id": "{named}", "id": "file-9"}}}}',
        f'{{"file": {{"id": "{named}", "n": {"1" * 5_000}}}}}',
        f'{{"file": {{"id": "{named}", "n": {"[" * 5_000}{"]" * 5_000}}}}}',
    ):
        assert (await ask(aimux, "chat", BOB, method="POST", body=raw.encode()))[0] == 404
    said = {"text": f'"file": "{named}"'}
    assert (await ask(aimux, "chat", BOB, method="POST", body=json.dumps(said).encode()))[0] == 200


@pytest.mark.parametrize("padding", [0, 200_000])
async def test_nothing_in_front_of_a_name_puts_it_out_of_sight(start: Start, vendor: Vendor, padding: int) -> None:
    aimux = await start(users=USERS)
    named, blank = await upload(aimux), " " * 20_000
    many = ", ".join(f'"file-{number:022}1A"' for number in range(600))
    for value in (f"[{blank}{named!r}]", f"{{{blank}'id': {named!r}}}", f"[{many}, {named!r}]"):
        raw = f'{{"padding": "{"y" * padding}", "a": [{{"files": {value}}}]}}'.replace("'", '"').encode()
        assert (await ask(aimux, "chat", BOB, method="POST", body=raw))[0] == 404, value[-60:]
        assert (await ask(aimux, "chat", method="POST", body=raw))[0] == 200


@pytest.mark.parametrize("size", [0, FIELDS_SLICE - 60, 200_000])
@pytest.mark.parametrize("coding", ["", "gzip", "aws-chunked"])
@pytest.mark.parametrize("field", ['"file_id"', '"video[id]"', "x\r\nContent-Type: text/plain"])
async def test_nor_is_it_what_a_form_has_as_a_field(
    start: Start, vendor: Vendor, size: int, coding: str, field: str
) -> None:
    aimux = await start(users=USERS)
    named, disposition = await upload(aimux), "Content-Disposition: form-data; name="
    file = f'{disposition}"file"; filename="a"\r\n\r\n{"x" * size}'
    raw = f"--XyZ\r\n{file}\r\n--XyZ\r\n{disposition}{field}\r\n\r\n{named}\r\n--XyZ--\r\n".encode()
    fields = "Content-Type: multipart/form-data; boundary=XyZ\r\n"
    if coding:
        fields += f"Content-Encoding: {coding}\r\n"
    raw = gzip.compress(raw, 1) if coding == "gzip" and size < 200_000 else raw
    for token, status in ((BOB, 404), (TOKEN, 200)):
        assert status_of(await aimux.send(request("/plain/v1/chat", body=raw, token=token, headers=fields))) == status


@pytest.mark.parametrize("others", ["Content-Type: application/json\r\n{}", "{}Content-Type: text/plain\r\n"])
async def test_whichever_of_its_types_a_server_reads(start: Start, vendor: Vendor, others: str) -> None:
    aimux = await start(users=USERS)
    raw = f"--XyZ\r\nContent-Disposition: form-data; name=file_id\r\n\r\n{await upload(aimux)}\r\n--XyZ--\r\n".encode()
    fields = others.format("Content-Type: Multipart/form-data; boundary=XyZ\r\n")
    assert status_of(await aimux.send(request("/plain/v1/chat", body=raw, token=BOB, headers=fields))) == 404


async def test_a_form_with_more_of_them_than_can_be_looked_at_is_refused(start: Start, vendor: Vendor) -> None:
    aimux = await start(users=USERS)
    await upload(aimux)
    raw = b"".join(b"\n\nfile-%d\n--" % number for number in range(10_000, 11_500))
    fields = "Content-Type: multipart/form-data; boundary=XyZ\r\n"
    assert status_of(await aimux.send(request("/plain/v1/chat", body=raw, headers=fields))) == 400


@pytest.mark.parametrize(("shared", "status"), [(False, 403), (True, 200)])
async def test_nor_does_anybody_go_through_what_everybody_has(
    start: Start, vendor: Vendor, shared: bool, status: int
) -> None:
    aimux = await start(users=USERS, shared_storage=shared)
    await upload(aimux)
    body = json.dumps({"file": EVERYBODYS}).encode()
    assert (await ask(aimux, "chat", method="POST", body=body))[0] == status


@pytest.mark.parametrize("coding", ["gzip", "aws-chunked"])
@pytest.mark.parametrize("padding", [0, 200_000])
async def test_a_coding_that_is_none_hides_no_name(start: Start, vendor: Vendor, coding: str, padding: int) -> None:
    """Servers that don't know of codings read what is there."""
    aimux = await start(users=USERS)
    raw = json.dumps({"file": await upload(aimux), "padding": "y" * padding}).encode()
    fields = f"Content-Encoding: {coding}\r\n"
    for token, status in ((BOB, 404), (TOKEN, 200)):
        assert status_of(await aimux.send(request("/plain/v1/chat", body=raw, token=token, headers=fields))) == status


@pytest.mark.parametrize("how", ["in UTF-16", "in UTF-16 behind spaces", "in a bomb"])
async def test_a_name_that_can_not_be_seen_does_not_go_up(start: Start, vendor: Vendor, how: str) -> None:
    aimux = await start(users=USERS)
    named = {"padding": "y" * (50_000_000 if how == "in a bomb" else 10), "file": await upload(aimux)}
    raw, fields = json.dumps(named).encode("utf-16"), ""
    if how == "in UTF-16 behind spaces":
        raw = (" " * 40 + json.dumps(named)).encode("utf-16-le")
    if how == "in a bomb":
        raw, fields = gzip.compress(json.dumps(named).encode()), "Content-Encoding: gzip\r\n"
    del vendor.asked[:]
    told = await aimux.send(request("/plain/v1/chat", body=raw, token=BOB, headers=fields))
    assert (status_of(told), vendor.asked) == (400, [])
    assert b"of stored files and the like" in told


async def test_nor_does_naming_ones_own_beside_it(
    start: Start, vendor: Vendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an answer leads to belongs to whoever has made what its path names."""
    aimux = await start(users=USERS)
    named, answers = await upload(aimux, BOB), vendor.answer

    def leads_on(account: str, method: bytes, target: str) -> bytes:
        return answer({"id": "file-3000"}) if "beside" in target else answers(account, method, target)

    monkeypatch.setattr(vendor, "answer", leads_on)
    assert (await ask(aimux, f"files/file-beside-1?x={named}", BOB))[0] == 200
    vendor.files["file-3000"] = "default"
    assert (await ask(aimux, "files/file-3000"))[0] == 200


async def test_naming_something_does_not_make_it_ones_own(start: Start, vendor: Vendor) -> None:
    """What was made beside aimux stays everybody's who knows of it."""
    aimux = await start(users=USERS)
    vendor.files["file-beside-1"] = "default"
    assert (await ask(aimux, "files/file-beside-1", BOB, method="POST", body=b"{}"))[0] == 200
    assert (await ask(aimux, "files/file-beside-1"))[0] == 200
    assert await listed(aimux, BOB) == []


async def test_a_team_may_share_it(start: Start, vendor: Vendor) -> None:
    aimux = await start(users=USERS, shared_storage=True)
    named = await upload(aimux)
    assert (await ask(aimux, f"files/{named}", BOB))[0] == 200
    assert (await ask(aimux, "chat", BOB, method="POST", body=json.dumps({"file": named}).encode()))[0] == 200
    assert await listed(aimux, BOB) == [named]


async def test_without_users_everything_is_everybodys(start: Start, vendor: Vendor) -> None:
    aimux = await start(users=[], allow_anonymous=True)
    named = await upload(aimux)
    assert await listed(aimux) == [named]
    await aimux.app.stop()
    again = await start(users=USERS)
    assert (await ask(again, f"files/{named}", BOB))[0] == 200


async def test_a_restart_knows_whose_it_is(start: Start, vendor: Vendor) -> None:
    aimux = await start(users=USERS)
    named = await upload(aimux)
    await aimux.app.stop()
    again = await start(users=USERS)
    assert (await ask(again, f"files/{named}", BOB))[0] == 404
    assert await listed(again) == [named]


async def test_what_memory_has_lost_is_looked_up(start: Start, vendor: Vendor) -> None:
    """As another node knows what this one has written."""
    aimux = await start(users=USERS)
    named, other = await upload(aimux), await upload(aimux, BOB)
    await aimux.app.stop()
    again = await start(users=USERS)
    rows = DepositRows(again.app.database, shared=True)
    again.app.gateway.storage = type(again.app.gateway.storage)(rows.deposits, rows.look_up)
    rows.deposits.keep("plain", "default", ["file-something-1"], "ann")
    assert (await ask(again, f"files/{named}", BOB))[0] == 404
    assert await listed(again, BOB) == [other]


async def test_a_body_that_names_too_much_is_refused(start: Start, vendor: Vendor) -> None:
    aimux = await start(users=USERS)
    await upload(aimux)
    for piece in ('"file":{},', '"file":{"file":{"file":[[[[]]]]}},', '"file":["file":['):
        body = ("{" + piece * 3_000 + '"x":1}').encode()
        began = time.thread_time()
        assert (await ask(aimux, "chat", BOB, method="POST", body=body))[0] == 400
        assert time.thread_time() - began < 0.2


async def test_bodies_are_not_looked_at_where_nobody_has_stored_anything(
    start: Start, vendor: Vendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bytes] = []

    def refers_to(_self: Plain, _head: RequestHead, body: Body) -> tuple[str, ...]:
        seen.append(body.raw)
        return ()

    monkeypatch.setattr(Plain, "refers_to", refers_to)
    aimux = await start(users=USERS)
    assert (await ask(aimux, "chat", method="POST", body=b'{"model":"m"}'))[0] == 200
    assert not seen
