"""The simulator: its parts and accounts on one port, and what tests see of them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Self

from aiohttp import web

from aimux.simulator.accounts import CAPACITY, CLIENT_IDS, DEFAULTS, Account, Kind, Vendor, make_account
from aimux.simulator.anthropic import AnthropicApi
from aimux.simulator.chatgpt import ChatGPTApi
from aimux.simulator.front import Front
from aimux.simulator.index import Index
from aimux.simulator.journal import Journal, Received
from aimux.simulator.oauth_anthropic import AnthropicOAuth
from aimux.simulator.oauth_openai import OpenAIOAuth
from aimux.simulator.openai import OpenAIApi
from aimux.simulator.scenarios import Script
from aimux.simulator.tokens import TokenStore

if TYPE_CHECKING:
    import ssl
    from collections import deque
    from collections.abc import Callable

    from aimux.simulator.front import Api


class Simulator:
    """Fake upstreams and their OAuth servers on one port, for `async with`.

    `scenario`: what every request gets that chooses nothing (see scenarios.py). `capacity`: tokens that an account may
    use in five hours. `keep`: how many requests the journal holds (0 for long runs). `clock`: unix seconds.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        scenario: str | None = None,
        capacity: float = CAPACITY,
        keep: int = 10_000,
        clock: Callable[[], float] = time.time,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.host = host
        self.port = port
        self.script = Script(scenario)
        """For requests whose account's script says nothing."""
        self.accounts: dict[str, Account] = {}
        self.tokens: dict[Vendor, TokenStore] = {"anthropic": TokenStore(clock), "openai": TokenStore(clock)}
        self.oauth_anthropic = AnthropicOAuth(self.tokens["anthropic"], self._of)
        self.oauth_openai = OpenAIOAuth(self.tokens["openai"], self._of)
        self._capacity = capacity
        self._clock = clock
        self._tls = tls
        self._keys: dict[str, Account] = {}
        bases: dict[str, Api] = {
            "oauth/anthropic": self.oauth_anthropic,
            "oauth/openai": self.oauth_openai,
            "anthropic": AnthropicApi(self.tokens["anthropic"], self._keys),
            "openai": OpenAIApi(self.tokens["openai"], self._keys),
            "chatgpt": ChatGPTApi(self.tokens["openai"], self._keys),
        }
        self._journal = Journal(keep)
        self._front = Front(bases | {"": Index(bases)}, self.script, self._journal, clock)
        self._runner: web.ServerRunner | None = None
        for name, vendor, kind in DEFAULTS:
            self.add_account(name, vendor, kind)

    # --- accounts ----------------------------------------------------------------------------------------------------

    def add_account(
        self, name: str, vendor: Vendor, kind: Kind = "oauth", *, plan: str | None = None, organization: str = ""
    ) -> Account:
        """A further account, with a first login or its key. Accounts of one `organization` and kind share limits."""
        account = make_account(
            name, vendor, kind, self._clock(), plan=plan, capacity=self._capacity, organization=organization
        )
        for other in self.accounts.values():
            if organization and other.organization == organization and other.kind == kind:
                account.windows = other.windows
        self.accounts[name] = account
        if account.api_key is not None:
            self._keys[account.api_key] = account
        else:
            self.tokens[vendor].login(account, CLIENT_IDS[vendor])
        return account

    def _of(self, vendor: Vendor) -> list[Account]:
        return [account for account in self.accounts.values() if account.vendor == vendor]

    # --- life cycle --------------------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """The origin, without a trailing slash."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self._tls else 'http'}://{host}:{self.port}"

    @property
    def connections(self) -> list[web.RequestHandler]:
        """Connections that are open."""
        server = self._runner.server if self._runner is not None else None
        return server.connections if server is not None else []

    async def start(self) -> None:
        """Listen. Raises OSError if the address is taken."""
        # Bodies stay as they came, and a client that leaves ends its exchange at once.
        server = web.Server(self._front.serve, handler_cancellation=True, access_log=None, auto_decompress=False)
        self._runner = web.ServerRunner(server, shutdown_timeout=2.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self.host, self.port, ssl_context=self._tls, backlog=1024)
        try:
            await site.start()
        except OSError:
            await self._runner.cleanup()
            raise
        self.port = int(self._runner.addresses[0][1])
        self._front.origin = self.url

    async def close(self) -> None:
        """Stop, and break off what is still held, slow or hanging."""
        self._front.close()
        if self._runner is not None:
            await self._runner.cleanup()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    # --- what was received -------------------------------------------------------------------------------------------

    @property
    def requests(self) -> deque[Received]:
        """Every request in the order in which it was read, OAuth included."""
        return self._journal.requests

    @property
    def open(self) -> int:
        """Exchanges under way."""
        return self._journal.open

    @property
    def aborted(self) -> int:
        """How many exchanges the client left before they were over."""
        return self._journal.aborted

    def count(self, base: str | None = None) -> int:
        """How many requests were read: of one part (`Received.base`), or of all."""
        return self._journal.total if base is None else self._journal.received[base]

    async def wait_for(self, n: int, base: str | None = None) -> None:
        """Wait until `n` requests were read since the start."""
        await self._journal.wait(lambda: self.count(base) >= n)

    async def wait_for_aborted(self, n: int = 1) -> None:
        """Wait until clients have left `n` exchanges since the start."""
        await self._journal.wait(lambda: self._journal.aborted >= n)

    async def wait_for_held(self, n: int = 1) -> None:
        """Wait until `n` answers are held by the scenario `hold` at once."""
        await self._journal.wait(lambda: self._journal.held >= n)

    async def wait_idle(self) -> None:
        """Wait until no exchange is under way."""
        await self._journal.wait(lambda: self._journal.open == 0)

    def release(self) -> None:
        """Let every held answer go on."""
        self._front.release()
