"""Where a browser on this machine returns the code to."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import asynccontextmanager
from hmac import compare_digest
from typing import TYPE_CHECKING

from aiohttp import web

from aimux.accounts.login import PAGE_HEADERS, AuthorizationResponse, from_query, page
from aimux.plugin import LoginError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence


class NoPort(Exception):
    """Every port that the browser could return to is taken."""


class Loopback:
    """A listener on this machine's loopback. It takes one answer: the first with the right state."""

    def __init__(self) -> None:
        self.port = 0
        self._path = ""
        self._state = ""
        self.answer: asyncio.Future[AuthorizationResponse] = asyncio.get_running_loop().create_future()

    def expect(self, path: str, state: str) -> None:
        """From now on, a request for `path` with `state` is the answer."""
        self._path, self._state = path, state

    async def handle(self, request: web.BaseRequest) -> web.Response:
        path, _, query = request.raw_path.partition("?")
        if request.method != "GET" or path != self._path:
            return _page(404, "Nothing here", "A login of aimux waits on this port, for another address.")
        try:
            answer = from_query(query)
        except LoginError as error:
            return _page(400, "The login is not done yet", f"{error}.")
        # A page from anywhere can send a browser here: without the state it gets nothing, and stops nothing.
        if not compare_digest(answer.state.encode(), self._state.encode()):
            return _page(400, "Not this login", "The state is not the one of the login that aimux waits for.")
        if not self.answer.done():
            self.answer.set_result(answer)
        if answer.error:
            return _page(200, "Not logged in", "The sign-in was declined. You can close this window.")
        return _page(200, "Back to the terminal", "aimux has the code, and goes on there. You can close this window.")


@asynccontextmanager
async def loopback(ports: Sequence[int]) -> AsyncIterator[Loopback]:
    """Listen on the first of `ports` that is free (0: any). Raises NoPort."""
    loop = asyncio.get_running_loop()
    waiting = Loopback()
    server = web.Server(waiting.handle, access_log=None)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(server.shutdown, 1.0)
        for port in ports:
            with contextlib.suppress(OSError):
                first = await loop.create_server(server, "127.0.0.1", port)
                break
        else:
            raise NoPort(f"port {' and '.join(map(str, ports))} is taken; is another login under way?")
        stack.callback(first.close)
        waiting.port = first.sockets[0].getsockname()[1]
        # For some browsers `localhost` is the IPv6 loopback. If there is none, they don't go there either.
        with contextlib.suppress(OSError):
            second = await loop.create_server(server, "::1", waiting.port)
            stack.callback(second.close)
        yield waiting


def _page(status: int, heading: str, text: str) -> web.Response:
    return web.Response(status=status, headers=PAGE_HEADERS, body=page(heading, text))
