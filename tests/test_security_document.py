"""docs/security.md says what is so: its tests exist, its headers and bounds are the code's."""

from __future__ import annotations

import ast
import re

import pytest

from aimux.front import bounds
from aimux.gateway import headers
from aimux.http.websocket import HANDSHAKE_HEADERS
from tests.attacks.conftest import MEMORY, SLOWEST
from tests.tools import ROOT, checkout

TEXT = (ROOT / "docs" / "security.md").read_text()
NAMED = re.findall(r"`([\w/]+\.py)::(\w+)`", TEXT)


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_each_defence_has_the_test_that_is_named(file: str, name: str) -> None:
    if file.startswith(("deploy/", "nix/", "packaging/")):
        checkout()  # an sdist has none of these
    tree = ast.parse((ROOT / "tests" / file).read_text())
    assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_every_row_of_the_defences_names_a_test() -> None:
    section = TEXT.partition("## Defences")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| ")][2:]
    assert len(rows) > 15
    assert all("::" in row for row in rows)


def functions(folder: str) -> set[str]:
    """Every test in a folder, as the document names them."""
    return {
        f"{path.relative_to(ROOT / 'tests')}::{node.name}"
        for path in (ROOT / "tests" / folder).glob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }


def test_every_attack_has_its_row() -> None:
    named = {f"{file}::{name}" for file, name in NAMED}
    assert functions("attacks") <= named


def test_what_attacks_are_measured_by_is_what_is_said() -> None:
    assert f"take less than {SLOWEST * 1000:g} ms, memory may grow by {MEMORY / 1e6:g} MB at most" in TEXT


def test_what_calls_for_another_look_is_there() -> None:
    section = TEXT.partition("## When this page needs another look")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| ")][2:]
    places = [place for row in rows for place in re.findall(r"`([\w/.]+)`", row)]
    assert len(rows) > 10
    for place in places:
        assert (checkout() / place).exists(), place
    # Every room has one: what is not named was not thought of.
    unlisted = {
        "app",
        "certificates",
        "cli",
        "config",
        "limits",
        "metering",
        "migrate",
        "simulator",
        "testing",
        "notices",
    }
    rooms = {path.parent.name for path in (ROOT / "aimux").glob("*/__init__.py")}
    assert rooms - {place.split("/")[1] for place in places if place.startswith("aimux/")} <= unlisted


def test_what_is_not_defended_says_why() -> None:
    section = TEXT.partition("## What is not defended, on purpose")[2].partition("\n## ")[0]
    points = re.findall(r"^- \*\*(.+?)\*\*(.*?)(?=^- |\Z)", section, re.MULTILINE | re.DOTALL)
    assert len(points) > 5
    assert all(len(why.split()) > 5 for _, why in points)


@pytest.mark.parametrize(
    ("row", "names"),
    [
        ("client to upstream", headers.NEVER_UPSTREAM),
        ("client to upstream, by their beginning", headers.NEVER_UPSTREAM_PREFIXES),
        ("upstream to client", headers.NEVER_TO_CLIENT),
        ("upstream to client, by their beginning", headers.NEVER_TO_CLIENT_PREFIXES),
        ("in a WebSocket's handshake, both ways", HANDSHAKE_HEADERS),
    ],
)
def test_the_headers_that_do_not_cross_are_the_codes(row: str, names: frozenset[str] | tuple[str, ...]) -> None:
    (line,) = re.findall(rf"^\| {row} \| (.*) \|$", TEXT, re.MULTILINE)
    assert sorted(re.findall(r"`([^`]+)`", line)) == sorted(names)


def test_the_caps_are_the_codes() -> None:
    documented = {name: float(value) for name, value in re.findall(r"^\| `([A-Z_]+)` \| (\S+) \|", TEXT, re.MULTILINE)}
    own = {
        name: float(value) for name, value in vars(bounds).items() if name.isupper() and isinstance(value, int | float)
    }
    assert documented == own
