"""What `python -m build` makes, and that it works where nothing else is installed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

from hatch_build import compiled
from tests.running import ask, demo
from tests.tools import checkout, lacking

NAMED = os.environ.get("AIMUX_DIST")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one sdist and the wheel that was built from it. `make release` names its own."""
    if NAMED:
        return Path(NAMED)
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(checkout())]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (found,) = built.glob("*.whl")
    return found


def sources(root: Path) -> set[str]:
    files = (path for path in root.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path.relative_to(root)) for path in files}


def test_the_wheel_holds_core_and_providers_and_nothing_else(wheel: Path) -> None:
    root = checkout()
    names = {name for name in zipfile.ZipFile(wheel).namelist() if not name.startswith("aimux_gateway-")}
    assert names == {f"aimux/{name}" for name in sources(root / "aimux")} | sources(root / "providers")
    assert {"aimux/py.typed", "aimux/unit.toml"} <= names


def test_the_wheel_brings_the_manual_page(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".data/data/share/man/man1/aimux.1"))
        page = archive.read(name).decode()
    version = tomllib.loads((checkout() / "pyproject.toml").read_text())["project"]["version"]
    assert page.startswith(f'.TH AIMUX 1 "" "aimux {version}"')
    assert all(f".SS aimux {name} " in page for name in ("serve", "accounts show", "migrate"))


def test_the_page_needs_click_alone() -> None:
    """It is made in an environment that has nothing else."""
    heavy = {"pydantic", "aiohttp", "yaml", "sqlalchemy", "rich", "pluggy"}
    code = f"import sys; from aimux.cli.man import man_page; man_page('1'); print(*{heavy!r} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize(
    ("without", "reason"),
    [("mypyc", "ImportError: there is no mypyc"), ("a compiler", "FileNotFoundError: there is no C compiler ")],
)
def test_without_what_it_takes_to_compile_the_wheel_is_pure(tmp_path: Path, without: str, reason: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "CC"} | {"AIMUX_COMPILE": "1"}
    if without == "mypyc":
        (tmp_path / "mypyc").mkdir()
        (tmp_path / "mypyc" / "__init__.py").write_text("raise ImportError('there is no mypyc')")
        environment["PYTHONPATH"] = str(tmp_path)
    else:
        environment["PATH"] = str(tmp_path)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(checkout())]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert f"aimux stays pure Python: {reason}" in said
    assert "To compile it takes a C compiler and Python's headers" in said
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")


def test_it_compiles_without_the_stubs_that_make_types_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are not among what `python -m build` brings: all that people built was pure."""
    monkeypatch.setenv("CC", "true")  # a compiler that takes no time
    (tmp_path / "aimux").mkdir()
    (tmp_path / "aimux" / "one.py").write_text("import jsonschema\n")
    compiled(tmp_path, ["aimux.one"], tmp_path / "made")


def test_its_metadata_is_pyprojects(wheel: Path) -> None:
    project = tomllib.loads((checkout() / "pyproject.toml").read_text())["project"]
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = archive.read(name).decode()
        entries = archive.read(name.replace("METADATA", "entry_points.txt")).decode()
    required = {line.split(" ", 1)[1] for line in metadata.splitlines() if line.startswith("Requires-Dist:")}
    assert {one.lower() for one in required if "extra ==" not in one} == {
        one.lower() for one in project["dependencies"]
    }
    for provider in project["entry-points"]["aimux"]:
        assert f"{provider} = " in entries


def test_the_sdist_has_what_a_packager_needs(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for name in (
        "pyproject.toml",
        "LICENSE",
        "README.md",
        "config.example.yaml",
        "tests/running.py",
        "aimux/unit.toml",
    ):
        assert name in names
    assert not any(name.startswith((".venv", ".cache", "nix/", ".git/")) for name in names)


def scripts(environment: Path) -> Path:
    return Path(sysconfig.get_path("scripts", "venv", vars={"base": str(environment)}))


def site(environment: Path) -> Path:
    return Path(sysconfig.get_path("purelib", "venv", vars={"base": str(environment)}))


def serves(aimux: Path, cwd: Path) -> None:
    with demo([str(aimux)], cwd) as (address, token):
        assert ask(address, token) == "text"


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel beside the libraries of this environment, so that no registry is needed; aimux is the wheel's alone."""
    environment = tmp_path_factory.mktemp("wheel") / "env"
    venv.create(environment, with_pip=False, symlinks=True)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site(environment))
    (data,) = site(environment).glob("*.data/data")  # as every installer does
    shutil.copytree(data, environment, dirs_exist_ok=True)
    shutil.rmtree(data.parent)
    (site(environment) / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    aimux = scripts(environment) / "aimux"
    aimux.write_text(f"#!{scripts(environment)}/python\nfrom aimux.cli.main import main\nmain()\n")
    aimux.chmod(0o755)
    return environment


def test_the_wheel_serves_a_request(environment: Path, tmp_path: Path) -> None:
    asked = [str(scripts(environment) / "python"), "-c", "import aimux, aimux_claude; print(aimux.__file__)"]
    where = subprocess.run(asked, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60)
    assert where.stdout.startswith(str(environment))
    serves(scripts(environment) / "aimux", tmp_path)


def test_documents_are_where_messages_send_people_to(environment: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("unlike_anything_that_is_known: 1\n")
    command = [str(scripts(environment) / "aimux"), "check-config", "--config", str(config)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    (named,) = re.findall(r"(/\S+\.md)\s+lists\s+what\s+is\s+known", done.stdout + done.stderr)
    assert named == str(environment / "share/doc/aimux/docs/configuration.md")
    assert Path(named).read_text() == (checkout() / "docs/configuration.md").read_text()
    assert (environment / "share/doc/aimux/config.example.yaml").exists()


def test_the_sdists_tests_need_nothing_that_it_lacks(built: Path, environment: Path, tmp_path: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        # Python 3.11 has filters from 3.11.4 on; the archive is our own.
        if hasattr(tarfile, "data_filter"):
            archive.extraction_filter = tarfile.data_filter
        archive.extractall(tmp_path)
    (unpacked,) = tmp_path.iterdir()
    command = [
        str(scripts(environment) / "python"),
        "-m",
        "pytest",
        "--collect-only",
        "--quiet",
        "--assert=plain",  # no test runs
        "-p",
        "no:cacheprovider",
    ]
    done = subprocess.run(command, cwd=unpacked, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, "\n".join(line for line in done.stdout.splitlines() if "::" not in line)


@pytest.mark.network
@pytest.mark.slow
@pytest.mark.parametrize("oldest", [False, True], ids=["newest", "oldest"])
def test_the_wheel_in_an_empty_environment(wheel: Path, tmp_path: Path, oldest: bool) -> None:
    """With the newest dependencies, and with the oldest that it allows: they fit together, and it serves with them."""
    if oldest and sys.version_info >= (3, 12):
        pytest.skip("the oldest Python that aimux runs on has wheels of them all")
    declared = tomllib.loads((checkout() / "pyproject.toml").read_text())["project"]["dependencies"]
    floors = [one.replace(">=", "==") for one in declared] if oldest else []
    environment = tmp_path / "env"
    venv.create(environment, with_pip=False, symlinks=True)
    pip = [sys.executable, "-m", "pip", "--python", str(scripts(environment) / "python"), "--disable-pip-version-check"]
    # What is imported is compiled then: a fraction of all that is installed.
    install = [*pip, "install", "--quiet", "--no-compile", str(wheel), *floors]
    done = subprocess.run(install, capture_output=True, text=True, timeout=600)
    if "Failed to establish a new connection" in done.stderr or "Temporary failure in name" in done.stderr:
        lacking("the package registry can't be reached")
    assert done.returncode == 0, done.stderr
    subprocess.run([*pip, "check"], check=True, timeout=60)
    serves(scripts(environment) / "aimux", tmp_path)


@pytest.mark.parametrize("args", [["--version"], ["--help"]])
def test_a_command_that_does_little_loads_little(args: list[str], tmp_path: Path) -> None:
    """Start-up time is a matter of imports: neither the server's libraries nor pydantic are needed to say a version."""
    script = (
        "import sys; from aimux.cli.main import cli; cli.main(sys.argv[1:], prog_name='aimux', standalone_mode=False);"
        "print(sorted({'aiohttp', 'cryptography', 'pydantic', 'rich', 'uvloop'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *args], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.splitlines()[-1] == "[]"
