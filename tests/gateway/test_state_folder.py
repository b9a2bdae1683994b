"""The state folder at a start and at a reload: whose it is, and whether it can be read."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from .answers import status_of
from .conftest import Start, Upstream, request


async def test_root_is_warned_of_a_folder_that_is_somebody_elses(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder := tmp_path / "state").mkdir(mode=0o700)
    if os.geteuid() == 0:
        os.chown(folder, 65534, -1)
    owner = folder.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    aimux = await start()
    assert f"{folder} belongs to user id {owner}, who can't read what aimux writes there as root" in aimux.log


async def test_nobody_is_warned_of_a_folder_of_their_own(start: Start) -> None:
    assert "belongs to" not in (await start()).log


async def test_a_start_with_few_file_descriptors_says_for_how_many_it_has_room(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "file descriptors suffice for 96 client connections: raise LimitNOFILE= or `ulimit -n`"
    assert said not in (await start()).log
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, -1))
    assert said in (await start()).log


async def test_a_folder_that_cannot_be_read_at_a_reload_costs_no_account(start: Start, upstream: Upstream) -> None:
    aimux = await start()
    folder = aimux.folder / "state" / "plain"
    folder.rename(aimux.folder / "away")
    folder.touch()
    assert await aimux.app.reload()
    assert "plain: can't look for accounts, those that were known stay: can't read" in aimux.log
    assert status_of(await aimux.send(request())) == 200
    assert len(upstream.requests) == 1
