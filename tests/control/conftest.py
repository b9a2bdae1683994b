"""A whole aimux with both providers in front of the simulator, and a client of its admin API."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from yarl import URL

from aimux.app import App
from aimux.config import parse_config
from aimux.plugin.loader import load_plugins
from aimux.simulator import Simulator, demo_files
from tests.blocking import _nothing_blocks_the_loop  # noqa: F401 - a fixture
from tests.control.conformance import conforms
from tests.inprocess import serving

PLUGINS = load_plugins()
FILES = {"claude": ".credentials.json", "chatgpt": "auth.json"}
MESSAGE = {"model": "claude-sonnet-5", "max_tokens": 10, "messages": [{"role": "user", "content": "Hello"}]}


def put(state_dir: Path, provider: str, raw: bytes, account: str = "default") -> Path:
    """A credential file in the state folder, as its owner would leave it."""
    folder = state_dir / provider if account == "default" else state_dir / provider / account
    for place in (state_dir, state_dir / provider, folder):
        place.mkdir(exist_ok=True, mode=0o700)
    path = folder / FILES[provider]
    path.touch(mode=0o600)
    path.write_bytes(raw)
    return path


class Aimux:
    """The running app. `key` is what the client shows; every answer is kept in `answers`."""

    def __init__(self, app: App, session: aiohttp.ClientSession, key: str, log: Path) -> None:
        self.app = app
        self.key = key
        self.url = app.addresses[0]
        self.state_dir = app.config.state_dir
        self.answers: list[str] = []
        self._session = session
        self._log = log

    @property
    def log(self) -> str:
        return self._log.read_text()

    async def send(self, method: str, path: str, **options: Any) -> tuple[int, Any, Any]:
        """Status, headers and body (parsed where it is JSON); `path` is below `/api/v1`."""
        headers = {"authorization": f"Bearer {self.key}"} | options.pop("headers", {})
        # The address as it stands: no client may tidy it.
        url = URL(f"{self.url}/api/v1{path}", encoded=True)
        async with self._session.request(method, url, headers=headers, allow_redirects=False, **options) as answer:
            text = await answer.text()
            self.answers.append(text)
            body = await answer.json(content_type=None) if "json" in answer.content_type else text
            if path != "/openapi.json" and method != "HEAD":  # which has no body to look at
                conforms(method, path, answer.status, answer.content_type, body)
            return answer.status, answer.headers, body

    async def get(self, path: str) -> Any:
        status, _, body = await self.send("GET", path)
        assert status == 200, body
        return body

    async def post(self, path: str, body: object = None, *, expect: int = 200) -> Any:
        status, _, answer = await self.send("POST", path, json=body)
        assert status == expect, answer
        return answer

    async def pages(self, path: str) -> list[Any]:
        """Each page of a list, from the first to the last; `path` has a query."""
        pages = [await self.get(path)]
        while (after := pages[-1]["next"]) is not None:
            pages.append(await self.get(f"{path}&after={after}"))
        return pages

    async def accounts(self, query: str = "") -> list[str]:
        """Their full names, as `GET /accounts` gives them."""
        return [f"{one['provider']}/{one['name']}" for one in (await self.get(f"/accounts{query}"))["items"]]

    async def message(self, **headers: str) -> tuple[int, Any]:
        """A client's request for Claude: status and headers."""
        url = f"{self.url}/claude/v1/messages"
        async with self._session.post(url, json=MESSAGE, headers={"anthropic-version": "2023-06-01", **headers}) as got:
            await got.read()
            return got.status, got.headers


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    async with Simulator() as simulator:
        simulator.oauth_openai.device_interval = 1
        yield simulator


Start = Callable[..., Awaitable[Aimux]]


@pytest.fixture
async def start(tmp_path: Path, sim: Simulator) -> AsyncIterator[Start]:
    """Starts an aimux; arguments are the configuration's. The account `default` of each provider is there already."""
    state_dir = tmp_path / "state"
    for provider, raw in demo_files(sim).credentials.items():
        put(state_dir, provider, raw)
    async with contextlib.AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession())

        async def run(*, providers: dict[str, dict[str, Any]] | None = None, **settings: Any) -> Aimux:
            given = {name: dict(values) for name, values in demo_files(sim).settings.items()}
            for name, more in (providers or {}).items():
                given[name] = given.get(name, {}) | more
            config = {"listen": "127.0.0.1:0", "state_dir": str(state_dir), "providers": given, **settings}
            log = tmp_path / "log"
            load = partial(parse_config, config, environ={}, providers=PLUGINS.providers)
            app = await stack.enter_async_context(serving(load, PLUGINS, log))
            key = app.made_key or (state_dir / "admin.key").read_text().strip() if "admin" not in settings else ""
            return Aimux(app, session, key, log)

        yield run


@pytest.fixture
async def aimux(start: Start) -> Aimux:
    return await start()
