"""The three ways into one aimux: TCP, TLS whose certificate the client knows, and a unix socket."""

from __future__ import annotations

import asyncio
import importlib
import ssl
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import aiohttp
import anthropic
import openai
import pytest
import pytest_asyncio

from aimux.simulator import Simulator
from tests.e2e.process import TOKEN, Aimux, config_of, put_account, serving


@dataclass
class Endpoint:
    """`url` is what a client is told; `context` and `socket` are how it gets there."""

    sim: Simulator
    aimux: Aimux
    url: str
    context: ssl.SSLContext | None = None
    fingerprint: bytes = b""
    certificate: str | None = None
    socket: str | None = None

    def transport(self, module: ModuleType) -> Any:
        """For a client of `httpx`, or of its successor."""
        return module.AsyncHTTPTransport(verify=self.context or True, uds=self.socket)

    def connector(self) -> aiohttp.BaseConnector:
        """aiohttp knows the certificate by its fingerprint, the others by the file."""
        if self.socket is not None:
            return aiohttp.UnixConnector(self.socket)
        return aiohttp.TCPConnector(ssl=aiohttp.Fingerprint(self.fingerprint) if self.fingerprint else True)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection of bytes."""
        if self.socket is not None:
            return await asyncio.open_unix_connection(self.socket)
        port = int(self.url.rpartition(":")[2])
        return await asyncio.open_connection("127.0.0.1", port, ssl=self.context)

    def anthropic(self, **options: Any) -> anthropic.AsyncAnthropic:
        client = anthropic.DefaultAsyncHttpxClient
        http = client(transport=self.transport(_library(client)))
        return anthropic.AsyncAnthropic(
            **{"base_url": f"{self.url}/claude", "auth_token": TOKEN, "http_client": http, "max_retries": 0, **options}
        )

    def openai(self, **options: Any) -> openai.AsyncOpenAI:
        client = openai.DefaultAsyncHttpxClient
        http = client(transport=self.transport(_library(client)))
        return openai.AsyncOpenAI(
            **{"base_url": f"{self.url}/chatgpt/v1", "api_key": TOKEN, "http_client": http, "max_retries": 0, **options}
        )


def _library(client: type) -> ModuleType:
    """The SDKs' newest major has moved from httpx to another package with the same classes."""
    base = next(cls for cls in client.__mro__ if cls.__name__ == "AsyncClient")
    return importlib.import_module(base.__module__.partition(".")[0])


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["tcp", "tls", "unix"])
async def endpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Endpoint]:
    """Accounts: a Claude login, and an OpenAI key, which serves the SDKs' calls that a ChatGPT login does not."""
    folder = tmp_path_factory.mktemp(request.param)
    async with Simulator() as sim:
        put_account(folder / "state", sim.accounts["claude"])
        put_account(folder / "state", sim.accounts["openai-key"])
        settings: dict[str, Any] = {"tls": {"enabled": True, "self_signed": True}} if request.param == "tls" else {}
        with tempfile.TemporaryDirectory() as short:
            if request.param == "unix":
                settings["listen"] = f"unix:{short}/aimux.sock"
            async with serving(folder, config_of(sim, folder, **settings)) as aimux:
                if request.param == "unix":
                    yield Endpoint(sim, aimux, "http://localhost", socket=f"{short}/aimux.sock")
                elif request.param == "tls":
                    certificate = str(folder / "state" / "tls" / "cert.pem")
                    context = ssl.create_default_context(cafile=certificate)
                    printed = next(line for line in aimux.stdout if "SHA-256" in line).split()[-1]
                    fingerprint = bytes.fromhex(printed.replace(":", ""))
                    yield Endpoint(sim, aimux, aimux.address, context, fingerprint, certificate)
                else:
                    yield Endpoint(sim, aimux, aimux.address)


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder for sockets: their paths may have 107 bytes, and pytest's are longer."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    async with Simulator() as simulator:
        yield simulator


@pytest.fixture
def folder(tmp_path: Path, sim: Simulator) -> Path:
    """A state folder with a login of each provider."""
    for name in ("claude", "chatgpt"):
        put_account(tmp_path / "state", sim.accounts[name])
    return tmp_path
