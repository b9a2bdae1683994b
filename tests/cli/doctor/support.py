"""A provider for the doctor to look at, its logins and its servers."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any, ClassVar

from aiohttp import web

from aimux.cli.doctor.finding import Finding
from aimux.config import parse_config
from aimux.plugin import Credential, HttpUrl, Provider, ProviderSettings, load_object
from aimux.plugin.loader import Plugin, Plugins

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from aimux.config import Config

SECRET = "sk-fake-0123456789abcdef"


class FakeSettings(ProviderSettings):
    base_url: HttpUrl = "https://upstream.invalid"
    token_url: HttpUrl = "https://upstream.invalid/token"
    authorize_url: HttpUrl = "https://people.invalid"


class FakeProvider(Provider):
    """Its credential files hold a Credential's fields."""

    name = "fake"
    Settings: ClassVar[type[ProviderSettings]] = FakeSettings

    def parse_credential(self, raw: bytes) -> Credential:
        return Credential(**load_object(raw))


PLUGINS = Plugins([Plugin("fake", "fake", "1", ["fake"])], {"fake": FakeProvider})


def config_of(state_dir: Path, **fields: Any) -> Config:
    document = {"state_dir": str(state_dir), "providers": ["fake"], "listen": "127.0.0.1:0"} | fields
    return parse_config(document, environ={}, providers=PLUGINS.providers)


def login(state_dir: Path, account: str = "default", *, mode: int = 0o600, **fields: Any) -> Path:
    folder = state_dir / "fake" if account == "default" else state_dir / "fake" / account
    for one in (state_dir / "fake", folder):
        one.mkdir(mode=0o700, exist_ok=True)
    file = folder / FakeProvider.credential_file
    file.write_text(json.dumps({"kind": "oauth", "secret": SECRET} | fields))
    file.chmod(mode)
    return file


@contextlib.asynccontextmanager
async def answering(handler: Callable[[web.BaseRequest], Awaitable[web.Response]]) -> AsyncIterator[str]:
    """An HTTP server; yields its origin."""
    runner = web.ServerRunner(web.Server(handler))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def not_found(request: web.BaseRequest) -> web.Response:
    return web.Response(status=404)


def by_subject(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.subject: finding for finding in findings}
