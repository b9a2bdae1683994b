"""A Nix of the test's own: its store, state and settings lie in a temporary folder, whatever the machine has."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.tools import ROOT, checkout, lacking, program

NIX_FOLDER = os.environ.get("AIMUX_NIX") or str(ROOT / ".cache/nix")
REAL_LIB = os.environ.get("AIMUX_NIXPKGS_LIB")
REAL_NIXOS = os.environ.get("AIMUX_NIXOS")
"""A folder with nixpkgs' lib/ and nixos/."""

SETTINGS = {
    "experimental-features": "nix-command flakes",
    "sandbox": "false",  # the stub builds with this machine's programs
    "build-users-group": "",
    "build-hook": "",
    "substituters": "",
    "flake-registry": "",
    "warn-dirty": "false",
}


class Nix:
    """Runs nix programs, and evaluates the module."""

    def __init__(self, folder: Path, scratch: Path, repository: Path) -> None:
        self.folder = folder
        self.repository = repository
        places = {"STORE": "store", "STATE": "state", "LOG": "log", "CONF": "etc"}
        self.environ = {
            "PATH": f"{folder}:{os.environ['PATH']}",
            "HOME": str(scratch),
            "XDG_CACHE_HOME": str(scratch / "cache"),
            "NIX_REMOTE": "local",
            "NIX_CONFIG": "\n".join(f"{name} = {value}" for name, value in SETTINGS.items()),
            **{f"NIX_{name}_DIR": str(scratch / place) for name, place in places.items()},
        }

    def run(
        self, name: str, *args: str, cwd: Path | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [str(self.folder / name), *args],
            cwd=cwd or self.repository,
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=300,
        )
        if check:
            assert done.returncode == 0, done.stderr
        return done

    def module(self, settings: Mapping[str, object], *, lib: str = "", check: bool = True) -> dict[str, object]:
        """What nix/tests/eval.nix gives for `services.aimux` with these settings; the error message if it refuses."""
        expression = f"{{ services.aimux = builtins.fromJSON ''{_nix_text(settings)}''; }}"
        args = [
            "--read-write-mode",
            "--eval",
            "--strict",
            "--json",
            "nix/tests/eval.nix",
            "--arg",
            "machine",
            expression,
        ]
        done = self.run("nix-instantiate", *args, *(("--arg", "lib", f"import {lib}") if lib else ()), check=check)
        evaluated: dict[str, object] = json.loads(done.stdout) if done.returncode == 0 else {"error": done.stderr}
        return evaluated


def _nix_text(settings: Mapping[str, object]) -> str:
    return json.dumps(settings).replace("''", "'''").replace("${", "''${")


@pytest.fixture(scope="session")
def repository() -> Path:
    return checkout()


@pytest.fixture(scope="session")
def nix(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Nix:
    own = Path(NIX_FOLDER, "bin")
    found = (
        own if (own / "nix").exists() else Path(shutil.which("nix") or lacking("there is no nix (.ci/get-nix)")).parent
    )
    return Nix(found, tmp_path_factory.mktemp("nix"), repository)


@pytest.fixture(scope="session")
def flake(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    """The files that git knows or would take in, in a folder of their own: nix copies all that is there."""
    listed = subprocess.run(
        [program("git", "git"), "ls-files", "-coz", "--exclude-standard"],
        cwd=repository,
        capture_output=True,
        check=True,
    )
    folder = tmp_path_factory.mktemp("flake")
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (repository / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(repository / name, folder / name)
    return folder


@pytest.fixture(scope="session")
def stub(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    """Our stand-in for nixpkgs, with this machine's programs as its builders."""
    folder = tmp_path_factory.mktemp("stub") / "nixpkgs"
    shutil.copytree(repository / "nix/tests/stub", folder)
    host = {"python": sys.executable, "bash": program("bash", "bash"), "path": os.environ["PATH"]}
    settings = " ".join(f"{name} = {json.dumps(path)};" for name, path in host.items())
    (folder / "host.nix").write_text(f"{{ {settings} }}\n")
    return folder


@pytest.fixture(scope="session")
def on_stub(stub: Path) -> list[str]:
    """The arguments that put it in nixpkgs' place."""
    return ["--no-write-lock-file", "--override-input", "nixpkgs", f"path:{stub}"]


@pytest.fixture(params=["mini", "real"])
def lib(request: pytest.FixtureRequest) -> str:
    """Which lib evaluates the module: the stub's, and nixpkgs' own where AIMUX_NIXPKGS_LIB says where it is."""
    if request.param == "mini":
        return ""
    if REAL_LIB is None:
        pytest.skip("AIMUX_NIXPKGS_LIB names no copy of nixpkgs' lib")
    return REAL_LIB
