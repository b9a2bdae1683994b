"""The compose file: valid by the Compose specification, and as tight as the image allows."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from aimux.accounts.http import ControlHttp
from aimux.cli.units import unit_settings
from aimux.config import load_config, parse_config, parse_duration
from tests.tools import checkout

FILE = checkout() / "deploy/container/compose.yaml"
COMPOSE: dict[str, Any] = yaml.safe_load(FILE.read_text())
DEFAULTS = parse_config({}, environ={"HOME": "/"}, providers={})
RENEWAL = inspect.signature(ControlHttp.request).parameters["timeout"].default
"""Seconds that a token endpoint has."""


def test_valid_by_the_specification() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(FILE)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout


def test_it_is_built_from_the_repository_and_runs_locked_down() -> None:
    service = COMPOSE["services"]["aimux"]
    assert (FILE.parent / service["build"]["context"] / "Dockerfile").exists()
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])


def test_what_has_to_last_is_on_a_volume() -> None:
    image = yaml.safe_load((FILE.parent / "config.yaml").read_text())
    named, _, path = COMPOSE["services"]["aimux"]["volumes"][0].partition(":")
    assert named in COMPOSE["volumes"]
    assert path == image["state_dir"]


def test_postgresql_is_a_profile_and_only_then_waited_for(tmp_path: Path) -> None:
    database, aimux = COMPOSE["services"]["postgresql"], COMPOSE["services"]["aimux"]
    assert database["profiles"] == ["postgresql"]
    assert aimux["depends_on"] == {"postgresql": {"condition": "service_healthy", "required": False}}
    assert database["volumes"][0].partition(":")[0] in COMPOSE["volumes"]
    assert database["environment"]["POSTGRES_INITDB_ARGS"] == "--encoding=UTF8 --locale=C"  # as the tests' own server
    # What the file's head says is what aimux takes, and leads to that service, its user and its database.
    told = dict(re.findall(r"(AIMUX_\w+)=(\S+)", FILE.read_text()))
    key = {"AIMUX_DATABASE__ENCRYPTION_KEY": "0" * 64}
    config = load_config(None, environ={"HOME": str(tmp_path), **told, **key}, providers={})
    url = urlsplit(config.database.address or "")
    assert (url.hostname, url.username) == ("postgresql", database["environment"]["POSTGRES_USER"])
    assert url.path == f"/{url.username}"
    assert f"POSTGRES_PASSWORD={url.password}\n" in FILE.read_text()


def test_it_has_time_to_drain_and_then_to_end_a_renewal() -> None:
    grace = parse_duration(COMPOSE["services"]["aimux"]["stop_grace_period"])
    assert grace > DEFAULTS.drain_timeout + RENEWAL


def test_what_goes_wrong_stays_within_the_bounds_that_systemd_sets_too() -> None:
    service, unit = COMPOSE["services"]["aimux"], unit_settings()
    bounds = unit["service"] | unit["hardening"]
    assert service["ulimits"] == {"core": bounds["LimitCORE"], "nofile": bounds["LimitNOFILE"]}
    assert service["mem_limit"] == bounds["MemoryMax"].lower()
    assert service["pids_limit"] == bounds["TasksMax"]
    database = COMPOSE["services"]["postgresql"]
    assert {"mem_limit", "shm_size", "pids_limit", "stop_grace_period"} <= set(database)
    for each in (service, database):
        assert each["logging"]["options"] == {"max-size": "50m", "max-file": "5"}, "Docker itself rotates no log"


def test_images_can_be_pinned_by_their_digests() -> None:
    """Whoever builds names them: which digest a tag has is known to a registry, and not to this repository."""
    build = COMPOSE["services"]["aimux"]["build"]
    dockerfile = (FILE.parent / build["context"] / "Dockerfile").read_text()
    assert re.findall(r"^ARG BASE=(\S+)$", dockerfile, re.MULTILINE) == ["debian:trixie-slim"]
    assert re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE) == ["${BASE}", "${BASE}"]
    assert build["args"] == {"BASE": "${DEBIAN_IMAGE:-debian:trixie-slim}"}
    assert COMPOSE["services"]["postgresql"]["image"] == "${POSTGRES_IMAGE:-postgres:17}"
