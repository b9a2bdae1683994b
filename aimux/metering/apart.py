"""Runs work that would hold up a server in a process beside it: JSON in, JSON out."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


async def run_apart(module: str, asked: Any, *, longest: float, needs: Callable[[str], bool]) -> Any:
    """What `python -m module` writes to stdout, with `asked` on its stdin. After `longest` seconds it is ended.

    `needs` says which variables of the environment it gets, besides PATH: none that holds a secret and is not for it.
    Raises TimeoutError, and OSError with the last line that it said on stderr.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        module,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=_environment(needs),
    )
    try:
        async with asyncio.timeout(longest):
            out, problem = await process.communicate(json.dumps(asked).encode())
    finally:
        if process.returncode is None:  # a stop does not wait for it, and leaves no process behind
            process.kill()
            await process.wait()
    if process.returncode:
        said = problem.decode("utf-8", "replace").strip().rpartition("\n")[2]
        # Nothing is said where the system kills it, as it does where memory runs out.
        raise OSError(said or f"its process ended without a word (status {process.returncode})")
    return json.loads(out)


def _environment(needs: Callable[[str], bool]) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name == "PATH" or needs(name)}
    # A packaged program's modules may be on a path that only this process knows.
    return kept | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
