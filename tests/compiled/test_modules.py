"""The modules that `AIMUX_COMPILE=1` compiles: rules that keep them right, be they compiled in this run or not.

mypyc trusts annotations, and represents some values otherwise than the interpreter does: CONTRIBUTING.md.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tomllib
from typing import TYPE_CHECKING

import pytest

from aimux.installed import compiled
from tests.tools import checkout

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NO_TUPLES = frozenset(
    {
        "payload is not rest",
        "rest is not data",
        "sent[1] is credential",
        "sent[0] is route",
        "(route := self._routes[target.instance]) is own",
        "body is call.body",
        "body is not call.body",
        "account is only",
        "before is not window",
        "admitted.epoch is epoch",
        "self.epoch is not epoch",
        "verdict.action is before.action is Action.COOL_DOWN",
        "name is own",
        "route is own",
        "one is refusing",
        "usage is not told",
        "one.sums is self",
        "rate.sums is self",
        "request is self._request",
        "state is IDLE",
        "state is SERVING",
        "state is UPGRADED",
        "state is DRAINING",
        "state is LINGERING",
        "state is CLOSING",
        "state is LOST",
        "state is not LOST",
        "self._state is AWAITED",
        "self._state is STREAMING",
        "self._state is ENDED",
        "self._state is IDLE",
        "self._state is SERVING",
        "self._state is DRAINING",
        "self._state is LOST",
        "self._state is not ENDED",
        "self._state is not LOST",
    }
)
"""Comparisons by identity of what is no tuple on either side: bytes, text, or objects of a class."""
SINGLES = ("None", "True", "False", "NO_BODY")


def modules() -> list[str]:
    listed: list[str] = tomllib.loads((checkout() / "pyproject.toml").read_text())["tool"]["aimux"]["compiled"]
    return listed


def source(module: str) -> Path:
    folders = (checkout(), checkout() / "providers")  # the latter only where nothing is built yet
    return next(file for folder in folders if (file := folder.joinpath(*module.split(".")).with_suffix(".py")).exists())


def comparisons_by_identity(tree: ast.AST) -> Iterator[str]:
    """Those with something else than a constant, a member of an enumeration or a type."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Compare) or not any(isinstance(op, ast.Is | ast.IsNot) for op in node.ops):
            continue
        sides = [node.left, *node.comparators]
        if len(sides) == 2 and any(_single(side) for side in sides):
            continue
        yield ast.unparse(node)


def _single(side: ast.expr) -> bool:
    text = ast.unparse(side)
    member = isinstance(side, ast.Attribute) and side.attr.isupper()
    return text in SINGLES or text.startswith("type(") or member


@pytest.mark.skipif("COMPILED" not in os.environ, reason="`make compiled` runs the tests on a compiled build")
def test_this_build_is_compiled() -> None:
    assert compiled()


@pytest.mark.parametrize("module", modules())
def test_no_tuple_is_compared_by_identity(module: str) -> None:
    """A tuple of a fixed length is taken apart where code is compiled, and `is` between two is silently false."""
    found = {*comparisons_by_identity(ast.parse(source(module).read_text()))} - NO_TUPLES
    assert not found, "if neither side is a tuple, add it to NO_TUPLES"


def test_the_lint_sees_what_it_is_for() -> None:
    seen = [*comparisons_by_identity(ast.parse("a is b\na.b is not c\nd is None\ne is Kind.X\ntype(f) is not G"))]
    assert seen == ["a is b", "a.b is not c"]


@pytest.mark.parametrize("module", modules())
def test_nothing_is_awaited_while_an_exception_is_handled(module: str) -> None:
    """Behind an `await` a compiled `raise` has lost what it is to raise again."""
    handlers = [node for node in ast.walk(ast.parse(source(module).read_text())) if isinstance(node, ast.ExceptHandler)]
    assert not [node for handler in handlers for node in ast.walk(handler) if isinstance(node, ast.Await)]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="one process for each module would take half a minute")
def test_each_can_be_imported_first() -> None:
    """Compiled modules are initialized in the order of their imports: none may need another one to be first. And what
    exists for type checkers alone fails here where a compiled class wants it. Those of one package all begin with it:
    it is imported once, and they from there."""
    script = (
        "import importlib, itertools, os, sys\n"
        "import aiohttp.web, pydantic, yaml\n"  # once, not in each child: of others, and most of the time
        "def forked(do, *given):\n"
        "    child = os.fork()\n"
        "    if not child:\n"
        "        try: do(*given)\n"
        "        except BaseException as error: print(*given, repr(error), flush=True)\n"
        "        finally: os._exit(0)\n"
        "    os.waitpid(child, 0)\n"
        "def first(name): print(name, importlib.import_module(name).__file__.endswith('.so'), flush=True)\n"
        "def each(package, *names):\n"
        "    importlib.import_module(package)\n"
        "    for name in names: forked(first, name)\n"
        "for package, names in itertools.groupby(sys.argv[1:], lambda name: name.rpartition('.')[0]):\n"
        "    forked(each, package, *names)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *modules()], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.splitlines() == [f"{module} {compiled()}" for module in modules()]
