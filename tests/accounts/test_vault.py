"""The file vault: layout, compare and swap, names, and what of it shows to whoever looks for changes."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimux.accounts import FileVault, VaultError
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
