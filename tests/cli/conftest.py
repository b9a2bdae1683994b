from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path

import pytest
from click.testing import CliRunner

from aimux.cli.main import main

Aimux = Callable[..., "subprocess.CompletedProcess[str]"]


def environment(home: Path, **more: str) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("AIMUX_", "XDG_"))}
    return clean | {"HOME": str(home), "COLUMNS": "100"} | more


@pytest.fixture
def aimux(tmp_path: Path) -> Aimux:
    """Run the command in a folder and a home of its own: `aimux("check-config", AIMUX_LISTEN=":1")`.

    In this process, since most of a new one's time goes into imports. Its stdin is empty.
    """

    def aimux(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        hidden: dict[str, str | None] = dict.fromkeys(os.environ)
        runner = CliRunner(env=hidden | environment(tmp_path, **environ))
        before = sys.argv
        sys.argv = ["aimux", *arguments]
        try:
            with runner.isolation() as (stdout, stderr, _), chdir(tmp_path):
                with pytest.raises(SystemExit) as ended:
                    main()
                sys.stdout.flush()
                sys.stderr.flush()
                told = stdout.getvalue().decode(), stderr.getvalue().decode()  # some versions of click close them
        finally:
            sys.argv = before
            logging.disable(logging.NOTSET)  # which completion makes use of, until the process ends
        assert isinstance(ended.value.code, int)
        return subprocess.CompletedProcess(arguments, ended.value.code, *told)

    return aimux


@pytest.fixture
def aimux_process(tmp_path: Path) -> Aimux:
    """The same as a process."""

    def aimux(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "aimux.cli.main", *arguments],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=environment(tmp_path, **environ),
            timeout=60,
            check=False,
        )

    return aimux
