"""The fixtures `world` and `seat`: see world.py."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from aimux.simulator import Simulator
from aimux.simulator.accounts import Kind, Vendor
from tests.clients.world import KEY_SEATS, SEATS, Seat, Trap, World, token_of
from tests.e2e.process import config_of, put_account, serving


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """They all share one loop, in which the simulator lives and the programs' output is read."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.clients)
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    folder = tmp_path_factory.mktemp("clients")
    async with Simulator() as sim, Trap().listening() as trap:
        config = config_of(sim, folder)
        config["users"] = []
        vendors: dict[str, Vendor] = {"claude": "anthropic", "chatgpt": "openai"}
        kinds: dict[str, Kind] = {**dict.fromkeys(SEATS, "oauth"), **dict.fromkeys(KEY_SEATS, "api_key")}
        for name, kind in kinds.items():
            config["users"].append({"name": name, "token": token_of(name), "groups": [name]})
            for provider, vendor in vendors.items():
                account = sim.add_account(f"{name}-{vendor}", vendor, kind if vendor == "openai" else "oauth")
                put_account(folder / "state", account, name)
                config["providers"][provider].setdefault("accounts", {})[name] = {"groups": [name]}
        async with serving(folder, config) as aimux:
            yield World(sim, aimux, trap, folder)
    assert "Traceback" not in aimux.output


@pytest.fixture
def seat(world: World, request: pytest.FixtureRequest) -> Seat:
    """Its parameter, where it has one, is the version of Claude Code."""
    seat = world.seat()
    seat.claude = getattr(request, "param", seat.claude)
    return seat
