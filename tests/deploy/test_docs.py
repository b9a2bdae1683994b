"""docs/deployment.md and docs/migrating.md say what is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from aimux.config import check_form
from aimux.migrate import NAMES
from aimux.plugin.loader import load_plugins
from tests.tools import checkout

DOCS = checkout() / "docs"
PAGES = ("deployment.md", "migrating.md")


def anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name: str) -> None:
    text = (DOCS / name).read_text()
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if not link.startswith("https://")]
    assert links
    for link in links:
        path, _, anchor = link.partition("#")
        target = (DOCS / path).resolve() if path else DOCS / name
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_option_of_the_module_is_documented() -> None:
    module = (checkout() / "nix/module.nix").read_text()
    options = set(re.findall(r"^    (\w+) = mkOption", module, re.MULTILINE))
    assert len(options) > 5
    documented = set(re.findall(r"^\| `(\w+)[.`<]", (DOCS / "deployment.md").read_text(), re.MULTILINE))
    assert options <= documented


def test_configurations_in_the_text_are_valid(tmp_path: Path) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", (DOCS / "deployment.md").read_text(), re.DOTALL)
    assert blocks
    for block in blocks:
        file = tmp_path / "config.yaml"
        file.write_text(block)
        assert yaml.safe_load(block)
        check_form(file, environ={}, providers=load_plugins().providers)


def test_every_source_of_migrate_has_its_row() -> None:
    text = (DOCS / "migrating.md").read_text().lower()
    rows = re.findall(r"^\| \[([^\]]+)\]", text, re.MULTILINE)
    known = {re.sub(r"[^a-z]", "", name) for name in NAMES}
    assert {re.sub(r"[^a-z]", "", row) for row in rows} == known
