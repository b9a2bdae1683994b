"""Who may import whom (docs/architecture.md): every import statement is read, those inside functions too."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from aimux.plugin.loader import load_plugins
from tests.tools import child_environ

ROOT = Path(__file__).parent.parent
OURS = "aimux"
ITS_OWN = frozenset({"__version__", "DISTRIBUTION", "installed"})
TYPES_AND_ERRORS = frozenset({"aimux.plugin.types", "aimux.plugin.errors"})
WIRE = frozenset({"http", "front", "relay"})
"""What carries bytes uses of the plugin API its types and errors only, and does without NOT_FOR_WIRE."""

SHELVES = (
    {"redaction", "atomic", "background", "documents", "compiling", "threads"},
    {"plugin"},
    {"http"},
    {"front", "relay"},
    {"config"},
    {"storage"},
    {"accounts"},
    {"people"},
    {"metering"},
    {"limits"},
    {"notices"},
    {"logs"},
    {"gateway"},
    {"control"},
    {"app"},
    {"embedding"},
    {"cli"},
    {"__main__"},
)
"""Each may import those that stand before it, and nobody beside it."""
TOOLS: dict[str, frozenset[str]] = {
    "testing": frozenset({"plugin"}),
    "certificates": frozenset({"atomic"}),
    "systemd": frozenset(),
    "simulator": frozenset({"plugin"}),
    "migrate": frozenset({"plugin", "config", "storage", "accounts", "people", "metering", "limits"}),
}
"""They stand beside the house; `app` and `cli` may use them."""


def _may_import() -> dict[str, frozenset[str]]:
    allowed: dict[str, frozenset[str]] = dict(TOOLS)
    before: set[str] = set()
    for shelf in SHELVES:
        for part in shelf:
            allowed[part] = frozenset(
                before | (set(TOOLS) - {"testing"} if part in {"app", "embedding", "cli"} else set())
            )
        before |= shelf
    return allowed


MAY_IMPORT = _may_import()
"""Part of aimux → the other parts that it may import. `aimux` itself (its version) is everybody's."""

NOT_FOR_WIRE = frozenset({"pydantic", "pluggy"})


def sources(folder: Path) -> Iterator[Path]:
    yield from sorted(path for path in folder.rglob("*.py") if "__pycache__" not in path.parts)


def module_of(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path, root: Path) -> Iterator[tuple[int, str]]:
    """Line and absolute name of everything that a file imports; `from x import y` gives `x.y`."""
    package = module_of(path, root).split(".")
    if path.name != "__init__.py":
        package = package[:-1]
    for node in ast.walk(ast.parse(path.read_bytes(), str(path))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            for alias in node.names:
                yield node.lineno, ".".join([*base, *([node.module] if node.module else []), alias.name])


def part_of(name: str) -> str:
    """`aimux.relay.pool.Pool` → `relay`; "" for `aimux` and what it defines itself."""
    parts = name.split(".")
    return parts[1] if parts[0] == OURS and len(parts) > 1 and parts[1] not in ITS_OWN else ""


def violations_of_core(root: Path) -> Iterator[str]:
    for path in sources(root / OURS):
        own = part_of(module_of(path, root))
        where = path.relative_to(root)
        if own and own not in MAY_IMPORT:
            yield f"{where}: tests/test_layers.py does not know the part {own!r}"
            continue
        for line, name in imports(path, root):
            head, part = name.split(".")[0], part_of(name)
            if own in WIRE:
                if head in NOT_FOR_WIRE:
                    yield f"{where}:{line} imports {name}: {own} does without {head}"
                if part == "plugin" and not any(
                    name == allowed or name.startswith(f"{allowed}.") for allowed in TYPES_AND_ERRORS
                ):
                    yield f"{where}:{line} imports {name}: of the plugin API, {own} uses its types and errors only"
            if part and part != own and not (own in WIRE and part == "plugin") and part not in MAY_IMPORT.get(own, ()):
                yield f"{where}:{line} imports {name}: {own or OURS} may not import {part}"
            if head.startswith(f"{OURS}_"):
                yield f"{where}:{line} imports {name}: the core names no provider"


def violations_of_providers(root: Path) -> Iterator[str]:
    providers = root / "providers"
    for path in sources(providers):
        own = module_of(path, providers).split(".")[0]
        for line, name in imports(path, providers):
            head = name.split(".")[0]
            if head == OURS and part_of(name) != "plugin":
                yield f"{path.relative_to(root)}:{line} imports {name}: a provider imports aimux.plugin alone"
            if head.startswith(f"{OURS}_") and head != own:
                yield f"{path.relative_to(root)}:{line} imports {name}: a provider stands by itself"


def test_nobody_imports_what_is_not_his() -> None:
    found = [*violations_of_core(ROOT), *violations_of_providers(ROOT)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("file", "line", "words"),
    [
        ("aimux/plugin/x.py", "import aimux.config", "plugin may not import config"),
        ("aimux/relay/x.py", "from aimux.plugin import Provider", "types and errors only"),
        ("aimux/relay/x.py", "import pydantic", "does without pydantic"),
        ("aimux/http/x.py", "import aimux.front", "http may not import front"),
        ("aimux/front/x.py", "from aimux.relay.pool import Pool", "front may not import relay"),
        ("aimux/relay/x.py", "from aimux.gateway import Gateway", "relay may not import gateway"),
        ("aimux/config/x.py", "from aimux.accounts import Account", "config may not import accounts"),
        ("aimux/gateway/x.py", "def f():\n    from ..app import App", "gateway may not import app"),
        ("aimux/gateway/x.py", "from .. import control", "gateway may not import control"),
        ("aimux/control/api/x.py", "import aimux_claude", "names no provider"),
        ("providers/aimux_new.py", "from aimux.http.head import clean", "aimux.plugin alone"),
        ("providers/aimux_new.py", "import aimux_claude", "stands by itself"),
        ("aimux/brandnew/x.py", "", "does not know the part"),
    ],
)
def test_a_violation_is_found(tmp_path: Path, file: str, line: str, words: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(f"{line}\nimport json\n")
    found = [*violations_of_core(tmp_path), *violations_of_providers(tmp_path)]
    assert len(found) == 1
    assert words in found[0]


def test_what_is_allowed_is_not_found(tmp_path: Path) -> None:
    for file, line in {
        "aimux/relay/x.py": "from aimux.plugin.types import RELAY\nfrom aimux.http.head import clean\nfrom . import y",
        "aimux/accounts/x.py": "from aimux import __version__\nfrom aimux.config import Config\nimport pydantic",
        "aimux/cli/x.py": "from aimux.app import run",
        "providers/aimux_new/x.py": "from aimux.plugin import Provider\nfrom aimux_new.y import z",
    }.items():
        path = tmp_path / file
        path.parent.mkdir(parents=True)
        path.write_text(line)
    assert not [*violations_of_core(tmp_path), *violations_of_providers(tmp_path)]


def test_the_core_names_no_provider() -> None:
    """Not in code: comments and docstrings may give examples, and so may the simulator and what connects clients."""
    names = set(load_plugins().providers)
    assert {"claude", "chatgpt"} <= names
    found = []
    for part in sorted(set().union(*SHELVES) - {"cli", "app", "__main__"}):
        for path in sources(ROOT / OURS / part):
            tree = ast.parse(path.read_bytes())
            prose = {
                id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant)
            }
            for node in ast.walk(tree):
                if isinstance(node, ast.Constant) and id(node) not in prose and node.value in names:
                    found.append(f"{path.relative_to(ROOT)}:{node.lineno} says {node.value!r}")
    assert not found, "\n".join(found)


def circles(root: Path, part: str) -> dict[str, set[str]]:
    """The files of a part that are in a circle of imports, or behind one, with what they import of the part."""
    files = {module_of(path, root): path for path in sources(root / part)}
    imported = {
        name: {
            target
            for _, one in imports(path, root)
            for target in [one if one in files else one.rpartition(".")[0]]
            if target in files and target != name
        }
        for name, path in files.items()
    }
    while ready := [name for name, others in imported.items() if not others & imported.keys()]:
        for name in ready:
            del imported[name]
    return imported


@pytest.mark.parametrize(
    ("root", "part"),
    [
        *((ROOT, f"{OURS}/{path.parent.name}") for path in sorted(ROOT.glob(f"{OURS}/*/__init__.py"))),
        *((ROOT / "providers", path.parent.name) for path in sorted(ROOT.glob("providers/*/__init__.py"))),
    ],
)
def test_no_file_of_a_part_imports_itself_around_corners(root: Path, part: str) -> None:
    """For types as well: who reads one of these files has an order to read the others in."""
    found = circles(root, part)
    assert not found, "\n".join(f"{name} imports {', '.join(sorted(others))}" for name, others in found.items())


def test_a_circle_is_found(tmp_path: Path) -> None:
    for file, text in {
        "one.py": "from .two import b",
        "two.py": "def f():\n    from aimux.relay import three",
        "three.py": "if TYPE_CHECKING:\n    from aimux.relay.one import a",
        "apart.py": "import json",
    }.items():
        (tmp_path / "aimux/relay").mkdir(parents=True, exist_ok=True)
        (tmp_path / "aimux/relay" / file).write_text(text)
    assert circles(tmp_path, "aimux/relay").keys() == {f"aimux.relay.{name}" for name in ("one", "two", "three")}


AIOHTTP = frozenset({"aiohttp", "aiohttp.abc", "aiohttp.typedefs", "aiohttp.web"})
"""Its documented modules."""


def test_of_aiohttp_only_public_names_are_used() -> None:
    """Of private ones ruff sees the attributes (SLF001): there is no exception from that where aiohttp is used."""
    found = []
    for path in sources(ROOT / OURS):
        names = [(line, name) for line, name in imports(path, ROOT) if name.split(".")[0] == "aiohttp"]
        for line, name in names:
            module, _, last = name.rpartition(".")
            if last.startswith("_") or not {module, name} & AIOHTTP:
                found.append(f"{path.relative_to(ROOT)}:{line} imports {name}")
        if names and "SLF001" in path.read_text():
            found.append(f"{path.relative_to(ROOT)} uses a private attribute")
    assert not found, "\n".join(found)


def test_what_carries_bytes_loads_without_what_is_not_for_it() -> None:
    """What is imported at run time, whichever way: a process that may speak for itself."""
    code = "import sys, pkgutil, importlib, aimux.http, aimux.relay\n" + (
        "for r in (aimux.http, aimux.relay):\n"
        " [importlib.import_module(m.name) for m in pkgutil.walk_packages(r.__path__, r.__name__ + '.')]\n"
        f"print(*sorted({set(NOT_FOR_WIRE)!r} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=child_environ())
    assert done.stdout.split() == []
