"""What a user has stored with a vendor is that user's, whoever shares the account."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from typing import Any

import pytest

from aimux.gateway import own_lists
from aimux.gateway.deposit_rows import DepositRows
from aimux.gateway.deposits import Deposits
from aimux.gateway.forms import FIELDS_SLICE
from aimux.plugin import Body, RequestHead, StoredAnswer, ids_in_body, members
from aimux.plugin.stored import EVERYBODYS

from .answers import account_of, head_of, json_of, reply, status_of
from .conftest import BOTH_WAYS, TOKEN, Aimux, Plain, Start, Upstream, request

BOB = "test-token-of-bob-0123456789"
USERS = [{"name": "ann", "token": TOKEN}, {"name": "bob", "token": BOB}]
REFERENCES = members("file", "files")
PAGE = 2


class Vendor:
    """Keeps files by account; lists them by pages of PAGE, whatever was asked for."""

    def __init__(self, upstream: Upstream) -> None:
        self.files: dict[str, str] = {}
        self.makers: dict[str, str] = {}
        """What has made a file by itself."""
        self.asked: list[str] = []
        self.status = 200
        self._upstream = upstream
        upstream.script = self.run

    async def run(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while sent := await self._upstream.read(reader):
            account, (method, target, _) = account_of(sent), sent.split(b" ", 2)
            self.asked.append(f"{method.decode()} {target.decode()}")
            writer.write(self.answer(account, method, target.decode()))
            await writer.drain()

    def answer(self, account: str, method: bytes, target: str) -> bytes:
        path, _, query = target.partition("?")
        named = path.rpartition("/")[2]
        if path != "/v1/files":
            if path == "/v1/chat":
                return answer({"ok": True})
            if self.files.get(named) != account:
                return answer({"error": "nothing of that name"}, 404)
            if method == b"DELETE":
                del self.files[named]
            return answer({"id": named})
        if method == b"POST":
            named = f"file-{len(self.files) + 1000}"
            self.files[named] = account
            return answer({"id": named})
        ids = [one for one, place in self.files.items() if place == account]
        after = dict(part.split("=") for part in query.split("&") if part).get("after", "")
        begin = ids.index(after) + 1 if after else 0
        page = [{"id": one, "by": self.makers.get(one)} for one in ids[begin : begin + PAGE]]
        more = begin + PAGE < len(ids)
        built_in = [] if after else [{"id": "built-in"}]
        return answer({"object": "list", "data": [*built_in, *page], "has_more": more}, self.status)


def answer(body: dict[str, Any], status: int = 200) -> bytes:
    return reply(body, "etag: all", status=status)


@pytest.fixture
def vendor(upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> Vendor:
    def refers_to(self: Plain, head: RequestHead, body: Body) -> tuple[str, ...]:
        return super(Plain, self).refers_to(head, body) + ids_in_body(body, REFERENCES)

    monkeypatch.setattr(Plain, "refers_to", refers_to)
    return Vendor(upstream)


async def ask(
    aimux: Aimux, target: str, token: str = TOKEN, *, method: str = "GET", body: bytes = b""
) -> tuple[int, dict[str, Any]]:
    sent = await aimux.send(request(f"/plain/v1/{target}", method=method, body=body, token=token))
    return status_of(sent), json_of(sent)


async def upload(aimux: Aimux, token: str = TOKEN) -> str:
    status, made = await ask(aimux, "files", token, method="POST", body=b"data")
    assert status == 200
    return str(made["id"])


async def listed(aimux: Aimux, token: str = TOKEN, query: str = "") -> list[str]:
    status, page = await ask(aimux, f"files{query}", token)
    assert status == 200, page
    return [item["id"] for item in page["data"] if item["id"] != "built-in"]


def in_flight(aimux: Aimux) -> int:
    return sum(account.in_flight for account in aimux.app.pools["plain"].accounts.values())


@BOTH_WAYS
@pytest.mark.parametrize("method", ["GET", "DELETE", "POST"])
async def test_what_another_user_has_stored_is_not_found(start: Start, vendor: Vendor, method: str) -> None:
    aimux = await start(users=USERS)
    named = await upload(aimux)
    del vendor.asked[:]
    for target in (named, f"{named}/content", named.replace("-", "%2D"), f"{named};x", f"/{named}"):
        status, told = await ask(aimux, f"files/{target}", BOB, method=method)
        assert (status, told) == (404, {"plain": f"{named} was not found among what you have stored here."})
    assert not vendor.asked
    assert (await ask(aimux, f"files/{named}"))[0] == 200


async def test_nor_is_it_what_a_body_names(start: Start, vendor: Vendor) -> None:
    aimux = await start(users=USERS)
    named = await upload(aimux)
    escaped = named.replace("-", "\\u002d")
    for body in (
        {"file": named},
        {"file": {"a": [{}], "id": named}},
        {"files": ["file-1", named]},
        {"files": [{"type": "self"}, {"id": named}]},
        {"x": [{"file": named}], "file": "file-9"},
        {"files": ["x" * 40] * 200 + [named], "padding": "y" * 200_000},
    ):
        assert (await ask(aimux, "chat", BOB, method="POST", body=json.dumps(body).encode()))[0] == 404
        assert (await ask(aimux, "chat", method="POST", body=json.dumps(body).encode()))[0] == 200
    for raw in (f'{{"\\u0066ile":  "{escaped}"}}', f'{{"file": "{escaped}", "padding": "{"y" * 200_000}"}}'):
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


@pytest.mark.parametrize("how", ["in UTF-16", "in a bomb"])
async def test_a_name_that_can_not_be_seen_does_not_go_up(start: Start, vendor: Vendor, how: str) -> None:
    aimux = await start(users=USERS)
    named = {"padding": "y" * (50_000_000 if how == "in a bomb" else 10), "file": await upload(aimux)}
    raw, fields = json.dumps(named).encode("utf-16"), ""
    if how == "in a bomb":
        raw, fields = gzip.compress(json.dumps(named).encode()), "Content-Encoding: gzip\r\n"
    del vendor.asked[:]
    told = await aimux.send(request("/plain/v1/chat", body=raw, token=BOB, headers=fields))
    assert (status_of(told), vendor.asked) == (400, [])
    assert b"of stored files and the like" in told


@BOTH_WAYS
async def test_a_list_holds_ones_own(start: Start, vendor: Vendor) -> None:
    """All of them, though the vendor's first pages hold nothing of the user's."""
    aimux = await start(users=USERS, accounts=("default", "two"))
    of_bob = [await upload(aimux, BOB) for _ in range(5)]
    of_ann = [await upload(aimux) for _ in range(4)]
    vendor.files["file-made-beside-1"] = "default"
    assert sorted(await listed(aimux)) == of_ann
    assert sorted(await listed(aimux, BOB)) == of_bob
    everything = await listed(aimux)
    page = await ask(aimux, "files?limit=3")
    assert [item["id"] for item in page[1]["data"]] == ["built-in", *everything[:2]]
    assert page[1]["has_more"] is True
    rest = await listed(aimux, query=f"?limit=9&after={everything[1]}")
    assert rest == everything[2:]
    sent = await aimux.send(request("/plain/v1/files", method="GET", body=b""))
    assert b"etag" not in head_of(sent)
    assert in_flight(aimux) == 0


async def test_a_list_that_breaks_off_keeps_no_account_busy(
    start: Start, vendor: Vendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    aimux = await start(users=USERS)
    await upload(aimux)
    async with asyncio.timeout(10):
        monkeypatch.setattr(Deposits, "unknown", lambda *_: 1 / 0)
        sent = await aimux.send(request("/plain/v1/files", method="GET", body=b""))
    assert status_of(sent) == 500
    assert in_flight(aimux) == 0


async def test_a_list_is_one_however_its_type_is_written(
    start: Start, vendor: Vendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    aimux = await start(users=USERS)
    await upload(aimux, BOB)
    own = await upload(aimux)
    written = answer

    def in_capitals(*args: Any) -> bytes:
        return written(*args).replace(b"application/json", b"Application/JSON; charset=UTF-8")

    monkeypatch.setitem(globals(), "answer", in_capitals)
    assert await listed(aimux) == [own]


async def test_a_list_of_a_pinned_account_holds_what_is_there(start: Start, vendor: Vendor) -> None:
    aimux = await start(users=[{"name": "ann", "token": TOKEN, "pin_accounts": True}], accounts=("default", "two"))
    while len(set(vendor.files.values())) < 2:
        await upload(aimux)
    sent = await aimux.send(request("/plain/v1/files", method="GET", body=b"", headers="x-aimux-account: two\r\n"))
    there = [one for one, place in vendor.files.items() if place == "two"]
    assert [item["id"] for item in json_of(sent)["data"]] == ["built-in", *there]


async def test_what_a_list_holds_that_has_no_id_is_everybodys(
    start: Start, vendor: Vendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    aimux = await start(users=USERS)
    items = ["a name", 7, None, {"name": "x"}, {"id": 7}]
    monkeypatch.setattr(vendor, "answer", lambda *_: answer({"data": items, "has_more": False}))
    assert (await ask(aimux, "files"))[1]["data"] == items


async def test_a_list_without_end_is_refused(start: Start, vendor: Vendor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Left out, what is the user's would look deleted."""
    monkeypatch.setattr(own_lists, "MOST_PAGES", 2)
    aimux = await start(users=USERS)
    for _ in range(4):
        await upload(aimux)
    assert len(await listed(aimux)) == 4, "all on the second page"
    await upload(aimux)
    status, told = await ask(aimux, "files")
    assert (status, told["plain"].partition(".")[0]) == (403, "There is more in this list than aimux looks through")


async def test_a_list_that_can_not_be_read_is_not_passed_on(
    start: Start, vendor: Vendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    aimux = await start(users=USERS)
    broken = answer({"data": []}).replace(b"etag: all", b"content-encoding: gzip")
    monkeypatch.setattr(vendor, "answer", lambda *_: broken)
    status, told = await ask(aimux, "files")
    assert (status, told["plain"]) == (
        502,
        "plain gave a list that can't be decoded: Error -3 while decompressing data: incorrect header check.",
    )


async def test_who_has_stored_nothing_gets_an_empty_list(start: Start, vendor: Vendor) -> None:
    aimux = await start(users=USERS)
    await upload(aimux)
    assert await listed(aimux, BOB) == []


async def test_a_list_that_was_refused_is_relayed_as_it_is(start: Start, vendor: Vendor) -> None:
    aimux = await start(users=USERS)
    vendor.status = 404
    assert (await ask(aimux, "files"))[0] == 404
    vendor.status = 206
    assert (await ask(aimux, "files"))[0] == 502, "a part of a list could be anybody's"


async def test_where_nobody_can_tell_whose_it_is_nothing_is_listed(
    start: Start, vendor: Vendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Plain, "lists", lambda _self, _head: "refused")
    aimux = await start(users=USERS)
    assert (await ask(aimux, "files"))[0] == 403
    assert not vendor.asked


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


class Made(StoredAnswer):
    def makers(self, item: dict[str, Any]) -> tuple[str, ...]:
        return (item["by"],) if item.get("by") else ()


@BOTH_WAYS
async def test_what_somebodys_thing_makes_by_itself_is_in_their_list(
    start: Start, vendor: Vendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a schedule's runs are, whose ids no answer to the user has told."""
    monkeypatch.setattr(Plain, "meter", lambda *_: Made())
    aimux = await start(users=USERS)
    anns, bobs = await upload(aimux), await upload(aimux, BOB)
    for number, maker in enumerate((anns, bobs, "file-of-nobody-1")):
        vendor.files[f"file-made-{number}"], vendor.makers[f"file-made-{number}"] = "default", maker
    await ask(aimux, "files/file-made-0")
    assert await listed(aimux) == [anns, "file-made-0"]
    assert await listed(aimux, BOB) == [bobs, "file-made-1"]
    assert (await ask(aimux, "files/file-made-0", BOB))[0] == 404
    await aimux.app.stop()
    again = await start(users=USERS)
    rows = DepositRows(again.app.database, shared=True)
    again.app.gateway.storage = type(again.app.gateway.storage)(rows.deposits, rows.look_up)
    vendor.files["file-made-3"], vendor.makers["file-made-3"] = "default", bobs
    assert await listed(again, BOB) == [bobs, "file-made-1", "file-made-3"]


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
