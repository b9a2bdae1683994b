"""The certificate that aimux makes for itself, as each client can be told to trust it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from aimux.simulator import Simulator
from tests.clients.programs import claude_code, codex
from tests.clients.test_sdks import KEYS, SCRIPTS
from tests.clients.world import Seat, Trap, World, client, run, token_of
from tests.e2e.process import config_of, put_account, serving

SAID = "You said: “say hi”"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def seat(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Seat]:
    folder = tmp_path_factory.mktemp("tls")
    async with Simulator() as sim, Trap().listening() as trap:
        config = config_of(sim, folder, tls={"enabled": True, "self_signed": True})
        config["users"] = [{"name": "seat0", "token": token_of("seat0")}]
        for name in ("claude", "chatgpt"):
            put_account(folder / "state", sim.accounts[name])
        async with serving(folder, config) as aimux:
            yield World(sim, aimux, trap, folder).seat()


@pytest.fixture
def certificate(seat: Seat) -> str:
    return str(seat.world.folder / "state" / "tls" / "cert.pem")


async def test_claude_code(seat: Seat, certificate: str) -> None:
    ran = await claude_code(seat, environ={"NODE_EXTRA_CA_CERTS": certificate})
    assert (ran.code, SAID in ran.out) == (0, True), ran.said
    ran = await claude_code(seat)
    assert (ran.code, "certificate" in ran.out) == (1, True), "and without it it does not"


@pytest.mark.parametrize("websockets", [False, True], ids=["post", "websocket"])
async def test_codex(seat: Seat, certificate: str, websockets: bool) -> None:
    ran = await codex(seat, websockets=websockets, environ={"SSL_CERT_FILE": certificate})
    assert (ran.code, SAID in ran.out) == (0, True), ran.said


@pytest.mark.parametrize("runtime", ["python", "node"])
async def test_the_sdks(seat: Seat, certificate: str, runtime: str) -> None:
    environ = {"BASE": seat.world.aimux.claude, "TOKEN": seat.token, "VENDOR_KEY": KEYS["anthropic"]}
    if runtime == "node":
        script = (SCRIPTS / "sdk_anthropic.mjs").read_bytes()
        command, environ["NODE_EXTRA_CA_CERTS"] = ["node", "--input-type=module", "-", "hello"], certificate
        ran = await run(command, client("node-sdks"), stdin=script, environ=environ)
    else:
        environ["SSL_CERT_FILE"] = certificate
        command = [str(client("python-sdks", "bin", "python")), str(SCRIPTS / "sdk_anthropic.py"), "hello"]
        ran = await run(command, seat.home, environ=environ)
    assert SAID in json.loads(ran.out)["hello"]
