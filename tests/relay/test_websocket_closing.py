"""Close frames, and what comes behind them. Autobahn's group 7."""

from __future__ import annotations

import gc
import weakref

import pytest

from tests.relay.sockets import BINARY, CLOSE, PING, TEXT, Socket, close, raw

GOOD_CODES = [None, 1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999]


@pytest.mark.parametrize("code", GOOD_CODES)
@pytest.mark.parametrize("reason", ["", "r" * 123])
async def test_close_codes_and_reasons_cross_from_the_client(code: int | None, reason: str) -> None:
    socket = Socket()
    if code is None and reason:
        return
    socket.client.send(raw(TEXT, b"last") + raw(CLOSE, close(code, reason.encode())) + raw(TEXT, b"too late"))
    told = (1005 if code is None else code, reason)
    assert socket.upstream.got() == [(TEXT, b"last", True), (CLOSE, close(code, reason.encode()), True)]
    socket.client.got()
    assert socket.upstream.closed_with == socket.client.closed_with == told
    assert socket.pipe.done.done()
    assert socket.pipe.error == ""
    assert not socket.upstream.wire.closed, "the upstream, as the server, ends the connection"
    socket.upstream.flush()
    socket.pipe.upstream.connection_lost(None)
    assert socket.upstream.wire.closed


@pytest.mark.parametrize("code", GOOD_CODES)
async def test_close_codes_cross_from_the_upstream(code: int | None) -> None:
    socket = Socket()
    socket.upstream.send(
        raw(TEXT, b"last", masked=False) + raw(CLOSE, close(code, b"why" if code else b""), masked=False)
    )
    assert socket.client.got()[0] == (TEXT, b"last", True)
    assert socket.client.closed_with == (1005 if code is None else code, "why" if code else "")
    assert not socket.pipe.done.done(), "the client has not answered yet"
    socket.client.flush()
    assert socket.pipe.done.done()
    assert socket.pipe.error == ""
    socket.upstream.got()
    assert socket.upstream.closed_with == socket.client.closed_with


async def test_a_socket_that_is_over_is_kept_by_nobody() -> None:
    """Over TLS a second of such sockets would otherwise hold their buffers for ten."""
    socket = Socket()
    pipe = weakref.ref(socket.pipe)
    socket.client.send(raw(CLOSE, close(1000)))
    socket.upstream.flush()
    socket.pipe.upstream.connection_lost(None)
    assert socket.pipe.done.done()
    del socket
    gc.collect()
    assert pipe() is None


async def test_both_sides_may_close_at_once() -> None:
    socket = Socket()
    socket.pipe.close(1001, "bye")
    socket.upstream.send(raw(CLOSE, close(4000), masked=False))
    socket.client.send(raw(CLOSE, close(4001)))
    socket.client.got()
    socket.upstream.got()
    assert socket.client.closed_with == (1001, "bye")
    assert socket.upstream.closed_with == (1001, "")
    assert socket.pipe.done.done()
    assert socket.pipe.error == ""


async def test_what_the_upstream_still_says_after_the_clients_close_is_dropped() -> None:
    socket = Socket()
    socket.client.send(raw(CLOSE, close(1000)))
    socket.upstream.send(raw(TEXT, b"too late", masked=False) + raw(PING, masked=False))
    assert socket.client.got() == [(CLOSE, close(1000), True)]


BEHIND = {
    "a close": raw(CLOSE, close(4000)),
    "a ping": raw(PING, b"?"),
    "a message": raw(TEXT, b"too late"),
    "a fragment": raw(TEXT, b"too late", fin=False),
    "what breaks the rules": raw(3),
    "256 kB": raw(BINARY, bytes(256 * 1024)),
}


@pytest.mark.parametrize("behind", BEHIND.values(), ids=BEHIND)
@pytest.mark.parametrize("apart", [False, True])
async def test_nothing_counts_behind_a_close(behind: bytes, apart: bool) -> None:
    socket = Socket()
    goodbye = raw(CLOSE, close(1000, b"bye"))
    for data in (goodbye, behind) if apart else (goodbye + behind,):
        socket.client.send(data)
    await socket.settle()
    assert socket.upstream.got() == [(CLOSE, close(1000, b"bye"), True)]
    assert socket.client.got() == [(CLOSE, close(1000, b"bye"), True)]
    assert socket.pipe.error == ""


async def test_a_long_message_before_a_close_arrives_whole() -> None:
    socket = Socket()
    message = b"x" * 256 * 1024
    socket.client.send(raw(TEXT, message) + raw(CLOSE, close(1000)) + raw(PING))
    await socket.settle()
    assert socket.upstream.got() == [(TEXT, message, True), (CLOSE, close(1000), True)]
