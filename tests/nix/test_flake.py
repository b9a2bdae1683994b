"""The flake: it parses, it evaluates as a whole, and what it packages runs."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest

from tests.nix.conftest import Nix

SYSTEMS = {"x86_64-linux", "aarch64-linux", "aarch64-darwin"}


def test_every_nix_file_parses(nix: Nix, repository: Path) -> None:
    files = [repository / "flake.nix", *sorted((repository / "nix").rglob("*.nix"))]
    assert len(files) > 5
    nix.run("nix-instantiate", "--parse", *map(str, files))


def test_the_whole_flake_evaluates_on_every_system(nix: Nix, flake: Path, on_stub: list[str]) -> None:
    done = nix.run("nix", "flake", "check", "--all-systems", "--no-build", *on_stub, f"path:{flake}")
    for system in SYSTEMS:
        assert f"packages.{system}.aimux" in done.stderr
    assert "checks.x86_64-linux.vm" in done.stderr


def test_outputs(nix: Nix, flake: Path, on_stub: list[str]) -> None:
    shown = json.loads(nix.run("nix", "flake", "show", "--json", "--all-systems", *on_stub, f"path:{flake}").stdout)
    assert set(shown) == {"apps", "checks", "devShells", "formatter", "nixosModules", "overlays", "packages"}
    for output in ("packages", "apps"):
        assert set(shown[output]) == SYSTEMS
        assert all(set(names) == {"aimux", "default"} for names in shown[output].values())
    assert set(shown["nixosModules"]) == {"aimux", "default"}
    assert set(shown["checks"]["aarch64-linux"]) == {"package", "suite", "module", "vm"}
    assert set(shown["checks"]["aarch64-darwin"]) == {"package", "suite"}


def test_it_runs(nix: Nix, flake: Path, on_stub: list[str], repository: Path) -> None:
    version = tomllib.loads((repository / "pyproject.toml").read_text())["project"]["version"]
    done = nix.run("nix", "run", *on_stub, f"path:{flake}#aimux", "--", "--version")
    assert done.stdout == f"aimux {version} (pure Python)\n"


def test_the_package_has_completions_and_a_manual_page(
    nix: Nix, flake: Path, on_stub: list[str], tmp_path: Path
) -> None:
    nix.run("nix", "build", *on_stub, "--out-link", str(tmp_path / "result"), f"path:{flake}#aimux")
    share = tmp_path / "result/share"
    assert {path.name for path in (share / "completions").iterdir()} == {"aimux.bash", "aimux.fish", "aimux.zsh"}
    assert "_AIMUX_COMPLETE" in (share / "completions/aimux.bash").read_text()
    assert ".SS aimux serve" in (share / "man/man1/aimux.1").read_text()


def test_the_module_check_builds_and_with_it_a_checked_configuration(nix: Nix, flake: Path, on_stub: list[str]) -> None:
    system = nix.run("nix-instantiate", "--eval", "--raw", "--expr", "builtins.currentSystem").stdout
    nix.run("nix", "build", "--no-link", *on_stub, f"path:{flake}#checks.{system}.module")


def test_the_lock_belongs_to_the_input(repository: Path) -> None:
    lock = json.loads((repository / "flake.lock").read_text())
    node = lock["nodes"][lock["nodes"]["root"]["inputs"]["nixpkgs"]]
    url = re.search(r'nixpkgs\.url = "github:([^/]+)/([^/]+)/([^"]+)"', (repository / "flake.nix").read_text())
    assert url is not None
    assert node["original"] == {"type": "github", "owner": url[1], "repo": url[2], "ref": url[3]}
    assert re.fullmatch(r"[0-9a-f]{40}", node["locked"]["rev"])


def _names(requirements: list[str]) -> set[str]:
    return {re.split(r"[^A-Za-z0-9._-]", one)[0].lower().replace("_", "-") for one in requirements}


@pytest.fixture(scope="module")
def package(nix: Nix) -> dict[str, list[str]]:
    """What the package asks for, by the names that nixpkgs has for it."""
    expression = """
      let
        pkgs = import ./nix/tests/stub/pkgs.nix { system = "x86_64-linux"; };
        package = pkgs.callPackage ./nix/package.nix { };
        suite = pkgs.callPackage ./nix/package.nix { wholeSuite = true; };
      in
      {
        dependencies = map (p: p.pname) package.dependencies;
        buildSystem = map (p: p.pname) package.build-system;
        quickInputs = map (p: p.pname) package.nativeCheckInputs;
        flags = package.pytestFlags;
        quickPaths = package.enabledTestPaths;
        nativeCheckInputs = map (p: p.pname) suite.nativeCheckInputs;
        inherit (suite) disabledTestPaths enabledTestPaths;
      }
    """
    done = nix.run("nix-instantiate", "--eval", "--strict", "--json", "--expr", expression)
    found: dict[str, list[str]] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def project(repository: Path) -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    return found


def test_the_package_depends_on_what_pyproject_says(package: dict[str, list[str]], project: dict[str, Any]) -> None:
    assert set(package["dependencies"]) == _names(project["dependencies"])


def test_it_is_compiled_where_that_is_wanted(nix: Nix, package: dict[str, list[str]], repository: Path) -> None:
    pyproject = tomllib.loads((repository / "pyproject.toml").read_text())
    compiler = _names(pyproject["tool"]["aimux"]["compiler"])
    assert set(package["buildSystem"]) == _names(pyproject["build-system"]["requires"])
    expression = """
      let
        pkgs = import ./nix/tests/stub/pkgs.nix { system = "x86_64-linux"; };
        of = compiled: pkgs.callPackage ./nix/package.nix { inherit compiled; };
      in
      map (p: [ p.env.AIMUX_COMPILE ] ++ map (tool: tool.pname) p.build-system) [ (of true) (of false) ]
    """
    done = nix.run("nix-instantiate", "--eval", "--strict", "--json", "--expr", expression)
    (wanted, *tools), pure = json.loads(done.stdout)
    assert wanted == "1"
    assert compiler < set(tools)
    assert pure == ["0", *(tool for tool in tools if tool not in compiler)]


def test_with_plugins_takes_the_package_as_it_was_overridden(nix: Nix) -> None:
    expression = """
      let
        pkgs = import ./nix/tests/stub/pkgs.nix { system = "x86_64-linux"; };
        package = pkgs.callPackage ./nix/package.nix { };
        changed = package.overrideAttrs (before: { version = "${before.version}-of-ours"; });
        told = p: [ p.version ] ++ map (one: "${one.pname} ${one.version or ""}") p.selected;
        some = ps: [ ps.rich ];
      in
      map told [ (package.withPlugins some) (changed.withPlugins some) ]
    """
    done = nix.run("nix-instantiate", "--eval", "--strict", "--json", "--expr", expression)
    [version, own, rich], changed = json.loads(done.stdout)
    assert (own, rich) == (f"aimux-gateway {version}", "rich ")
    assert changed == [f"{version}-of-ours", f"{own}-of-ours", rich]


def test_a_users_build_runs_what_is_quick_and_has_all_for_it(
    package: dict[str, list[str]], project: dict[str, Any], repository: Path, tmp_path: Path
) -> None:
    """The check phase itself: a bare interpreter whose libraries come by PYTHONPATH, no HOME."""
    assert package["enabledTestPaths"] == []
    files = [
        repository / "tests/conftest.py",
        *(f for path in package["quickPaths"] for f in (repository / path).rglob("*.py")),
    ]
    ours = {
        "aimux",
        "pytest",
        "tests",
        *(entry.replace("_", "-") for entry in project["entry-points"]["aimux"].values()),
    }
    assert _imported(files) <= {*package["dependencies"], *package["quickInputs"], *ours}
    for name in ("tests", "aimux", "providers", "pyproject.toml", "config.example.yaml"):
        (tmp_path / name).symlink_to(repository / name)
    libraries = os.pathsep.join([sysconfig.get_path("purelib"), *map(str, (tmp_path, tmp_path / "providers"))])
    command = [
        sys._base_executable,  # type: ignore[attr-defined]
        "-m",
        "pytest",
        "-q",
        *package["flags"],
        "-m",
        "not slow",
        "-p",
        "no:cacheprovider",
    ]
    bare = {"PATH": os.environ["PATH"], "PYTHONPATH": libraries, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [*command, *package["flags"], *package["quickPaths"]],
        cwd=tmp_path,
        env=bare,
        capture_output=True,
        text=True,
        timeout=270,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr


def test_the_suite_has_all_that_its_tests_import(
    package: dict[str, list[str]], project: dict[str, Any], repository: Path
) -> None:
    inputs = set(package["nativeCheckInputs"]) - {"pytestCheckHook"}
    left_out = [repository / path for path in package["disabledTestPaths"]]
    assert all(path.exists() for path in left_out)
    tests = [file for file in (repository / "tests").rglob("*.py") if not any(map(file.is_relative_to, left_out))]
    ours = {"aimux", "pytest", "pydantic-core", "tests", *(file.stem.replace("_", "-") for file in tests)}
    ours |= {entry.replace("_", "-") for entry in project["entry-points"]["aimux"].values()}
    assert _imported(tests) <= {*package["dependencies"], *inputs, *ours}
    # Nor is anything taken along that nobody needs: tools and stubs are for those who develop.
    assert inputs <= _names(project["optional-dependencies"]["dev"])


def _imported(files: list[Path]) -> set[str]:
    """The distributions, or else modules, that are imported as soon as these tests are collected."""
    found = set()
    for file in files:
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module)
    distributions = packages_distributions()
    modules = {name.partition(".")[0] for name in found} - sys.stdlib_module_names
    return {name.lower().replace("_", "-") for module in modules for name in distributions.get(module, [module])}


def test_the_snippets_of_the_documentation_parse(nix: Nix, repository: Path, tmp_path: Path) -> None:
    text = (repository / "docs/deployment.md").read_text()
    snippets = re.findall(r"```nix\n(.*?)```", text, re.DOTALL)
    assert snippets
    for snippet in snippets:
        file = tmp_path / "snippet.nix"
        # Lines of a module's body stand without its braces.
        file.write_text(snippet if snippet.startswith("{") else f"{{ {snippet} }}")
        nix.run("nix-instantiate", "--parse", str(file))
