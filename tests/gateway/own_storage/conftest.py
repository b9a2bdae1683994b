"""A vendor that keeps files by account, and what two users ask of it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from aimux.plugin import Body, RequestHead, ids_in_body, members

from ..answers import account_of, json_of, reply, status_of
from ..conftest import TOKEN, Aimux, Plain, Upstream, request

BOB = "test-token-of-bob-0123456789"
USERS = [{"name": "ann", "token": TOKEN}, {"name": "bob", "token": BOB}]
REFERENCES = members("file", "files")
PAGE = 2


class Vendor:
    """Keeps files by account; lists them by pages of PAGE, whatever was asked for."""

    prefix = "file-"

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
            named = f"{self.prefix}{len(self.files) + 1000}"
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
