"""What aimux itself says no to, as the person in front of the client sees it, and how often it is asked again."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator

import aiohttp
import pytest
import pytest_asyncio

from aimux.gateway.guesses import FREE
from aimux.simulator import Simulator
from tests.clients.programs import claude_code, codex
from tests.clients.world import Seat, Trap, World, token_of
from tests.e2e.process import config_of, put_account, serving


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def seat(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Seat]:
    """Of an aimux with a limit of one megabyte, and with upstreams where nobody listens."""
    folder = tmp_path_factory.mktemp("refusing")
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        async with Simulator() as sim, Trap().listening() as trap:
            config = config_of(sim, folder, max_body_size="1MiB")
            config["users"] = [{"name": "seat0", "token": token_of("seat0")}]
            for provider, settings in config["providers"].items():
                settings["base_url"] = nowhere
                put_account(folder / "state", sim.accounts[provider])
            async with serving(folder, config) as aimux:
                yield World(sim, aimux, trap, folder).seat()


async def test_an_unknown_token(seat: Seat) -> None:
    before = len(seat.world.aimux.requests)
    ran = await claude_code(seat, token="wrong-wrong-wrong-wrong")
    assert (ran.code, seat.statuses(before)) == (1, ["401"])
    assert "This token is not known to aimux" in ran.out
    before = len(seat.world.aimux.requests)
    ran = await codex(seat, auth='experimental_bearer_token = "wrong-wrong-wrong-wrong"')
    assert (ran.code, seat.statuses(before)) == (1, ["401"] * 2), "it reconnects whatever it is told"
    assert "This token is not known to aimux" in ran.err


async def test_an_account_that_is_not_for_them_to_choose(seat: Seat) -> None:
    before = len(seat.world.aimux.requests)
    ran = await claude_code(seat, environ={"ANTHROPIC_CUSTOM_HEADERS": "x-aimux-account: default"})
    assert (ran.code, seat.statuses(before)) == (1, ["403"])
    assert "You may not choose the account" in ran.out
    before = len(seat.world.aimux.requests)
    ran = await codex(seat, entry='http_headers = { "x-aimux-account" = "default" }')
    assert (ran.code, seat.statuses(before)) == (1, ["403"] * 2), "it reconnects here too"
    assert "You may not choose the account" in ran.err


async def test_a_prompt_that_is_too_large(seat: Seat) -> None:
    before = len(seat.world.aimux.requests)
    ran = await claude_code(seat, "summarize", stdin=b"word " * 400_000)
    assert (ran.code, seat.statuses(before)) == (1, ["413"])
    before = len(seat.world.aimux.requests)
    ran = await codex(seat, "-", stdin="字".encode() * 1_000_000)
    assert ran.code == 1
    assert set(seat.statuses(before)) == {"413"}
    assert "max_body_size" in ran.err


async def test_an_upstream_that_cannot_be_reached(seat: Seat) -> None:
    before = len(seat.world.aimux.requests)
    ran = await claude_code(seat)
    assert (ran.code, seat.statuses(before)) == (1, ["502"] * 3), "that may get better"
    assert "claude can't be reached" in ran.out
    before = len(seat.world.aimux.requests)
    ran = await codex(seat)
    assert (ran.code, seat.statuses(before)) == (1, ["502"] * 4)


async def test_behind_many_guesses(seat: Seat) -> None:
    """Last, for they slow this address down for a while: a client hears what is wrong, and one that is right passes."""
    async with aiohttp.ClientSession() as session:
        for number in range(FREE + 1):
            key = {"x-api-key": f"wrong-wrong-wrong-wrong-{number}"}
            async with session.get(f"{seat.world.aimux.claude}/v1/models", headers=key):
                pass
    before = len(seat.world.aimux.requests)
    ran = await claude_code(seat, token="wrong-wrong-wrong-wrong")
    assert (ran.code, seat.statuses(before)) == (1, ["401"])
    before = len(seat.world.aimux.requests)
    assert (await claude_code(seat)).code == 1
    assert seat.statuses(before) == ["502"] * 3
