"""What lies with one account: requests that name it go there."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from aimux.gateway.deposits import Deposit, Deposits

from .answers import account_of, error, json_of, reply, status_of
from .conftest import Aimux, Plain, Start, Upstream, request

NAMES = ("default", "two", "three", "four", "five")


def test_the_oldest_of_each_user_is_forgotten_first() -> None:
    deposits = Deposits(most=100, each=3)
    deposits.keep("plain", "default", ["file-a"], "bob")
    for number in range(5):
        deposits.keep("plain", "default", [f"file-{number}"], "ann")
    known = [number for number in range(5) if deposits.find("plain", [f"file-{number}"])]
    assert known == [2, 3, 4]
    assert deposits.find("plain", ["file-a"]) == Deposit("default", "bob")
    assert len(deposits) == 4


def test_and_the_oldest_of_all_where_there_are_many_users() -> None:
    deposits = Deposits(most=10, each=3)
    for number in range(50):
        deposits.keep("plain", "default", [f"file-{number}"], f"user{number}")
    assert len(deposits) == 10
    assert [number for number in range(50) if deposits.has(f"user{number}")] == list(range(40, 50))


def test_whose_something_is_stays_as_it_was_first_told() -> None:
    deposits = Deposits()
    deposits.keep("plain", "default", ["file-1"], None)
    deposits.keep("plain", "default", ["file-1"], "ann")
    deposits.keep("plain", "two", ["file-1"], "bob")
    assert deposits.find("plain", ["file-0", "file-1"]) == Deposit("two", "ann")
    assert not deposits.has(None)
    assert not deposits.has("bob")


def test_nothing_is_found_with_another_provider_and_nothing_long_is_kept() -> None:
    deposits = Deposits()
    deposits.keep("plain", "default", ["file-1", "f" * 513, ""], "ann")
    assert deposits.find("other", ["file-1"]) is None
    assert len(deposits) == 1


# --- through the gateway -------------------------------------------------------------------------------------------


def vendor(upstream: Upstream) -> list[str]:
    """Keeps a file for each POST to /v1/files, with the account that sent it, and knows it nowhere else."""
    files: dict[str, str] = {}
    asked: list[str] = []
    numbers: Iterator[int] = iter(range(1000, 9999))

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while sent := await upstream.read(reader):
            account, (method, path, _) = account_of(sent), sent.split(b" ", 2)
            asked.append(account)
            named = path.removesuffix(b"/content").rpartition(b"/")[2].decode()
            if method == b"POST" and named == "files":
                named = f"file-{next(numbers)}"
                files[named] = account
                writer.write(reply({"id": named}))
            elif files.get(named) == account:
                writer.write(reply({} if path.endswith(b"/content") else {"id": named}))
            else:
                writer.write(error(404, body=b'{"error":"no such file"}'))

    upstream.script = run
    return asked


async def upload(aimux: Aimux) -> str:
    sent = await aimux.send(request("/plain/v1/files", body=b"data"))
    assert status_of(sent) == 200
    named = json_of(sent)["id"]
    assert isinstance(named, str)
    return named


async def get(aimux: Aimux, named: str) -> int:
    return status_of(await aimux.send(request(f"/plain/v1/files/{named}", method="GET", body=b"")))


async def test_a_file_is_found_on_the_account_that_has_it(start: Start, upstream: Upstream) -> None:
    asked = vendor(upstream)
    aimux = await start(accounts=NAMES)
    files = [await upload(aimux) for _ in range(5)]
    assert len(set(asked)) > 1
    del asked[:]
    assert [await get(aimux, named) for named in files] == [200] * 5
    assert len(asked) == 5, "each was asked for once"


@pytest.mark.parametrize("what", ["", "/content"], ids=["itself", "what is in it, which does not name it"])
async def test_one_that_nobody_remembers_is_looked_for_and_then_remembered(
    start: Start, upstream: Upstream, what: str
) -> None:
    asked = vendor(upstream)
    aimux = await start(accounts=NAMES)
    files = [await upload(aimux) for _ in range(5)]
    aimux.app.gateway.storage.deposits = known = Deposits()
    looked_for = []
    for named in reversed(files):
        del asked[:]
        assert await get(aimux, named + what) == 200
        looked_for += [named] if len(asked) > 1 else []
    del asked[:]
    assert looked_for
    assert [await get(aimux, named + what) for named in looked_for] == [200] * len(looked_for)
    assert len(asked) == len(looked_for)
    found = known.find("plain", looked_for)
    assert found is not None
    assert found.owner is None


async def test_one_that_is_nowhere_is_not_found_once_all_were_asked(start: Start, upstream: Upstream) -> None:
    asked = vendor(upstream)
    aimux = await start(accounts=NAMES)
    assert await get(aimux, "file-00000000") == 404
    assert sorted(asked) == sorted(NAMES)
    del asked[:]
    assert await get(aimux, "input_items") == 404
    assert len(asked) == 1, "that is no id"


async def test_a_limited_account_is_asked_too(start: Start, upstream: Upstream) -> None:
    """Its limit is of the models; and if not, its answer is the client's."""
    vendor(upstream)
    aimux = await start(accounts=("default", "two"))
    named = await upload(aimux)
    accounts = aimux.app.pools["plain"].accounts
    holder = aimux.app.gateway.storage.deposits.find("plain", [named])
    assert holder is not None
    accounts[holder.account].quota.cool(1e9, until=9e9, reason="limited")
    accounts[holder.account].keep_off(9e9, 0.0, "limited")
    assert len([one for one in accounts.values() if one.state(2e9).status == "healthy"]) == 1
    assert await get(aimux, named) == 200
    aimux.app.gateway.storage.deposits = Deposits()
    assert await get(aimux, named) == 200


async def test_what_clients_send_again_holds_nobody_to_an_account_that_cant_serve(
    start: Start, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Anthropic's message threads: `thread_not_found` has the client send the whole conversation."""
    monkeypatch.setattr(Plain, "replayed_ids", "file-")
    asked = vendor(upstream)
    aimux = await start(accounts=NAMES)
    named = await upload(aimux)
    (holder,) = asked
    del asked[:]
    assert await get(aimux, named) == 200
    assert asked == [holder]
    del asked[:]
    aimux.app.pools["plain"].accounts[holder].keep_off(9e9, 0.0, "limited")
    assert await get(aimux, named) == 404
    assert len(asked) == 1
    assert holder not in asked, "and it is looked for nowhere else"
    monkeypatch.setattr(Plain, "replayed_ids", "")
    assert await get(aimux, named) == 200
