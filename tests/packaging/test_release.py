"""`make release` refuses what is no release."""

from __future__ import annotations

import subprocess
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

from tests.tools import checkout


@pytest.fixture(scope="module")
def release() -> ModuleType:
    spec = spec_from_file_location("release", checkout() / ".ci" / "release.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def tree(tmp_path: Path, release: ModuleType) -> Path:
    """A tree that is a release, of 1.2.3."""
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "1.2.3"\n')
    (tmp_path / "CHANGELOG.md").write_text(
        "# Changelog\n\n## [Unreleased]\n\n## [1.2.3] - 2026-11-26\n\n- All of it.\n"
    )
    (tmp_path / "Dockerfile").write_text('LABEL org.opencontainers.image.version="1.2.3"\n')
    manifest = tmp_path / "deploy/kubernetes/kustomization.yaml"
    manifest.parent.mkdir(parents=True)
    manifest.write_text("images:\n  - newTag: 1.2.3\n")
    who = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    for words in (["init", "-q"], ["add", "."], [*who, "commit", "-qm", "1.2.3"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    assert set(release.STATED) == {"Dockerfile", "deploy/kubernetes/kustomization.yaml"}
    return tmp_path


def test_one_that_is(release: ModuleType, tree: Path) -> None:
    assert release.disagreements(tree) == []
    assert release.astray(tree) == []
    subprocess.run(["git", "tag", "v1.2.3"], cwd=tree, check=True)
    assert release.astray(tree) == []


@pytest.mark.parametrize(
    ("file", "old", "new", "says"),
    [
        ("Dockerfile", "1.2.3", "1.2.2", "Dockerfile says 1.2.2, and pyproject.toml 1.2.3"),
        ("deploy/kubernetes/kustomization.yaml", "newTag: 1.2.3", "", "says no version"),
        ("CHANGELOG.md", "## [Unreleased]\n", "", "does not begin with [Unreleased]"),
        ("CHANGELOG.md", "[Unreleased]\n", "[Unreleased]\n\n- More.\n", "entries that are not released"),
        ("CHANGELOG.md", "[1.2.3] - 2026-11-26", "[1.2.2] - 2026-11-01", "newest release is not [1.2.3]"),
        ("CHANGELOG.md", " - 2026-11-26", "", "newest release is not [1.2.3] - YYYY-MM-DD"),
    ],
)
def test_parts_that_disagree(release: ModuleType, tree: Path, file: str, old: str, new: str, says: str) -> None:
    (tree / file).write_text((tree / file).read_text().replace(old, new))
    assert any(says in wrong for wrong in release.disagreements(tree))
    (changed,) = release.astray(tree)
    assert file in changed


def test_a_tag_of_another_commit(release: ModuleType, tree: Path) -> None:
    subprocess.run(["git", "tag", "v1.2.3"], cwd=tree, check=True)
    who = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    subprocess.run(["git", *who, "commit", "-qm", "more", "--allow-empty"], cwd=tree, check=True)
    assert release.astray(tree) == ["the tag v1.2.3 is another commit's: raise the version, or check that one out"]


def test_this_tree_agrees_about_its_version(release: ModuleType) -> None:
    """Whatever else is missing to a release."""
    assert [wrong for wrong in release.disagreements(checkout()) if "pyproject.toml" in wrong] == []
