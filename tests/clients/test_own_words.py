"""What people read where aimux can't serve them, or a base URL is wrong: their client says it, and stops at once."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from aimux.simulator import Simulator
from tests.clients.programs import claude_code, codex
from tests.clients.world import Ran, Seat, Trap, World, token_of
from tests.e2e.process import config_of, put_account, serving

LIMITED: dict[str, Any] = {"cooldowns": {"": {"until": 0.0, "since": 0.0, "reason": "a window is full"}}}
PARKED: dict[str, Any] = {"disabled": True}
FULL: dict[str, Any] = {"limits": [{"name": "5h", "used": 1.0, "resets_at": 0.0, "status": "warning"}]}


@asynccontextmanager
async def seated(folder: Path, state: dict[str, Any], *, reached: bool = False, **limits: Any) -> AsyncIterator[Seat]:
    """At an aimux with these limits whose accounts are in this state. Nobody reaches its upstreams, else `reached`."""
    now = time.time()
    for window in state.get("limits", []):
        window.update(resets_at=now + 7260)
    for cooldown in state.get("cooldowns", {}).values():
        cooldown.update(until=now + 7260, since=now - 5)
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        async with Simulator() as sim, Trap().listening() as trap:
            config = config_of(sim, folder)
            config["users"] = [{"name": "seat0", "token": token_of("seat0")}]
            config["limits"] = {"default": limits}
            for provider, settings in config["providers"].items():
                if not reached:
                    settings["base_url"] = nowhere
                put_account(folder / "state", sim.accounts[provider])
            saved = {provider: {"default": state} for provider in config["providers"]}
            file = folder / "state" / "accounts.json"
            file.write_text(json.dumps({"version": 1, "accounts": saved}))
            file.chmod(0o600)
            async with serving(folder, config) as aimux:
                yield World(sim, aimux, trap, folder).seat()


def show(ran: Ran, who: str) -> str:
    said = (ran.out + ran.err).strip()
    print(f"\n--- {who} ({ran.code}):\n{said[-900:]}")  # noqa: T201 - `pytest -s` shows what people read
    return said


@pytest.mark.parametrize(
    ("state", "status", "claude_says", "codex_says"),
    [
        (LIMITED, "429", "Every claude account that you may use has reached its limit", "Try again at"),
        (PARKED, "503", "is out of service", "is out of service"),
    ],
    ids=["exhausted", "out of service"],
)
async def test_nobody_can_serve(
    tmp_path: Path, state: dict[str, Any], status: str, claude_says: str, codex_says: str
) -> None:
    async with seated(tmp_path, state) as seat:
        before = len(seat.world.aimux.requests)
        ran = await claude_code(seat)
        assert claude_says in show(ran, "Claude Code")
        assert (ran.code, seat.statuses(before)) == (1, [status])
        before = len(seat.world.aimux.requests)
        ran = await codex(seat, patient=True)
        assert codex_says in show(ran, "Codex")
        assert ran.code == 1
        assert len(seat.statuses(before)) == 1


async def test_a_wrong_base_url(tmp_path: Path) -> None:
    async with seated(tmp_path, {}) as seat:
        address = seat.world.aimux.address
        for base in (address, f"{address}/chatgpt"):
            before = len(seat.world.aimux.requests)
            ran = await claude_code(seat, base=base)
            assert f"ANTHROPIC_BASE_URL (or the SDK's base_url) to {address}/claude" in show(
                ran, f"Claude Code at {base}"
            )
            assert ran.code == 1
            assert set(seat.statuses(before)) <= {"400"}
        for base in (f"{address}/v1", f"{address}/claude/v1"):
            ran = await codex(seat, base=base, patient=True)
            assert f"to {address}/chatgpt/v1" in show(ran, f"Codex at {base}")
            assert ran.code == 1


async def test_paid_extra_usage_is_forbidden(tmp_path: Path) -> None:
    async with seated(tmp_path, FULL, overage="forbid") as seat:
        before = len(seat.world.aimux.requests)
        ran = await claude_code(seat)
        assert "you may not go on with paid extra usage" in show(ran, "Claude Code")
        assert (ran.code, seat.statuses(before)) == (1, ["429"])
        before = len(seat.world.aimux.requests)
        ran = await codex(seat, patient=True)
        assert "hit your usage limit. Try again at" in show(ran, "Codex")  # its own words for each 429 of this kind
        assert (ran.code, len(seat.statuses(before))) == (1, 1)


async def test_long_context_is_forbidden(tmp_path: Path) -> None:
    long = b"many words of a long file " * 40_000
    async with seated(tmp_path, {}, long_context="forbid") as seat:
        before = len(seat.world.aimux.requests)
        ran = await claude_code(seat, stdin=long)
        assert "rompt is too long" in show(ran, "Claude Code")
        assert ran.code == 1
        assert set(seat.statuses(before)) == {"400"}


@pytest.mark.parametrize("websockets", [False, True], ids=["events", "websocket"])
async def test_codex_knows_a_long_context_that_is_forbidden(tmp_path: Path, websockets: bool) -> None:
    """By its own words for it: behind them it makes the conversation shorter."""
    long = b"many words of a long file " * 40_000  # it takes no more
    async with seated(tmp_path, {}, reached=True, long_context="forbid") as seat:
        ran = await codex(seat, "-", stdin=long, websockets=websockets, patient=True)
        assert "ran out of room in the model's context window" in show(ran, "Codex")
        assert ran.code == 1
        lines = [(line["method"], line["error"]) for line in seat.world.aimux.requests]
        assert ("TURN" if websockets else "POST", "long_context_forbidden") in lines
        assert len([error for _, error in lines if error == "long_context_forbidden"]) == 1


async def test_codex_asks_again_on_a_socket_for_what_is_free_in_seconds(tmp_path: Path) -> None:
    """A 429 there would have it stop at once, and say no more than the number."""
    async with seated(tmp_path, {}, reached=True, concurrent_requests=1) as seat, aiohttp.ClientSession() as http:
        headers = {"x-api-key": seat.token, "anthropic-version": "2023-06-01", "x-simulator": "hold"}
        body = {"model": "claude-sonnet-5", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
        async with http.post(f"{seat.world.aimux.claude}/v1/messages", json=body | {"stream": True}, headers=headers):
            ran = await codex(seat, websockets=True)
        assert "You have 1 request open, and may have 1 at once" in show(ran, "Codex")
        assert [line["error"] for line in seat.turns].count("rate_limited") >= 3  # the warm-up's is one


async def test_over_http_it_shows_for_what_it_has_asked_in_vain(tmp_path: Path) -> None:
    """Of a 429 it shows the number alone."""
    async with seated(tmp_path, {}, reached=True, concurrent_requests=0) as seat:
        said = show(await codex(seat), "Codex")
        assert "You have 0 requests open, and may have 0 at once" in said
        assert "last status" not in said
        aimux = seat.world.aimux
        await aimux.until(lambda: [line["error"] for line in aimux.requests].count("rate_limited") == 2)
