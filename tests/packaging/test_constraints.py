"""What the image is built with: every dependency by version and hash, and none that pyproject.toml would refuse."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.packaging.test_audit import runtime
from tests.tools import checkout, lacking

FOLDER = checkout() / "deploy/container"
PYPROJECT = tomllib.loads((checkout() / "pyproject.toml").read_text())
FILES = {
    "requirements.txt": PYPROJECT["project"]["dependencies"],
    "build-requirements.txt": [*PYPROJECT["build-system"]["requires"], *PYPROJECT["tool"]["aimux"]["compiler"]],
}
ENTRY = re.compile(r"^([a-z0-9-]+)==(\S+)((?: \\\n    --hash=sha256:[0-9a-f]{64})+)$", re.MULTILINE)


def pins(name: str) -> dict[str, str]:
    """The version of each; nothing else is in the file."""
    text = (FOLDER / name).read_text()
    assert ENTRY.sub("", text).strip() == "", "an entry without a version or hash"
    return {package: version for package, version, _ in ENTRY.findall(text)}


@pytest.mark.parametrize("name", FILES)
def test_whatever_is_declared_is_pinned_as_it_is_wanted(name: str) -> None:
    """`make constraints` makes them anew."""
    pinned = pins(name)
    for text in FILES[name]:
        wanted = Requirement(text)
        assert pinned[canonicalize_name(wanted.name)] in wanted.specifier, text


def test_so_is_what_those_need() -> None:
    assert set(runtime()) <= set(pins("requirements.txt"))


def test_the_image_is_built_from_them_alone() -> None:
    dockerfile = (checkout() / "Dockerfile").read_text()
    installs = [line for line in re.sub(r"\\\n", "", dockerfile).splitlines() if "pip install" in line]
    commands = [part for line in installs for part in line.split("&&") if "pip install" in part]
    assert len(commands) == 3
    for command in commands:
        assert "--no-deps" in command
        assert "--require-hashes" in command or "--no-index" in command
    ignored = (checkout() / ".dockerignore").read_text().splitlines()
    assert {f"!deploy/container/{name}" for name in FILES} <= set(ignored)


def test_its_label_has_the_version() -> None:
    (version,) = re.findall(r'image\.version="([^"]+)"', (checkout() / "Dockerfile").read_text())
    assert version == PYPROJECT["project"]["version"]


@pytest.mark.network
@pytest.mark.slow
@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize("name", FILES)
def test_there_is_a_wheel_of_each(name: str, machine: str, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "install",
        "--dry-run",
        "--quiet",
        "--no-deps",
    ]
    command += ["--require-hashes", "--only-binary=:all:", "--implementation=cp", "--python-version=3.13"]
    command += [f"--platform=manylinux_2_{glibc}_{machine}" for glibc in (41, 34, 28, 17)]
    command += [f"--platform=manylinux2014_{machine}", f"--target={tmp_path}", "-r", str(FOLDER / name)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    if "Failed to establish a new connection" in done.stderr or "Temporary failure in name" in done.stderr:
        lacking("the package registry can't be reached")
    assert done.returncode == 0, done.stderr
