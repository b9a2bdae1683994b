"""The manual page: every command and option is in it, and roff has nothing to say against it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import click
import pytest

from aimux.cli.main import cli
from aimux.cli.man import man_page


def test_every_command_and_option_is_in_it() -> None:
    page = man_page()
    context = click.Context(cli)
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None
        escaped = name.replace("-", "\\-")
        assert f".SS aimux {escaped}" in page
        for parameter in command.params:
            if isinstance(parameter, click.Option) and not parameter.hidden:
                assert parameter.opts[-1].replace("-", "\\-") in page


def test_text_can_not_become_a_request() -> None:
    known = {".TH", ".SH", ".SS", ".PP", ".TP", ".nf", ".fi", ".B"}
    assert {line.split()[0] for line in man_page().splitlines() if line.startswith(".")} == known


def test_man_renders_it_without_warnings(tmp_path: Path) -> None:
    man = shutil.which("man")
    if man is None or shutil.which("troff") is None:
        pytest.skip("there is no man with groff")
    (tmp_path / "aimux.1").write_text(man_page())
    command = [man, "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", str(tmp_path / "aimux.1")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    assert "install" in done.stdout
