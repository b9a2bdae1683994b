"""A list of what a vendor keeps holds what is one's own."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from aimux.gateway import own_lists
from aimux.gateway.deposit_rows import DepositRows
from aimux.gateway.deposits import Deposits
from aimux.plugin import StoredAnswer

from ..answers import head_of, json_of, status_of
from ..conftest import BOTH_WAYS, TOKEN, Plain, Start, request
from .conftest import BOB, USERS, Vendor, answer, ask, in_flight, listed, upload


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
