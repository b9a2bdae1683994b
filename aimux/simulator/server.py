"""The simulator as one HTTP server: which part answers, who is asking, what is scripted, and what is written down."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Protocol, Self

from aiohttp import web

from aimux.simulator.accounts import CAPACITY, CLIENT_IDS, DEFAULTS, Account, Kind, Vendor, make_account
from aimux.simulator.answers import Answer, Call, json_answer
from aimux.simulator.anthropic import AnthropicApi
from aimux.simulator.chatgpt import ChatGPTApi
from aimux.simulator.index import Index
from aimux.simulator.journal import Journal, Received
from aimux.simulator.oauth import OAuthServer
from aimux.simulator.oauth_anthropic import AnthropicOAuth
from aimux.simulator.oauth_openai import OpenAIOAuth
from aimux.simulator.openai import OpenAIApi
from aimux.simulator.scenarios import HEADER, OK, Script, UnknownScenario, choose
from aimux.simulator.tokens import TokenStore
from aimux.simulator.wire import Broken, Sent, Wire

if TYPE_CHECKING:
    import ssl
    from collections import deque
    from collections.abc import Callable


class Api(Protocol):
    """One part of the simulator. It sees calls and gives answers; the server does the I/O."""

    def authenticate(self, call: Call) -> Answer | None: ...

    def fault(self, call: Call, status: int) -> Answer: ...

    def respond(self, call: Call) -> Answer: ...


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
        self._bases: dict[str, Api] = {
            "oauth/anthropic": self.oauth_anthropic,
            "oauth/openai": self.oauth_openai,
            "anthropic": AnthropicApi(self.tokens["anthropic"], self._keys),
            "openai": OpenAIApi(self.tokens["openai"], self._keys),
            "chatgpt": ChatGPTApi(self.tokens["openai"], self._keys),
        }
        self._bases[""] = Index(self._bases)
        self._journal = Journal(keep)
        self._numbers = 0
        self._closing = asyncio.Event()
        self._gate = asyncio.Event()
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

    async def start(self) -> None:
        """Listen. Raises OSError where the address is taken."""
        # Bodies stay as they came, and a client that leaves ends its exchange at once.
        server = web.Server(self._serve, handler_cancellation=True, access_log=None, auto_decompress=False)
        self._runner = web.ServerRunner(server, shutdown_timeout=2.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self.host, self.port, ssl_context=self._tls, backlog=1024)
        try:
            await site.start()
        except OSError:
            await self._runner.cleanup()
            raise
        self.port = int(self._runner.addresses[0][1])

    async def close(self) -> None:
        """Stop; what is still held, slow or hanging is broken off."""
        self._closing.set()
        self.release()
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
        """Until `n` requests were read since the start."""
        await self._journal.wait(lambda: self.count(base) >= n)

    async def wait_for_aborted(self, n: int = 1) -> None:
        """Until clients have left `n` exchanges since the start."""
        await self._journal.wait(lambda: self._journal.aborted >= n)

    async def wait_for_held(self, n: int = 1) -> None:
        """Until `n` answers are held by the scenario `hold` at once."""
        await self._journal.wait(lambda: self._journal.held >= n)

    async def wait_idle(self) -> None:
        """Until no exchange is under way."""
        await self._journal.wait(lambda: self._journal.open == 0)

    def release(self) -> None:
        """Let every held answer go on."""
        gate, self._gate = self._gate, asyncio.Event()
        gate.set()

    # --- one exchange ------------------------------------------------------------------------------------------------

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        self._numbers += 1
        peer = request.transport.get_extra_info("peername") if request.transport else None
        received = Received(
            self._numbers, peer[1] if peer else 0, request.method, request.raw_path, tuple(request.raw_headers)
        )
        self._journal.open += 1
        aborted = False
        try:
            keep = await self._exchange(request, received)
        except Broken:
            keep = False
        except ConnectionError:
            keep, aborted = False, not self._closing.is_set()
        except asyncio.CancelledError:
            aborted = not self._closing.is_set()
            raise
        finally:
            self._journal.leave(received, aborted=aborted)
        return Sent(received.status or 500, keep=keep)

    async def _exchange(self, request: web.BaseRequest, received: Received) -> bool:
        path, _, query = received.target.partition("?")
        base = received.base = next((base for base in self._bases if base and f"{path}/".startswith(f"/{base}/")), "")
        below = path.removeprefix(f"/{base}") if base else path
        call = Call(request.method, below, query, request.headers, self.url, received.number, self._clock(), OK)
        api = self._bases[base]
        answer = api.authenticate(call)
        received.account = call.account.name if call.account else None
        if isinstance(api, OAuthServer):
            await self._read(request, received, call)  # its body says whom it is about
        try:
            call.scenario = choose(request.headers.get(HEADER), *self._scripts(api, call, refused=answer is not None))
        except UnknownScenario as error:
            answer = json_answer(400, {"error": {"type": "simulator", "message": str(error)}})
        if not isinstance(api, OAuthServer):
            await self._read(request, received, call)
        if answer is None:
            answer = self._answer(api, call)
        received.account = call.account.name if call.account else None
        if call.account is not None:
            call.account.requests += 1
        received.status, received.usage = answer.status, answer.usage
        wire = Wire(request, call.scenario, self._pause, self._hold, self._forever)
        return await wire.send(answer)

    def _scripts(self, api: Api, call: Call, *, refused: bool) -> list[Script]:
        if isinstance(api, OAuthServer):
            if not call.path.endswith("/token"):
                return []
            own = api.script_of(call)
            return [api.script] if own is None else [own, api.script]
        return [] if refused or call.account is None else [call.account.script, self.script]

    def _answer(self, api: Api, call: Call) -> Answer:
        scenario = call.scenario
        if scenario.hang or scenario.raw is not None or scenario.ending in {"drop", "drop-rst"}:
            return Answer(500)  # it will not be sent, and nothing is to have happened
        if scenario.status is None:
            return api.respond(call)
        if scenario.status in {204, 304}:
            return Answer(scenario.status)
        if scenario.status < 400:
            return Answer(scenario.status, [("location", f"{self.url}/elsewhere")])
        return api.fault(call, scenario.status)

    async def _read(self, request: web.BaseRequest, received: Received, call: Call) -> None:
        parts: list[bytes] = []
        try:
            if not call.scenario.early:
                if request.headers.get("expect", "").lower() == "100-continue" and request.transport is not None:
                    request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                while data := await request.content.readany():
                    parts.append(data)
        finally:
            received.body = call.body = b"".join(parts)
            self._journal.arrive(received)

    # --- waiting, as the scenarios want it; closing ends it ----------------------------------------------------------

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._closing.wait(), seconds)
        except TimeoutError:
            return
        raise Broken

    async def _forever(self) -> None:
        await self._closing.wait()
        raise Broken

    async def _hold(self) -> None:
        self._journal.held += 1
        self._journal.changed()
        try:
            await self._gate.wait()
        finally:
            self._journal.held -= 1
        if self._closing.is_set():
            raise Broken
