"""`make release`: is this tree a release, and do the files that would be published work?

It checks that version, changelog, manifests and tag agree, builds wheel and sdist into dist/, and tests those very
files. It publishes nothing and makes no tag: what is left to do is printed.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STATED = {
    "Dockerfile": r'image\.version="([^"]+)"',
    "deploy/kubernetes/kustomization.yaml": r"newTag: (\S+)",
}
"""Where else the version stands."""


def version_of(root: Path) -> str:
    version: str = tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]
    return version


def disagreements(root: Path) -> list[str]:
    """What in the tree does not say this version, or says more than it."""
    version, wrong = version_of(root), []
    for name, pattern in STATED.items():
        if (stated := re.findall(pattern, (root / name).read_text())) != [version]:
            wrong.append(f"{name} says {', '.join(stated) or 'no version'}, and pyproject.toml {version}")
    sections = re.split(r"^## ", (root / "CHANGELOG.md").read_text(), flags=re.MULTILINE)[1:]
    titles = [section.partition("\n")[0] for section in sections]
    if not titles or titles[0] != "[Unreleased]":
        wrong.append("CHANGELOG.md does not begin with [Unreleased]")
    elif sections[0].partition("\n")[2].strip():
        wrong.append(
            f"CHANGELOG.md has entries that are not released: move them below a heading [{version}] - YYYY-MM-DD"
        )
    if len(titles) < 2 or not re.fullmatch(rf"\[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d", titles[1]):
        wrong.append(f"CHANGELOG.md's newest release is not [{version}] - YYYY-MM-DD")
    return wrong


def git(root: Path, *words: str) -> str:
    """What it prints; nothing where it fails."""
    return subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=False).stdout.strip()


def astray(root: Path) -> list[str]:
    """What keeps this commit from being the release's."""
    wrong, tag = [], f"v{version_of(root)}"
    if changed := git(root, "status", "--porcelain"):
        wrong.append(f"not committed:\n{changed}")
    tagged = git(root, "rev-list", "-n1", tag)
    if tagged and tagged != git(root, "rev-parse", "HEAD"):
        wrong.append(f"the tag {tag} is another commit's: raise the version, or check that one out")
    return wrong


def main() -> int:
    if wrong := [*disagreements(ROOT), *astray(ROOT)]:
        sys.stderr.write("".join(f"release: {each}\n" for each in wrong))
        return 1
    dist = ROOT / "dist"
    for old in dist.glob("*"):
        old.unlink()
    subprocess.run([sys.executable, "-m", "build", "--outdir", str(dist), str(ROOT)], check=True)
    environ = os.environ | {"AIMUX_DIST": str(dist)}
    tests = [sys.executable, "-m", "pytest", "-q", str(ROOT / "tests/packaging")]
    if subprocess.run(tests, cwd=ROOT, env=environ, check=False).returncode:
        return 1
    tag = f"v{version_of(ROOT)}"
    files = ", ".join(sorted(file.name for file in dist.iterdir()))
    sys.stdout.write(f"dist/ has {files}, tested.\n")
    if not git(ROOT, "tag", "--list", tag):
        sys.stdout.write(f"Now: git tag --annotate {tag} --message {tag}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
