"""What is installed is told without `importlib.metadata`, and as that tells it."""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from aimux import DISTRIBUTION, __version__, installed


def test_the_version_is_the_one_of_the_metadata() -> None:
    assert __version__ == installed.version() == version(DISTRIBUTION)


def test_in_its_source_tree_there_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path), str(tmp_path / "nothing")])
    assert installed.version() == "unknown"


@pytest.mark.parametrize(
    ("folder", "text", "found"),
    [
        ("hello-1.0.dist-info", "[console_scripts]\nhello = hello\n\n[aimux]\nhello = hello\n", True),
        ("hello.egg-info", "[aimux]\nhello = hello\n", True),
        ("hello-1.0.dist-info", "[aimux.more]\nhello = hello\n", False),
        ("hello-1.0.dist-info", None, False),
        ("aimux_gateway-9.9.dist-info", "[aimux]\nclaude = aimux_claude\n", False),
    ],
)
def test_plugins_of_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, folder: str, text: str | None, found: bool
) -> None:
    (tmp_path / folder).mkdir()
    if text is not None:
        (tmp_path / folder / "entry_points.txt").write_text(text)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert installed.others_in("aimux") is found
