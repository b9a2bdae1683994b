"""`make clients`: the real programs, at the versions that the tests were written for, in a folder each below FOLDER.

Nothing is installed outside of it, and what is there already is left alone. Only npm is needed.

usage: python -m tests.clients.install FOLDER
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

NPM = {
    "claude-code": ["@anthropic-ai/claude-code@2.1.332"],
    "claude-code-older": ["@anthropic-ai/claude-code@2.1.197"],
    "codex": ["@openai/codex@0.171.0"],
    "node-sdks": ["@anthropic-ai/sdk@1.14.0", "openai@7.59.0"],
}
PYTHON = {
    "python-sdks": ["anthropic==2.14.0", "openai==3.57.0"],
    "python-sdks-older": ["anthropic==0.125.0", "openai==2.54.0"],
}
"""The newest major version, and an older one of each."""
DONE = ".installed"


def installed(cache: Path, name: str) -> bool:
    """Whether the pinned version is there, whole."""
    try:
        return (cache / name / DONE).read_text().split() == (NPM | PYTHON)[name]
    except FileNotFoundError:
        return False


def _npm(folder: Path, packages: Sequence[str]) -> None:
    # Without a package.json of its own, npm would look for one further up.
    (folder / "package.json").write_text("{}")
    options = ["--no-package-lock", "--no-audit", "--no-fund", "--no-update-notifier", "--loglevel=error"]
    subprocess.run(["npm", "install", *options, *packages], cwd=folder, check=True, env=os.environ | {"CI": "true"})


def _python(folder: Path, packages: Sequence[str]) -> None:
    venv.create(folder, with_pip=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", *packages], check=True)


def install(cache: Path) -> list[str]:
    """Install what is missing. The names of those that could not be."""
    failed = []
    for name, packages in (NPM | PYTHON).items():
        if installed(cache, name):
            continue
        sys.stderr.write(f"{' '.join(packages)} …\n")
        folder = cache / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            (_npm if name in NPM else _python)(folder, packages)
        except (OSError, subprocess.CalledProcessError) as error:
            sys.stderr.write(f"{' '.join(packages)} could not be installed: {error}\n")
            failed.append(name)
        else:
            (folder / DONE).write_text(" ".join(packages))
    return failed


if __name__ == "__main__":
    sys.exit(1 if install(Path(sys.argv[1])) else 0)
