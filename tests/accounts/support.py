"""A provider, a token server that rotates strictly, and a clock: what the account tests run on."""

from __future__ import annotations

import asyncio
import json
import stat
from typing import TYPE_CHECKING, Any, ClassVar

from aimux.accounts import Selection
from aimux.plugin import (
    Credential,
    CredentialError,
    HttpAnswer,
    HttpUnavailable,
    LimitWindow,
    Provider,
    ProviderSettings,
    RefreshRejected,
    RefreshUnavailable,
    load_object,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from aimux.accounts import Account, AccountPool
    from aimux.plugin import Http

START = 1_800_000_000.0
HOUR = 3600.0
SOON = START + 100
"""Within `refresh_before_expiry`, and not yet over."""

FILE = "demo.json"


class Clock:
    """Virtual time: it moves when a test says so."""

    def __init__(self, now: float = START) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def pass_(self, seconds: float) -> None:
        self.now += seconds


def credential_file(
    access: str = "access-0",
    refresh: str | None = "refresh-0",
    expires_at: float | None = START + 8 * HOUR,
    **more: Any,
) -> bytes:
    data = {"access": access, "refresh": refresh, "expires_at": expires_at, **more}
    return json.dumps({k: v for k, v in data.items() if v is not None}).encode()


class Demo(Provider):
    """Merges field by field, as providers have to."""

    name: ClassVar[str] = "demo"
    credential_file: ClassVar[str] = FILE
    url = "https://auth.example/token"

    def parse_credential(self, raw: bytes) -> Credential:
        data = load_object(raw)
        if "api_key" in data:
            return Credential(kind="api_key", secret=data["api_key"])
        if not isinstance(data.get("access"), str):
            raise CredentialError("has no access token")
        return Credential(
            kind="oauth",
            secret=data["access"],
            refresh_token=data.get("refresh"),
            expires_at=data.get("expires_at"),
            organization=data.get("organization"),
            account_id=data.get("account"),
            plan=data.get("plan"),
        )

    async def refresh(self, raw: bytes, http: Http) -> bytes:
        data = load_object(raw)
        try:
            answer = await http.request("POST", self.url, json={"refresh_token": data["refresh"]})
        except HttpUnavailable as error:
            raise RefreshUnavailable(str(error)) from None
        if answer.status == 400:
            raise RefreshRejected("the refresh token was refused (invalid_grant)", remedy="log in again")
        if answer.status == 404:
            raise RefreshUnavailable("the token endpoint answered 404", remedy="set providers.demo.token_url")
        if answer.status != 200:
            raise RefreshUnavailable(f"the token endpoint answered {answer.status}")
        return json.dumps(data | answer.json()).encode()


class TokenServer:
    """An `Http` whose token endpoint gives every refresh token a successor and refuses one that was used."""

    def __init__(self, clock: Clock, *, lifetime: float = 8 * HOUR, refresh: str = "refresh-0") -> None:
        self.clock = clock
        self.lifetime = lifetime
        self.valid = {refresh}
        self.calls: list[str] = []
        self.faults: list[int | Exception] = []
        """Answered before anything else: a status, or an exception to raise."""
        self.gate: asyncio.Event | None = None
        """Answers wait for it, after the rotation has happened."""
        self.asked = asyncio.Event()
        self.meanwhile: list[Any] = []
        """Called between rotation and answer: what other programs do at the worst moment."""

    async def request(
        self,
        method: str,
        url: str,
        *,
        json: object = None,
        form: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 30.0,
    ) -> HttpAnswer:
        assert isinstance(json, dict)
        token = json["refresh_token"]
        self.calls.append(token)
        self.asked.set()
        if self.faults:
            fault = self.faults.pop(0)
            if isinstance(fault, Exception):
                raise fault
            return answer_json(fault, {"error": "server_error"})
        if token not in self.valid:
            return answer_json(400, {"error": "invalid_grant"})
        number = len(self.calls)
        self.valid.remove(token)
        self.valid.add(f"refresh-{number}")
        for action in self.meanwhile:
            action()
        self.meanwhile.clear()
        if self.gate is not None:
            await self.gate.wait()
        fresh = {"access": f"access-{number}", "refresh": f"refresh-{number}"}
        return answer_json(200, fresh | {"expires_at": self.clock() + self.lifetime})


def answer_json(status: int, body: dict[str, Any]) -> HttpAnswer:
    return HttpAnswer(status, {"content-type": "application/json"}, json.dumps(body).encode())


def path_of(state_dir: Path, account: str = "default", instance: str = "demo") -> Path:
    return (state_dir / instance if account == "default" else state_dir / instance / account) / FILE


def put(state_dir: Path, raw: bytes, account: str = "default", instance: str = "demo") -> Path:
    """Write a credential file as another program would: in place, 0600."""
    path = path_of(state_dir, account, instance)
    for each in (state_dir, state_dir / instance, path.parent):
        each.mkdir(exist_ok=True, mode=0o700)
    path.touch(mode=0o600)
    path.write_bytes(raw)
    return path


def provider(**settings: Any) -> Demo:
    return Demo(ProviderSettings(**settings))


def on_disk(state_dir: Path, account: str = "default") -> dict[str, Any]:
    data: dict[str, Any] = json.loads(path_of(state_dir, account).read_bytes())
    return data


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def load(pool: AccountPool, name: str = "default") -> Account:
    await pool.load()
    return pool.accounts[name]


async def pool_of(
    make_pool: Callable[..., AccountPool], state_dir: Path, names: str, **settings: object
) -> AccountPool:
    """A pool of accounts with these names, each `name` or `name@organization`."""
    for name in names.split():
        name, _, organization = name.partition("@")
        put(state_dir, credential_file(f"access-{name}", organization=organization or None), name)
    pool = make_pool(**settings)
    await pool.load()
    return pool


def used(account: Account, fraction: float, name: str = "5h", *, now: float = START, lasts: float = HOUR) -> None:
    account.observe([LimitWindow(name, fraction, now + lasts)], now)


def chosen(pool: AccountPool, times: int, selection: Selection | None = None, now: float = START) -> list[str]:
    """The names of the accounts that are chosen one after the other."""
    found = [pool.select(selection or Selection(), now) for _ in range(times)]
    return [account.name if account else "-" for account in found]
