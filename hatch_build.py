"""What a wheel has beside the code: the documents that messages send people to, and the manual page, made from the help
of the commands in this tree."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class BesideTheCode(BuildHookInterface):  # type: ignore[misc, type-arg, unused-ignore] - hatchling is not there for mypy
    """Puts `share/man/man1/aimux.1` into the wheel, so that `man aimux` works wherever it is installed, and into
    `share/doc/aimux` the documents that are there (aimux/documents.py)."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        sys.path.insert(0, self.root)
        try:
            from aimux.cli.man import man_page
        finally:
            sys.path.remove(self.root)
        self._made = tempfile.TemporaryDirectory()
        page = Path(self._made.name, "aimux.1")
        page.write_text(man_page(self.metadata.version), encoding="utf-8")
        build_data["shared_data"][str(page)] = "share/man/man1/aimux.1"
        root = Path(self.root)
        for document in (root / "config.example.yaml", *root.glob("docs/*.md")):
            if document.exists():
                build_data["shared_data"][str(document)] = f"share/doc/aimux/{document.relative_to(root)}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        self._made.cleanup()
