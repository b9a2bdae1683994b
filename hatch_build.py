"""What a wheel has beside the code: the documents that messages send people to, the manual page, made from the help of
the commands in this tree, and with AIMUX_COMPILE=1 the hot path in machine code."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

GROUP = "aimux"
"""mypyc puts all of the code into one library, `aimux__mypyc`, and a small one for each module beside its source."""

REMEDY = (
    "To compile it takes a C compiler and Python's headers (Debian: gcc and python3-dev; CC names another compiler), "
    "mypy and setuptools; without AIMUX_COMPILE=1 pure Python is what is meant"
)


class WheelHook(BuildHookInterface[Any]):
    """Puts `share/man/man1/aimux.1` into the wheel, so that `man aimux` works wherever it is installed, and into
    `share/doc/aimux` the documents that are there (aimux/documents.py).

    And it compiles the modules of `[tool.aimux]` with mypyc. Where that can't be done the wheel is pure, and the build
    says why.
    """

    def dependencies(self) -> list[str]:
        """mypyc reads the types of what the modules use."""
        return [*self._settings["compiler"], *self.metadata.core.dependencies] if _wanted() else []

    @property
    def _settings(self) -> dict[str, list[str]]:
        settings: dict[str, list[str]] = self.metadata.config["tool"]["aimux"]
        return settings

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        self._made = tempfile.TemporaryDirectory()
        page = Path(self._made.name, "aimux.1")
        page.write_text(self._man_page(), encoding="utf-8")
        build_data["shared_data"][str(page)] = "share/man/man1/aimux.1"
        root = Path(self.root)
        for document in (root / "config.example.yaml", *root.glob("docs/*.md")):
            if document.exists():
                build_data["shared_data"][str(document)] = f"share/doc/aimux/{document.relative_to(root)}"
        if version != "editable" and _wanted():
            self._compile(build_data)

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        self._made.cleanup()

    def _man_page(self) -> str:
        sys.path.insert(0, self.root)
        try:
            from aimux.cli.man import man_page
        finally:
            sys.path.remove(self.root)
        return man_page(self.metadata.version)

    def _compile(self, build_data: dict[str, Any]) -> None:
        modules = self._settings["compiled"]
        try:
            libraries = compiled(Path(self.root), modules, Path(self._made.name, "compiled"))
        except (Exception, SystemExit) as error:  # whatever a compiler may raise; mypyc exits
            self.app.display_warning(f"aimux stays pure Python: {type(error).__name__}: {error}. {REMEDY}")
            return
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        build_data["force_include"].update(libraries)


def _wanted() -> bool:
    return os.environ.get("AIMUX_COMPILE", "") not in {"", "0"}


def _source(module: str) -> str:
    """The file of a module, below the root."""
    file = f"{module.replace('.', '/')}.py"
    return file if module.startswith("aimux.") else f"providers/{file}"


def compiled(root: Path, modules: list[str], folder: Path) -> dict[str, str]:
    """Compile modules (`aimux.http.head`): libraries in `folder`, by where each belongs in a wheel.

    Raises whatever hinders it: no mypy, no compiler.
    """
    from mypyc.build import mypycify
    from setuptools import Distribution

    # mypyc takes half a minute before a compiler is asked for.
    program = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")[0]
    if shutil.which(program) is None:
        raise FileNotFoundError(f"there is no C compiler {program}")
    before = Path.cwd()
    os.chdir(root)  # where the modules and mypy's settings are
    try:
        # Stubs are for `make types`, and not declared: without them a module that is not compiled is a fault to mypy.
        tolerant = ["--disable-error-code=import-untyped", "--no-warn-unused-ignores"]
        extensions = mypycify(
            [*tolerant, *map(_source, modules)],
            opt_level="2",
            debug_level="0",
            group_name=GROUP,
            target_dir=str(folder),
        )
        for extension in extensions:
            # Debian's Python asks for -Wall, with which GCC 14 looks for faults in mypyc's 40 MB of C for 340 s of 465.
            extension.extra_compile_args.append("-Wno-all")
        build = Distribution({"name": GROUP, "ext_modules": extensions}).get_command_obj("build_ext")
        build.build_lib, build.build_temp = str(folder / "lib"), str(folder / "temp")
        build.ensure_finalized()
        build.run()
    finally:
        os.chdir(before)
    found = (folder / "lib").rglob("*.*")
    return {str(path): str(path.relative_to(folder / "lib")) for path in found if path.is_file()}
