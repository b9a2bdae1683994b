"""docs/troubleshooting.md quotes what aimux says: the words are somewhere in the code."""

from __future__ import annotations

import ast
import re

import pytest

from tests.tools import ROOT

TEXT = (ROOT / "docs" / "troubleshooting.md").read_text()
CLIENTS_OWN = {
    "You've hit your usage limit",
    "ran out of room in the model's context window",
    "Unable to verify if domain",
}
"""tests/clients has these from the real programs."""
SAID = sorted(
    quoted
    for line in TEXT.splitlines()
    if line.startswith("| ")
    for quoted in re.findall(r"`([^`]+)`", line.split("|")[1])
    if quoted not in CLIENTS_OWN and not quoted.startswith("tls.")
)


@pytest.fixture(scope="module")
def words() -> str:
    """All text of the program; what is put in at run time is a space."""
    found = []
    for folder in ("aimux", "providers"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
                elif isinstance(node, ast.JoinedStr):
                    parts = (part.value if isinstance(part, ast.Constant) else " " for part in node.values)
                    found.append("".join(str(part) for part in parts))
    return re.sub(r"\s+", " ", "\n".join(found))


@pytest.mark.parametrize("said", SAID)
def test_aimux_says_what_is_quoted(said: str, words: str) -> None:
    assert said in words
