"""The file vault: layout, compare and swap, names, and what of it shows to whoever looks for changes."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimux.accounts import Conflict, FileVault, Missing, VaultError
from aimux.accounts.vault import ACCOUNT_NAME
from tests.accounts.support import FILE, mode, put


async def test_layout_and_modes(vault: FileVault, state_dir: Path) -> None:
    await vault.write("demo", "default", FILE, b"one", expect=None)
    await vault.write("demo", "work", FILE, b"two", expect=None)
    assert (state_dir / "demo" / FILE).read_bytes() == b"one"
    assert (state_dir / "demo" / "work" / FILE).read_bytes() == b"two"
    assert mode(state_dir / "demo" / FILE) == mode(state_dir / "demo" / "work" / FILE) == 0o600
    assert mode(state_dir) == mode(state_dir / "demo") == mode(state_dir / "demo" / "work") == 0o700
    assert await vault.list("demo", FILE) == ["default", "work"]
    assert await vault.list("other", FILE) == []


async def test_compare_and_swap(vault: FileVault) -> None:
    await vault.write("demo", "a", FILE, b"one", expect=None)
    for wrong in (None, b"", b"two"):
        with pytest.raises(Conflict):
            await vault.write("demo", "a", FILE, b"new", expect=wrong)
    assert await vault.read("demo", "a", FILE) == b"one"
    await vault.write("demo", "a", FILE, b"two", expect=b"one")
    assert await vault.read("demo", "a", FILE) == b"two"


async def test_missing(vault: FileVault) -> None:
    with pytest.raises(Missing, match="import a login"):
        await vault.read("demo", "a", FILE)
    with pytest.raises(Missing):
        await vault.delete("demo", "a", FILE)
    with pytest.raises(Missing):
        await vault.rename("demo", "a", "b", FILE)
    with pytest.raises(Conflict):
        await vault.write("demo", "a", FILE, b"new", expect=b"old")


async def test_delete_leaves_nothing_of_the_account(vault: FileVault, state_dir: Path) -> None:
    await vault.write("demo", "default", FILE, b"one", expect=None)
    await vault.write("demo", "a", FILE, b"two", expect=None)
    await vault.write("demo", "a", FILE + ".spare", b"three", expect=None)
    await vault.delete("demo", "a", FILE)
    assert not (state_dir / "demo" / "a").exists()
    await vault.delete("demo", "default", FILE)
    assert await vault.list("demo", FILE) == []


async def test_delete_keeps_files_that_are_not_ours(vault: FileVault, state_dir: Path) -> None:
    await vault.write("demo", "a", FILE, b"two", expect=None)
    notes = state_dir / "demo" / "a" / "notes.txt"
    notes.write_text("keep")
    await vault.delete("demo", "a", FILE)
    assert notes.read_text() == "keep"


async def test_rename(vault: FileVault, state_dir: Path) -> None:
    await vault.write("demo", "default", FILE, b"one", expect=None)
    await vault.write("demo", "b", FILE, b"two", expect=None)
    with pytest.raises(Conflict, match="there already"):
        await vault.rename("demo", "default", "b", FILE)
    with pytest.raises(Conflict):
        await vault.rename("demo", "b", "b", FILE)
    await vault.rename("demo", "default", "c", FILE)
    await vault.rename("demo", "b", "default", FILE)
    assert await vault.list("demo", FILE) == ["c", "default"]
    assert await vault.read("demo", "c", FILE) == b"one"
    assert await vault.read("demo", "default", FILE) == b"two"
    assert not (state_dir / "demo" / "b").exists()


async def test_two_renames_in_opposite_directions_do_not_wait_for_each_other(vault: FileVault) -> None:
    await vault.write("demo", "a", FILE, b"one", expect=None)
    await vault.write("demo", "b", FILE, b"two", expect=None)
    results = await asyncio.gather(
        vault.rename("demo", "a", "b", FILE), vault.rename("demo", "b", "a", FILE), return_exceptions=True
    )
    assert all(isinstance(result, Conflict) for result in results)


@given(st.text(max_size=80))
def test_no_name_leads_out_of_the_folder(name: str) -> None:
    vault = FileVault(Path("/state"))
    try:
        path = vault._path("demo", name, FILE)
    except VaultError:
        assert not ACCOUNT_NAME.fullmatch(name)
    else:
        assert os.path.normpath(path) == str(path)
        assert path.parent in {Path("/state/demo"), Path("/state/demo") / name}


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", ".hidden", "a\n", "x" * 65, "a b", "\0"])
async def test_bad_names_are_refused(vault: FileVault, name: str) -> None:
    with pytest.raises(VaultError, match="can't be a name"):
        await vault.read("demo", name, FILE)


async def test_what_a_killed_writer_left_is_swept(vault: FileVault, state_dir: Path) -> None:
    await vault.write("demo", "a", FILE, b"one", expect=None)
    left = state_dir / "demo" / "a" / ".aimux-123.tmp"
    left.write_bytes(b"half")
    await vault.write("demo", "a", FILE, b"two", expect=b"one")
    assert not left.exists()


async def test_a_changed_file_changes_its_tag(
    vault: FileVault, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(state_dir, b"one", "a")
    put(state_dir, b"one", "b")
    moving = await vault.scan("demo", FILE)
    later = time.time_ns() + 10**9
    monkeypatch.setattr(time, "time_ns", lambda: later)
    before = await vault.scan("demo", FILE)
    assert before["a"] != moving["a"], "a change within the same tick of the file system's clock would not show"
    assert await vault.scan("demo", FILE) == before
    put(state_dir, b"three", "a")
    after = await vault.scan("demo", FILE)
    assert after["a"] != before["a"]
    assert after["b"] == before["b"]
