"""SIGHUP takes the configuration again, whatever state the disk is in."""

from __future__ import annotations

from .answers import status_of
from .conftest import Start, Upstream, request


async def test_a_state_folder_that_cannot_be_read_costs_no_account(start: Start, upstream: Upstream) -> None:
    aimux = await start()
    folder = aimux.folder / "state" / "plain"
    folder.rename(aimux.folder / "away")
    folder.touch()
    assert await aimux.app.reload()
    assert "plain: can't look for accounts, those that were known stay: can't read" in aimux.log
    assert status_of(await aimux.send(request())) == 200
    assert len(upstream.requests) == 1
