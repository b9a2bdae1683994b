"""What a vendor may do in a way of its own: where its clients put their key, and where they name the model."""

from __future__ import annotations

import pytest

from aimux.plugin import RequestHead
from tests.gateway.conftest import SECRET, TOKEN, Plain, Start, Upstream, request
from tests.gateway.people import add, status

THEIRS = "vendors-own-key-0123456789"


@pytest.fixture(autouse=True)
def _habits(monkeypatch: pytest.MonkeyPatch) -> None:
    def model_in_path(_self: Plain, head: RequestHead) -> str:
        _, found, name = head.path.partition("/models/")
        return name.partition(":")[0] if found else ""

    monkeypatch.setattr(Plain, "key_header", "x-plain-key")
    monkeypatch.setattr(Plain, "model_in_path", model_in_path)


async def test_the_token_is_taken_from_the_header_of_the_vendors_clients(start: Start, upstream: Upstream) -> None:
    aimux = await start()
    answer = await aimux.send(request(token=None, headers=f"X-Plain-Key: {TOKEN}\r\n"))
    assert answer.startswith(b"HTTP/1.1 200 ")
    (sent,) = upstream.requests
    assert b"x-plain-key" not in sent.lower()
    assert SECRET.encode() in sent
    assert (await aimux.send(request(token=None, headers="X-Plain-Key: wrong\r\n"))).startswith(b"HTTP/1.1 401 ")
    assert b"or `x-plain-key: <your aimux token>`" in await aimux.send(request(token=None))


async def test_what_a_client_has_there_beside_its_token_does_not_go_upstream(start: Start, upstream: Upstream) -> None:
    aimux = await start()
    answer = await aimux.send(request(headers=f"X-Plain-Key: {THEIRS}\r\n"))
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert THEIRS.encode() not in upstream.requests[0]


async def test_a_key_of_the_vendors_is_brought_along_there(start: Start, upstream: Upstream) -> None:
    aimux = await start(users=[{"name": "ann", "token": TOKEN, "own_login": True}])
    answer = await aimux.send(request(token=None, headers=f"X-Aimux-Token: {TOKEN}\r\nX-Plain-Key: {THEIRS}\r\n"))
    assert answer.startswith(b"HTTP/1.1 200 ")
    (sent,) = upstream.requests
    assert f"authorization: bearer {THEIRS}\r\n".encode() in sent.lower()
    assert b"x-plain-key" not in sent.lower()


@pytest.mark.parametrize(
    ("model", "body", "code"),
    [
        ("small-1", b"{}", 200),
        ("small-1", b'{"model":"large-1"}', 200),
        ("large-1", b"{}", 400),
        ("large-1", b'{"model":"small-1"}', 400),
    ],
)
async def test_scopes_hold_for_the_model_that_the_path_names(
    start: Start, upstream: Upstream, model: str, body: bytes, code: int
) -> None:
    aimux = await start()
    bound = await add(aimux, "bound", "model:small-*")
    got, _ = await status(aimux, bound, target=f"/plain/models/{model}:generate", body=body)
    assert got == code
    assert len(upstream.requests) == (code == 200)
    assert f"model={model} " in aimux.log


async def test_models_of_the_configuration_leave_it_alone(start: Start, upstream: Upstream) -> None:
    aimux = await start(models={"small-1": {"provider": "plain", "model": "large-1"}})
    answer = await aimux.send(request("/plain/models/small-1:generate", body=b'{"model":"small-1"}'))
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert upstream.requests[0].startswith(b"POST /models/small-1:generate ")
    assert upstream.requests[0].endswith(b'{"model":"small-1"}')
