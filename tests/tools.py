"""Programs that some tests need. Where one is missing the test is skipped with its reason; in CI that is a failure."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

ROOT = Path(__file__).parent.parent


def child_environ(home: Path | None = None, **more: str) -> dict[str, str]:
    """All that a child of a test sees of the environment.

    With PYTHONPATH if there is one: in a build of nixpkgs an interpreter finds its libraries no other way.
    """
    environ = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    return environ | ({"HOME": str(home)} if home else {}) | more


def lacking(reason: str) -> NoReturn:
    """This machine can't run the test."""
    if os.environ.get("CI"):
        pytest.fail(f"{reason}, and in CI it must be there")
    pytest.skip(reason)


def program(name: str, package: str) -> str:
    """The path of a program; `package` is Debian's."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    return found or lacking(f"there is no {name} (Debian: {package})")


def checkout() -> Path:
    """The repository, for tests of files that the sdist does not have."""
    if not (ROOT / "flake.nix").exists():
        pytest.skip("this is not a checkout of the repository", allow_module_level=True)
    return ROOT
