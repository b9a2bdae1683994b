"""Regular expressions mean the same on each Python that is supported."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
_CLASS = re.compile(r"\[\^?\]?(?:\\.|[^\]\\])*\]")
_POSSESSIVE_GROUP = re.compile(r"\)(?:[*+?]|\{\d*,?\d*\})\+")


def possessive_groups(text: str) -> list[str]:
    return _POSSESSIVE_GROUP.findall(_CLASS.sub("c", text))


@pytest.mark.parametrize("folder", ["aimux", "providers"])
def test_no_group_is_possessive(folder: str) -> None:
    """Before 3.11.3 (Debian 12 has 3.11.2) such a group keeps the half of an alternative that did not match; an atomic
    group around it does not."""
    for path in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, (str, bytes)):
                text = node.value if isinstance(node.value, str) else node.value.decode("latin-1")
                assert not possessive_groups(text), f"{path}:{node.lineno}: write (?>(?:…)*) for (?:…)*+"


def test_the_lint_sees_what_it_is_for() -> None:
    assert possessive_groups(r"(?:a|%b)*+x(a){2,}+[()*+]*+") == [")*+", "){2,}+"]
