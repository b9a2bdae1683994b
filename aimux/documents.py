"""Where the documents are that messages refer to: in the repository, or where the wheel has put them."""

from __future__ import annotations

from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
"""The repository, or `{prefix}/lib/python3.X/site-packages`."""
SHARED = Path("share", "doc", "aimux")


def document_path(name: str) -> str:
    """The path of a document (`docs/database.md`), or its name if an image or a package has left it out."""
    prefix = HERE.parents[2] if len(HERE.parents) > 2 else HERE
    found = (path for path in (HERE / name, prefix / SHARED / name) if path.is_file())
    return str(next(found, name))
