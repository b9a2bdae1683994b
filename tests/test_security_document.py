"""docs/security.md says what is so: its tests exist, its headers and bounds are the code's."""

from __future__ import annotations

import ast
import re

import pytest

from aimux.front import bounds
from aimux.gateway import headers
from aimux.http.websocket import HANDSHAKE_HEADERS
from tests.tools import ROOT

TEXT = (ROOT / "docs" / "security.md").read_text()
NAMED = re.findall(r"`([\w/]+\.py)::(\w+)`", TEXT)


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_each_defence_has_the_test_that_is_named(file: str, name: str) -> None:
    tree = ast.parse((ROOT / "tests" / file).read_text())
    assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_every_row_of_the_defences_names_a_test() -> None:
    section = TEXT.partition("## Defences")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| ")][2:]
    assert len(rows) > 15
    assert all("::" in row for row in rows)


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
