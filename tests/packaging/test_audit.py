"""No dependency that aimux runs with has a known vulnerability, by pip-audit and the OSV database; in CI only.

Without the internet it is skipped. A stand-in for the database shows that either outcome is told from the other.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from aimux import DISTRIBUTION

OSV = "https://api.osv.dev/v1/query"
KNOWN = ("pyyaml", "5.3")
"""A version with vulnerabilities since 2020: a database that has none for it is not the database."""
PATIENCE = 5
"""Seconds to wait for the database, each time."""


class Unreachable(Exception):
    """Nothing that answers like the database; the text says what happened instead."""


def runtime(name: str = DISTRIBUTION) -> dict[str, str]:
    """The installed versions of what a distribution needs to run, and of what those need."""
    found: dict[str, str] = {}
    waiting = [Requirement(name)]
    while waiting:
        wanted = waiting.pop()
        installed = distribution(wanted.name)
        for text in installed.requires or ():
            needed = Requirement(text)
            extras = wanted.extras or {""}
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras):
                key = canonicalize_name(needed.name)
                if key not in found or needed.extras:
                    found[key] = distribution(needed.name).version
                    waiting.append(needed)
    return found


def check_reachable(url: str) -> None:
    """Raises Unreachable."""
    name, version = KNOWN
    query = json.dumps({"package": {"name": name, "ecosystem": "PyPI"}, "version": version}).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, query), timeout=PATIENCE) as answer:
            vulnerabilities = json.load(answer)["vulns"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise Unreachable(f"{url}: {type(error).__name__}: {error}") from None
    if not vulnerabilities:
        raise Unreachable(f"{url} knows of nothing about {name} {version}")


def vulnerabilities(installed: dict[str, str], url: str, folder: Path) -> list[str]:
    """What is known about these versions, one a line. Raises Unreachable; AssertionError where pip-audit fails."""
    check_reachable(url)
    pins = folder / "requirements.txt"
    pins.write_text("".join(f"{name}=={version}\n" for name, version in installed.items()))
    options = ["--no-deps", "--disable-pip", "--format=json", "--progress-spinner=off", f"--timeout={PATIENCE}"]
    command = [sys.executable, "-m", "pip_audit", "--vulnerability-service=osv", f"--osv-url={url}"]
    command += [*options, f"--cache-dir={folder / 'cache'}", f"--requirement={pins}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    try:
        audited = json.loads(done.stdout)["dependencies"]
    except ValueError:
        pytest.fail(f"pip-audit gave no report: {done.stderr[-2000:]}")
    assert {one["name"] for one in audited} == set(installed), "it left some out"
    assert not [one for one in audited if "skip_reason" in one]
    return [
        f"{one['name']} {one['version']}: {known['id']}, mended in {', '.join(known['fix_versions']) or 'no version'}"
        for one in audited
        for known in one["vulns"]
    ]


def test_no_dependency_has_a_known_vulnerability(tmp_path: Path) -> None:
    if not os.environ.get("CI"):
        pytest.skip("needs the internet: in CI only (CI=1)")
    try:
        found = vulnerabilities(runtime(), OSV, tmp_path)
    except Unreachable as reason:
        pytest.skip(f"the vulnerability database can't be reached: {reason}")
    assert not found, "\n".join(["upgrade these, and raise their floors in pyproject.toml:", *found])


# --- with a stand-in for the database --------------------------------------------------------------------------------


def entry(name: str, fixed: str) -> dict[str, Any]:
    ranges = [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": fixed}]}]
    affected = [{"package": {"name": name, "ecosystem": "PyPI"}, "ranges": ranges}]
    return {"id": f"PYSEC-{name}", "summary": "It is broken.", "affected": affected}


@contextmanager
def database(known: dict[tuple[str, str], str], *, status: int = 200, body: bytes | None = None) -> Iterator[str]:
    """Its address. `known`: name and version of what is vulnerable, with the version that mends it."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            query = json.loads(self.rfile.read(int(self.headers["content-length"])))
            name = query["package"]["name"]
            fixed = known.get((name, query["version"]))
            answer = {"vulns": [entry(name, fixed)]} if fixed else {}
            raw = json.dumps(answer).encode() if body is None else body
            self.send_response(status)
            self.send_header("content-length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1/query"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-in is on this machine."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def test_what_aimux_runs_with() -> None:
    found = runtime()
    assert {"aiohttp", "uvloop", "pydantic-core", "cffi", "propcache"} <= set(found)
    assert not {"pytest", "mypy", "pip-audit", DISTRIBUTION} & set(found)


def test_a_known_vulnerability_is_found(tmp_path: Path) -> None:
    installed = runtime()
    bad = ("aiohttp", installed["aiohttp"])
    with database({KNOWN: "5.4", bad: "99.0"}) as url:
        assert vulnerabilities(installed, url, tmp_path) == [f"aiohttp {bad[1]}: PYSEC-aiohttp, mended in 99.0"]


def test_none_is_found_where_there_is_none(tmp_path: Path) -> None:
    with database({KNOWN: "5.4"}) as url:
        assert vulnerabilities({"aiohttp": "3.13.0"}, url, tmp_path) == []


@pytest.mark.parametrize(
    ("known", "status", "body"),
    [({}, 200, None), ({KNOWN: "5.4"}, 503, None), ({KNOWN: "5.4"}, 200, b"<html>Please log in</html>")],
    ids=["it knows nothing", "out of order", "a portal"],
)
def test_what_is_not_the_database_says_nothing(
    tmp_path: Path, known: dict[tuple[str, str], str], status: int, body: bytes | None
) -> None:
    with database(known, status=status, body=body) as url, pytest.raises(Unreachable):
        vulnerabilities({"aiohttp": "3.13.0"}, url, tmp_path)


def test_nobody_there(tmp_path: Path) -> None:
    with database({}) as url:
        pass
    with pytest.raises(Unreachable, match="refused"):
        vulnerabilities({"aiohttp": "3.13.0"}, url, tmp_path)
