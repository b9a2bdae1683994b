"""Tokens signed elsewhere, as their owners' requests meet them."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import jwt
import pytest

from aimux.config import ConfigError
from aimux.people import Actor, issuing
from tests.gateway.conftest import Start, Upstream, request
from tests.gateway.people import status, stream, streaming

__all__ = ["streaming"]

SECRET = "the-secret-of-the-old-gateway-0123"
JWT = {"jwt": {"secret": SECRET, "prefix": "la_sk_", "user_claim": ["label", "sub"], "leeway": 0}}
ADMIN = Actor("admin")


def token(lasts: float = 600, **claims: Any) -> str:
    said = {"sub": "0f1c", "label": "ann", "exp": time.time() + lasts, **claims}
    return "la_sk_" + jwt.encode(said, SECRET, "HS256")


async def test_it_is_served_by_the_name_in_its_claims_until_its_subject_is_revoked(start: Start) -> None:
    aimux = await start(users=[], auth=JWT)
    assert (await status(aimux, "nobodys-token-at-all"))[0] == 401, "who signs tokens has users"
    assert (await status(aimux, token()))[0] == 200
    assert "user=ann" in aimux.log
    await issuing.revoke_subject(aimux.app.people, ADMIN, "0f1c")
    code, said = await status(aimux, token())
    assert (code, said) == (403, "This token was revoked; ask whoever runs aimux for another one.")
    assert (await status(aimux, token(sub="other")))[0] == 200
    await issuing.restore_subject(aimux.app.people, ADMIN, "0f1c")
    assert (await status(aimux, token()))[0] == 200


@pytest.mark.usefixtures("streaming")
async def test_open_streams_end_with_the_subject_and_with_the_token(start: Start, upstream: Upstream) -> None:
    aimux = await start(auth=JWT)
    revoked, expiring = await stream(aimux, token()), await stream(aimux, token(2, sub="short"))
    await issuing.revoke_subject(aimux.app.people, ADMIN, "0f1c")
    async with asyncio.timeout(1):
        assert b"revoked" in await revoked.read()
    async with asyncio.timeout(4):
        assert b"expired" in await expiring.read()
    await upstream.until(lambda: upstream.open == 0)


async def test_nothing_of_it_goes_upstream(start: Start, upstream: Upstream) -> None:
    aimux = await start(auth=JWT)
    secret = token()
    assert (await aimux.send(request(token=secret))).startswith(b"HTTP/1.1 200 ")
    assert secret.encode() not in upstream.requests[0]
    assert secret[8:] not in aimux.log


async def test_a_reload_ends_what_is_signed_by_another(start: Start) -> None:
    import json

    aimux = await start(auth=JWT)
    assert (await status(aimux, token()))[0] == 200
    file = aimux.folder / "config.json"
    settings = json.loads(file.read_text())
    settings["auth"]["jwt"]["secret"] = "another-secret-0123456789-012345"
    file.write_text(json.dumps(settings))
    assert await aimux.app.reload()
    assert (await status(aimux, token()))[0] == 401
    settings["auth"]["jwt"] = {"key_file": "/no/such/file"}
    file.write_text(json.dumps(settings))
    assert not await aimux.app.reload()
    assert (await status(aimux, token()))[0] == 401


async def test_keys_that_are_not_there_stop_the_start(start: Start, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"auth\.jwt\.key_file"):
        await start(auth={"jwt": {"key_file": str(tmp_path / "nosuch")}})
