"""docs/architecture.md speaks of what is there."""

from __future__ import annotations

import ast
import re

from tests.test_layers import SHELVES, TOOLS
from tests.tools import ROOT

DOCUMENT = (ROOT / "docs/architecture.md").read_text()
ROOMS = {path.name.removesuffix(".py") for path in (ROOT / "aimux").iterdir() if path.suffix == ".py" or path.is_dir()}


def test_every_room_is_on_the_map() -> None:
    listed = set(re.findall(r"`aimux/(\w+)(?:/|\.py)`", DOCUMENT))
    assert ROOMS - {"__init__", "__main__", "__pycache__", "py", "testing"} - listed == {"unit.toml"} & ROOMS
    assert listed <= ROOMS


def test_the_order_is_the_tests() -> None:
    order = re.search(r"^`(atomic.* \| cli)`", DOCUMENT, re.MULTILINE)
    assert order is not None
    named = [set(shelf.split(", ")) for shelf in order[1].split(" | ")]
    assert named == [set(shelf) for shelf in SHELVES if shelf != {"__main__"}]
    assert TOOLS


def test_every_file_that_it_names_is_there() -> None:
    for name in re.findall(r"`((?:\w+/)+\w+\.py)`", DOCUMENT):
        assert any((base / name).exists() for base in (ROOT, ROOT / "aimux", ROOT / "aimux/control")), name


def test_every_class_and_function_that_it_names_is_there() -> None:
    defined = set()
    for path in (ROOT / "aimux").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                defined.add(node.name)
    for name in re.findall(r"`([A-Z]\w+(?:\.\w+)?)`", DOCUMENT):
        assert set(name.split(".")) <= defined, name
