"""`make release` refuses what is not one, and says everything that is missing."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.tools import checkout, child_environ, program

RELEASE = checkout() / ".ci/release"
FILES = {
    "pyproject.toml": 'version = "1.2.0"\n',
    "CHANGELOG.md": "# Changelog\n\n## [Unreleased]\n\n## [1.2.0] - 2026-01-31\n\n### Added\n- All of it.\n",
    "deploy/kubernetes/kustomization.yaml": "images:\n  - newTag: 1.2.0\n",
    "Dockerfile": 'LABEL org.opencontainers.image.version="1.2.0"\n',
}


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    git(tmp_path, "init", "--quiet")
    commit(tmp_path)
    return tmp_path


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run([program("git", "git"), *identity, *arguments], cwd=folder, check=True, env=child_environ(folder))


def commit(folder: Path) -> None:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--allow-empty", "--message", "x")


def check(folder: Path) -> list[str]:
    environ = child_environ(folder, AIMUX_RELEASE_OF=str(folder))
    done = subprocess.run([RELEASE, "--check"], env=environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == (1 if done.stderr else 0), done.stderr
    return done.stderr.splitlines()


def test_a_release(clone: Path) -> None:
    assert check(clone) == []
    git(clone, "tag", "v1.2.0")
    assert check(clone) == []


@pytest.mark.parametrize(
    ("name", "old", "new", "says"),
    [
        ("pyproject.toml", "1.2.0", "1.3.0", "no section '## [1.3.0] - YYYY-MM-DD'"),
        ("CHANGELOG.md", "[Unreleased]\n", "[Unreleased]\n- Late.\n", "1 entries under Unreleased"),
        ("deploy/kubernetes/kustomization.yaml", "1.2.0", "1.1.0", "set newTag to 1.2.0"),
        ("Dockerfile", "1.2.0", "1.1.0", "the Dockerfile's label names another version"),
    ],
)
def test_what_is_missing_is_named(clone: Path, name: str, old: str, new: str, says: str) -> None:
    (clone / name).write_text(FILES[name].replace(old, new))
    assert any("uncommitted" in line for line in check(clone))
    commit(clone)
    assert any(says in line for line in check(clone))


def test_a_version_is_released_once(clone: Path) -> None:
    git(clone, "tag", "v1.2.0")
    commit(clone)
    (problem,) = check(clone)
    assert "the tag v1.2.0 is another commit" in problem
