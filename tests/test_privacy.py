"""No test reads a private attribute of a room that is not its own: whoever changes one has its tests beside it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.tools import ROOT

NOT_OURS = {
    "_buffer": "asyncio's and aiohttp's streams",
    "_fields": "of a NamedTuple, and public",
    "_mapping": "of SQLAlchemy's rows, and public",
    "_replace": "of a NamedTuple, and public",
    "_response": "aiohttp's WebSocket",
}
ALLOWED = {
    ("chaos/inside.py", "_REMEMBERED"): "makes bounds small enough to be reached in a minute",
    ("front/test_hostile_heads.py", "_open"): "holds a connection up at the one moment that is meant",
    ("relay/test_websocket_deflate.py", "_deflate"): "whether memory is given back is seen nowhere else",
}


def rooms_of_private_names(root: Path) -> dict[str, set[str]]:
    """Which rooms define a name with an underscore."""
    found: dict[str, set[str]] = {}
    for path in (root / "aimux").rglob("*.py"):
        room = path.relative_to(root / "aimux").parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_bytes())):
            match node:
                case ast.Attribute(value=ast.Name(id="self"), attr=name, ctx=ast.Store()):
                    pass
                case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                    pass
                case ast.Name(id=name, ctx=ast.Store()):
                    pass
                case _:
                    continue
            if name.startswith("_") and not name.startswith("__"):
                found.setdefault(name, set()).add(room)
    return found


def intrusions(root: Path) -> Iterator[tuple[str, int, str]]:
    """File, line and name. Told by names: what two rooms call alike is either's."""
    rooms = rooms_of_private_names(root)
    for path in sorted((root / "tests").rglob("*.py")):
        where = path.relative_to(root / "tests")
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Attribute) and not (
                isinstance(node.value, ast.Name) and node.value.id in {"self", "cls"}
            ):
                names, line = [node.attr], node.lineno
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("aimux."):
                names, line = [alias.name for alias in node.names], node.lineno
            else:
                continue
            for name in names:
                if name in rooms and where.parts[0] not in rooms[name] and name not in NOT_OURS:
                    yield str(where), line, name


def test_no_test_reads_what_is_private_to_another_room() -> None:
    found = list(intrusions(ROOT))
    wrong = [f"tests/{file}:{line} reads {name}" for file, line, name in found if (file, name) not in ALLOWED]
    assert not wrong, "\n".join(wrong)
    assert {(file, name) for file, _, name in found} == set(ALLOWED), "an exception that nobody needs any more"


def test_it_would_be_found(tmp_path: Path) -> None:
    for file, text in {
        "aimux/relay/pool.py": "class Pool:\n    def _open(self):\n        self._idle = []\n",
        "tests/relay/test_pool.py": "pool._open()\n",
        "tests/gateway/test_x.py": "self._idle = 1\npool._idle.clear()\nfrom aimux.relay.pool import _open\n",
    }.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(text)
    assert sorted(intrusions(tmp_path)) == [("gateway/test_x.py", 2, "_idle"), ("gateway/test_x.py", 3, "_open")]
