"""docs/plugins.md is complete, and what it teaches works: exactly its files become a distribution that is served."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import importlib.metadata
import inspect
import json
import re
import shlex
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import AsyncIterator, Iterator
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from multidict import CIMultiDict

import aimux.plugin
import aimux.testing
from aimux.plugin import Meter, Provider, RequestHead
from aimux.testing import ScriptedHttp, reply
from tests.tools import child_environ

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs/plugins.md").read_text()
TOKEN = "a-user's-token-0123456789"
KEY = "acme-key-0123456789abcdef"


def test_every_public_name_is_documented() -> None:
    blocks = re.compile(r"```\w+\n(.*?)```", re.DOTALL)
    prose = " ".join(re.findall(r"`[^`]+`", blocks.sub("", DOCUMENT)))
    named = set(re.findall(r"\w+", prose)) | set(re.findall(r"\w+", " ".join(blocks.findall(DOCUMENT))))
    assert {*aimux.plugin.__all__, *aimux.testing.__all__} - named == set()
    methods = {name for name, _ in inspect.getmembers(Provider) if not name.startswith("_")}
    assert methods - set(re.findall(r"\w+", prose)) == set()


def section(heading: str) -> str:
    """What stands below a heading, up to the next one of its level or a higher one."""
    level = len(heading) - len(heading.lstrip("#"))
    found = re.search(rf"^{heading}\n(.*?)(?=^#{{1,{level}}} |\Z)", DOCUMENT, re.MULTILINE | re.DOTALL)
    assert found is not None, heading
    return found[1]


def test_every_field_of_a_type_is_documented() -> None:
    """And every kind of error and verdict."""
    named = set(re.findall(r"`(\w+)(?:\(\))?`", section("### Types") + section("### Verdicts")))
    for name in aimux.plugin.__all__:
        thing = getattr(aimux.plugin, name)
        fields: set[str] = set()
        if isinstance(thing, type) and issubclass(thing, Enum):
            fields = set(thing.__members__)
        elif dataclasses.is_dataclass(thing) and thing.__module__ != "aimux.plugin.parts":
            fields = {field.name for field in dataclasses.fields(thing)}
        elif isinstance(thing, type) and issubclass(thing, tuple):
            fields = set(thing._fields)  # type: ignore[attr-defined]
        if name not in {"HttpAnswer", "StoredPage", "Lists"}:  # beside `Http` and `list_models`
            assert fields - named == set(), name
    assert {name for name in vars(Meter()) if not name.startswith("_")} | {"sees_end", "consumes", "torn"} <= set(
        re.findall(r"`(?:self\.)?(\w+)", section("### Meters"))
    )


def test_the_meter_by_hand_is_one() -> None:
    code = re.search(r"```python\n(.*?)```", section("#### A meter by hand"), re.DOTALL)
    assert code is not None
    module: dict[str, Any] = {}
    exec(compile(code[1], "docs/plugins.md", "exec", dont_inherit=True), module)
    stream = b'{"text": "hel"}\n{"text": "lo"}\n{"done": true, "tokens": 2}\n'
    for cut in range(len(stream) + 1):
        meter: Meter = module["JSONLines"]()
        meter.feed(stream[:cut])
        assert meter.torn is (stream[:cut][-1:] not in {b"", b"\n"})
        assert meter.complete is (cut == len(stream))
        meter.feed(stream[cut:])
        meter.end()
        assert (meter.complete, meter.torn, meter.usage.output_tokens) == (True, False, 2)
    for line in (b'"done" \xc4\n', b'["done"]\n', b'{"done": true, "tokens": "x"}\n'):
        meter = module["JSONLines"]()
        meter.feed(line)
        assert meter.usage.output_tokens == 0, "the contract lets no bytes break a meter"


def test_the_smallest_provider_is_one() -> None:
    module: dict[str, Any] = {}
    code = re.search(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)[1]  # type: ignore[index]
    exec(compile(code, "docs/plugins.md", "exec", dont_inherit=True), module)
    found: list[type[Provider]] = []
    module["aimux_register_providers"](found.append)
    tiny = found[0](found[0].Settings())
    upstream = tiny.prepare(RequestHead("GET", "/v1/x", CIMultiDict()), tiny.parse_credential(tiny.api_key_file("k")))
    assert (upstream.base_url, upstream.target) == ("https://api.tiny.example", "/v1/x")
    assert upstream.set_headers == {"authorization": "Bearer k"}


async def test_the_login_by_device_code_is_one() -> None:
    code = re.search(r"```python\n(.*?)```", section("### A login by device code"), re.DOTALL)
    assert code is not None
    imports = (
        "from __future__ import annotations\nimport json\nfrom aimux.plugin.oauth import device_code, device_tokens\n"
    )
    module: dict[str, Any] = {}
    exec(
        compile(
            f"{imports}class Device:\n{textwrap.indent(code[1], '    ')}", "docs/plugins.md", "exec", dont_inherit=True
        ),
        module,
    )

    class Acme(module["Device"]):  # type: ignore[misc, name-defined, valid-type]
        instance = "acme"
        settings = SimpleNamespace(
            client_id="cli", device_url="https://acme.example/d", token_url="https://acme.example/t"
        )

        def _tokens(self, answer: dict[str, Any]) -> dict[str, Any]:
            return {"access_token": answer["access_token"]}

    acme = Acme()
    begun = {"device_code": "secret-9", "user_code": "ABCD", "verification_uri": "https://acme.example/device"}
    http = ScriptedHttp(
        reply(begun), reply({"error": "authorization_pending"}, status=400), reply({"access_token": "a"})
    )
    device = await acme.device_start(http)
    assert await acme.device_poll(http, device) is None
    assert json.loads(await acme.device_poll(http, device)) == {"access_token": "a"}
    assert [sent.url for sent in http.sent] == ["https://acme.example/d", *["https://acme.example/t"] * 2]


def test_the_example_is_short() -> None:
    assert len(files()["aimux_acme.py"].splitlines()) <= 160


def files() -> dict[str, str]:
    """The document's files: a heading with a name, and the first block below it."""
    return dict(re.findall(r"^### `([\w.]+)`\n.*?```\w+\n(.*?)```", DOCUMENT, re.MULTILINE | re.DOTALL))


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=child_environ(cwd),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"{command}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A fresh environment with what the document's command installs, from wheels. Dependencies are this one's."""
    for tool in ("pip", "hatchling"):
        pytest.importorskip(tool, reason=f"building a distribution takes {tool}")
    folder = tmp_path_factory.mktemp("plugin")
    (folder / "aimux").symlink_to(ROOT)
    source = folder / "aimux-acme"
    source.mkdir()
    documented = files()
    for name, content in documented.items():
        (source / name).write_text(content)
    hello = folder / "aimux-hello"
    hello.mkdir()
    (hello / "aimux_hello.py").write_text(documented["aimux_hello.py"])
    (hello / "pyproject.toml").write_text(documented["pyproject.toml"].replace("acme", "hello"))
    offline = ("--quiet", "--disable-pip-version-check", "--no-index", "--no-deps")
    pip = (sys.executable, "-m", "pip")
    projects = shlex.split(re.search(r"^\$ python -m pip install (.+) && python -m pytest$", DOCUMENT, re.MULTILINE)[1])  # type: ignore[index]
    wheels = (*pip, "wheel", *offline, "--no-build-isolation", "--wheel-dir", folder / "wheels")
    run(*wheels, *projects, cwd=source)
    run(*wheels, ".", cwd=hello)
    run(sys.executable, "-m", "venv", "--without-pip", folder / "venv", cwd=folder)
    python = folder / "venv/bin/python"
    run(*pip, "--python", python, "install", *offline, *sorted((folder / "wheels").glob("*.whl")), cwd=folder)
    site = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip()
    (Path(site) / "dependencies.pth").write_text("\n".join(sorted(places_of_dependencies())) + "\n")
    yield folder


def places_of_dependencies() -> set[str]:
    """Where this environment has what aimux needs. Names in a .pth file follow the environment's own on the path."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = [*project["dependencies"], *project["optional-dependencies"]["testing"]]
    names = [re.split(r"[^\w-]", requirement)[0] for requirement in needed]
    found = {str(importlib.metadata.distribution(name).locate_file("")) for name in names}
    return found | {entry for entry in sys.path if Path(entry).name in {"site-packages", "dist-packages"}}


@pytest.mark.slow
def test_the_plugin_is_a_distribution_of_its_own(installed: Path) -> None:
    told = run(installed / "venv/bin/aimux", "providers", cwd=installed)
    line = next(line for line in told.splitlines() if "acme" in line)
    assert "aimux-acme" in line
    assert "1.0.0" in line


@pytest.mark.slow
def test_the_plugin_keeps_the_contract(installed: Path) -> None:
    source = installed / "aimux-acme"
    told = run(installed / "venv/bin/python", "-m", "pytest", "-q", "-p", "no:cacheprovider", source, cwd=installed)
    assert re.search(r"^\d\d+ passed", told, re.MULTILINE), told


class Acme:
    """The made-up vendor's server."""

    def __init__(self) -> None:
        self.requests: list[web.Request] = []

    async def generate(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        if "stream" not in await request.text():
            return web.json_response({"text": "hello", "usage": {"in": 7, "out": 2}}, headers={"acme-account": "ada"})
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for event in (b'{"text": "hello"}', b'{"state": "finished", "usage": {"in": 7, "out": 2}}'):
            await response.write(b"data: " + event + b"\n\n")
        return response


@pytest.fixture
async def acme() -> AsyncIterator[tuple[Acme, str]]:
    server = Acme()
    app = web.Application()
    app.router.add_post("/v1/generate", server.generate)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield server, f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


@contextlib.asynccontextmanager
async def serving(folder: Path, base_url: str) -> AsyncIterator[str]:
    """The real program in the fresh environment; its address."""
    account = folder / "state/acme/credential.json"
    account.parent.mkdir(parents=True, mode=0o700)
    account.touch(mode=0o600)
    account.write_text(f'{{"api_key": "{KEY}"}}')
    (folder / "config.yaml").write_text(
        f"listen: 127.0.0.1:0\nstate_dir: {folder}/state\n"
        f"providers: {{acme: {{base_url: '{base_url}'}}}}\n"
        f'users: [{{name: ada, token: "{TOKEN}"}}]\n'
    )
    process = await asyncio.create_subprocess_exec(
        folder / "venv/bin/aimux",
        "serve",
        "--config",
        folder / "config.yaml",
        env=child_environ(folder),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(30):
            while line := await process.stdout.readline():
                if match := re.search(rb"http://[\d.:]+", line):
                    break
        assert match, "it said where it listens"
        yield match[0].decode()
    finally:
        process.terminate()
        await process.communicate()
    assert process.returncode == 0


@pytest.mark.slow
def test_a_plugin_brings_a_command(installed: Path) -> None:
    program = installed / "venv/bin/aimux"
    assert run(program, "hello", "Ada", cwd=installed) == "Hello, Ada.\n"
    assert "Say hello." in run(program, "--help", cwd=installed)
    assert "aimux hello, /hello" in run(program, "providers", cwd=installed)


@pytest.mark.slow
async def test_the_plugin_serves_through_the_gateway(installed: Path, acme: tuple[Acme, str]) -> None:
    upstream, base_url = acme
    async with serving(installed, base_url) as address, aiohttp.ClientSession() as client:
        url, headers = f"{address}/acme/v1/generate", {"authorization": f"Bearer {TOKEN}"}
        async with client.post(url, json={"prompt": "hi"}, headers=headers) as answer:
            assert (answer.status, await answer.json()) == (200, {"text": "hello", "usage": {"in": 7, "out": 2}})
            assert "acme-account" not in answer.headers
        async with client.post(url, json={"stream": True}, headers=headers) as answer:
            assert (await answer.read()).endswith(b'"usage": {"in": 7, "out": 2}}\n\n')
        async with client.post(url, json={}) as answer:
            assert answer.status == 401
            assert (await answer.json())["code"] == "unauthorized"
        async with client.get(f"{address}/metrics") as answer:
            metrics = await answer.text()
        async with client.get(f"{address}/hello/") as answer:
            assert answer.status == 401, "only administrators get to a plugin's pages"
        key = (installed / "state/admin.key").read_text().strip()
        async with client.get(f"{address}/hello/", headers={"authorization": f"Bearer {key}"}) as answer:
            assert (answer.status, await answer.text()) == (200, "1 accounts, 2 answers\n")
            assert "default-src" in answer.headers["content-security-policy"]
    assert [request.headers["acme-key"] for request in upstream.requests] == [KEY, KEY]
    assert not [request for request in upstream.requests if TOKEN in str(request.headers)]
    assert re.search(r'tokens_total{[^}]*provider="acme"[^}]*} 14\.0', metrics), "both answers were metered"
