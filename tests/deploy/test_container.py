"""The image: built from the Dockerfile as it stands and run as the compose file says, without a container engine.

buildah needs no daemon. The base image is made by debootstrap, since no registry of images is reached, and the
container runs in a chroot: its own user, a read-only root, its state on a volume; namespaces other than that of mounts
and limits on capabilities are the engine's work and not tried here.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import ssl
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from aimux.simulator import Simulator, credential_file, provider_settings
from tests.running import ask, free_port, request
from tests.tools import ROOT, checkout, lacking, program

# What is built is compiled, too, maybe beside other tests on two cores.
pytestmark = [pytest.mark.network, pytest.mark.slow, pytest.mark.timeout(1200)]
TOKEN = "the-token-of-the-test-of-the-image"


def run(*command: str | Path, **options: Any) -> str:
    words = [str(word) for word in command]
    done: subprocess.CompletedProcess[str]
    done = subprocess.run(words, capture_output=True, text=True, timeout=900, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


class Builder:
    """buildah with storage of its own."""

    def __init__(self, folder: Path) -> None:
        storage = ["--root", str(folder / "storage"), "--runroot", str(folder / "run"), "--storage-driver", "vfs"]
        self._command = [program("buildah", "buildah"), *storage]
        self._policy = folder / "policy.json"
        self._policy.write_text(json.dumps({"default": [{"type": "insecureAcceptAnything"}]}))

    def __call__(self, verb: str, *args: str | Path) -> str:
        signed = ("--signature-policy", self._policy) if verb in {"build", "commit", "from"} else ()
        return run(*self._command, verb, *signed, *args)


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Builder]:
    if not os.environ.get("CI"):
        pytest.skip("it takes minutes: CI runs it, and so does CI=true")
    if os.geteuid() != 0:
        lacking("only root can make a Debian tree and change into it")
    builder = Builder(tmp_path_factory.mktemp("buildah"))
    yield builder
    builder("rm", "--all")
    builder("rmi", "--all", "--force")


@pytest.fixture(scope="module")
def image(builder: Builder) -> str:
    """The image's name. Its base is a fresh Debian that trusts whatever this machine trusts, for pip."""
    tree = ROOT / ".cache/debian-trixie"
    if not (tree / "etc/os-release").exists():
        # Its mounts end with it: one that is interrupted would leave /proc in the tree, for whoever removes that.
        debootstrap = program("debootstrap", "debootstrap")
        run("unshare", "--mount", "--propagation", "private", debootstrap, "--variant=minbase", "trixie", tree)
    base = builder("from", "scratch")
    builder("add", "--quiet", base, tree, "/")
    if trusted := ssl.get_default_verify_paths().cafile:
        builder("add", "--quiet", base, trusted, "/etc/trusted.pem")
        builder("config", "--env", "PIP_CERT=/etc/trusted.pem", base)
    builder("commit", "--quiet", "--rm", base, "docker.io/library/debian:trixie-slim")
    builder("build", "--isolation", "chroot", "--pull=never", "--format", "docker", "--tag", "aimux", checkout())
    return "localhost/aimux"


@pytest.fixture(scope="module")
def settings(builder: Builder, image: str) -> dict[str, Any]:
    inspected: dict[str, Any] = json.loads(builder("inspect", "--type", "image", image))["Docker"]["config"]
    return inspected


def test_what_the_image_says_of_itself(settings: dict[str, Any]) -> None:
    assert settings["User"] == "10001:10001"
    assert settings["Entrypoint"] == ["aimux"]
    assert settings["Cmd"] == ["serve"]
    assert settings["StopSignal"] == "SIGTERM"
    assert list(settings["Volumes"]) == ["/var/lib/aimux"]
    assert list(settings["ExposedPorts"]) == ["8080/tcp"]
    assert settings["Healthcheck"]["Test"] == ["CMD", "aimux", "health"]
    assert settings["Labels"]["org.opencontainers.image.title"] == "aimux"


class Container:
    """The files of a container, with a read-only root. Each process mounts them in a namespace of its own."""

    def __init__(self, root: Path, settings: dict[str, Any], folder: Path) -> None:
        self.root, self.settings = root, settings
        self.state, self.config, self.login = folder / "state", folder / "config.yaml", folder / "login.json"
        self.state.mkdir()
        os.chown(self.state, 10001, 10001)  # what a new named volume takes from the image
        self._view = folder / "root"
        self._view.mkdir()

    def command(self, *words: str) -> list[str]:
        mounts = f"""
            mount --bind {self.root} {self._view}
            mount --bind {self.config} {self._view}/etc/aimux/config.yaml
            mount -o remount,bind,ro {self._view}
            mount --bind {self.state} {self._view}/var/lib/aimux
            mount -t tmpfs tmpfs {self._view}/tmp
            exec chroot --userspec={self.settings["User"]} {self._view} env -i "$@"
        """
        unshare = [program("unshare", "util-linux"), "--mount", "--propagation", "private"]
        return [*unshare, "sh", "-euc", mounts, "sh", *self.settings["Env"], *words]


@pytest.fixture
def container(builder: Builder, image: str, settings: dict[str, Any], tmp_path: Path) -> Iterator[Container]:
    name = builder("from", "--pull-never", image)
    yield Container(Path(builder("mount", name)), settings, tmp_path)
    builder("rm", name)


async def test_a_container_serves_is_healthy_and_drains(container: Container) -> None:
    async with Simulator() as upstream:
        # The port is the only difference to how it is meant to be run: 8080 may be taken here.
        config = {
            "listen": f"127.0.0.1:{free_port()}",
            "state_dir": "/var/lib/aimux",
            "users": [{"name": "alice", "token": TOKEN}],
            "providers": {"claude": provider_settings(upstream.url)["claude"]},
        }
        container.config.write_text(yaml.safe_dump(config))
        container.login.touch(mode=0o600)
        container.login.write_bytes(credential_file(upstream.accounts["claude"]))
        await asyncio.to_thread(_exercise, container)


def _exercise(container: Container) -> None:
    with container.login.open("rb") as login:  # of another user, and 0600: only who opens the door can read it
        seeded = run(*container.command("aimux", "seed", "claude=-"), stdin=login)
    assert seeded == "claude/default comes from the standard input."
    refused = subprocess.run(container.command("touch", "/opt/aimux/x"), capture_output=True, text=True, timeout=60)
    assert "Read-only file system" in refused.stderr
    assert "(compiled" in run(*container.command("aimux", "--version"))
    serve = [*container.settings["Entrypoint"], *container.settings["Cmd"]]
    with subprocess.Popen(container.command(*serve), stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            found = re.search(r"http://127\.0\.0\.1:(\d+)", process.stdout.readline())
            assert found
            address = found[0]
            assert ask(address, TOKEN) == "text"
            check = container.command(*container.settings["Healthcheck"]["Test"][1:])
            for _ in range(3):  # as an engine does: `aimux health` waits two seconds, which a busy machine may take
                health = subprocess.run(check, capture_output=True, text=True, timeout=60)
                if health.returncode == 0:
                    break
            assert health.stdout == "ok\n", health.stderr
            _drains(process, address)
        finally:
            process.kill()
    assert process.returncode == 0


def _drains(process: subprocess.Popen[str], address: str) -> None:
    """A stream that is open when SIGTERM comes arrives whole."""
    asked = request(address, TOKEN, stream=True, simulator="gap:0.05")
    with urllib.request.urlopen(asked, timeout=60) as answer:
        first = answer.readline()
        process.send_signal(signal.SIGTERM)
        rest = answer.read()
    assert b"message_start" in first
    assert b"message_stop" in rest
    process.wait(60)
