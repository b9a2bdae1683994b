"""The registry's `aimux` is somebody else's program: nothing here may send people, or pip, to it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from aimux import DISTRIBUTION
from tests.tools import ROOT

# The bare name where a package is named: `pip install aimux`, `uvx aimux`, `dependencies = ["aimux>=1"]`.
WRONG = re.compile(
    r"""(?:(?:pip3?|pipx|uv\ tool)\ install|uvx|pipx\ run|uv\ add)\s+(?:-\S+\s+)*["']?aimux(?![\w./-])
    |=\ ?\[["']aimux[\[">=~\ ']""",
    re.VERBOSE,
)
PLACES = ("README.md", "config.example.yaml", "CONTRIBUTING.md", "Dockerfile", "docs", "deploy", "aimux", "providers")


def documents() -> list[Path]:
    found = [ROOT / place for place in PLACES if (ROOT / place).exists()]
    files = [file for place in found for file in ([place] if place.is_file() else sorted(place.rglob("*")))]
    return [file for file in files if file.is_file() and file.suffix != ".pyc"]


def test_nobody_is_sent_to_another_program() -> None:
    told = {}
    for file in documents():
        if wrong := WRONG.findall(file.read_text(encoding="utf-8", errors="ignore")):
            told[str(file.relative_to(ROOT))] = wrong
    assert told == {}


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("pip install aimux", True),
        ("pip install --upgrade 'aimux[testing]'", True),
        ('dependencies = ["aimux"]', True),
        ('test = ["aimux[testing]"]', True),
        (f"pip install {DISTRIBUTION}", False),
        ("pip install ../aimux '.[test]'", False),
        ("/opt/aimux/bin/pip install .", False),
    ],
)
def test_what_would_be_found(text: str, wrong: bool) -> None:
    assert bool(WRONG.search(text)) is wrong
