"""The process: how it starts, takes a new configuration, and ends; and what it says where something is wrong."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from aimux.simulator import Simulator
from tests.e2e.process import TOKEN, Aimux, Process, config_of, put_account, serving, write_config

MESSAGE = {"model": "claude-sonnet-5", "max_tokens": 100, "messages": [{"role": "user", "content": "Hello!"}]}
BOB = {"name": "bob", "token": "bob-token-0123456789abcdef"}


def headers(token: str = TOKEN, simulator: str = "ok") -> dict[str, str]:
    return {"authorization": f"Bearer {token}", "anthropic-version": "2023-06-01", "x-simulator": simulator}


def post(session: aiohttp.ClientSession, aimux: Aimux, *, stream: bool = False, **fields: str) -> Any:
    """One message. `fields` are those of `headers`."""
    body = MESSAGE | {"stream": stream}
    return session.post(f"{aimux.claude}/v1/messages", json=body, headers=headers(**fields))


async def status(session: aiohttp.ClientSession, aimux: Aimux, **fields: str) -> int:
    """Of one message that is read to its end."""
    async with post(session, aimux, **fields) as answer:
        await answer.read()
        return int(answer.status)


async def test_sigterm_lets_open_streams_end_and_takes_nothing_new(sim: Simulator, folder: Path) -> None:
    async with serving(folder, config_of(sim, folder)) as aimux, aiohttp.ClientSession() as session:
        streamed = await post(session, aimux, stream=True, simulator="hold:3")
        await sim.wait_for_held()
        aimux.process.send_signal(signal.SIGTERM)
        await refused(aimux)
        sim.release()
        assert (await streamed.read()).endswith(b'data: {"type":"message_stop"}\n\n')
        assert await aimux.end() == 0
        assert aimux.requests[-1]["error"] == "-"


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
async def test_a_stream_that_does_not_end_is_cut_after_the_drain_timeout(
    sim: Simulator, folder: Path, sig: signal.Signals
) -> None:
    async with (
        serving(folder, config_of(sim, folder, drain_timeout="200ms")) as aimux,
        aiohttp.ClientSession() as session,
    ):
        streamed = await post(session, aimux, stream=True, simulator="stall:3")
        aimux.process.send_signal(sig)
        with pytest.raises(aiohttp.ClientPayloadError):
            await streamed.read()
        assert await aimux.end() == 0
    assert aimux.requests[-1]["error"] == "shutdown"
    assert "Traceback" not in aimux.output


async def test_a_second_signal_ends_at_once(sim: Simulator, folder: Path) -> None:
    async with serving(folder, config_of(sim, folder)) as aimux, aiohttp.ClientSession() as session:
        await post(session, aimux, stream=True, simulator="stall:3")
        aimux.process.send_signal(signal.SIGINT)
        await refused(aimux)
        aimux.process.send_signal(signal.SIGINT)
        assert await aimux.end() == 1
    assert "ending at once" in aimux.output


async def refused(aimux: Aimux) -> None:
    """Until nothing listens at its address any more."""
    port = int(aimux.address.rpartition(":")[2])
    async with asyncio.timeout(20):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionError:
                return
            writer.close()
            await asyncio.wait([asyncio.create_task(writer.wait_closed())])


async def test_sighup_takes_what_is_new_and_refuses_what_is_wrong(sim: Simulator, folder: Path) -> None:
    config = config_of(sim, folder)
    async with serving(folder, config) as aimux, aiohttp.ClientSession() as session:
        streamed = await post(session, aimux, stream=True, simulator="hold:3")
        assert await status(session, aimux, token=BOB["token"]) == 401
        write_config(folder, config | {"users": [*config["users"], BOB]})
        aimux.process.send_signal(signal.SIGHUP)
        await aimux.said("the configuration was taken again")
        assert await status(session, aimux, token=BOB["token"]) == 200

        write_config(folder, config | {"users": [], "log_levle": "debug"})
        aimux.process.send_signal(signal.SIGHUP)
        await aimux.said("the old one stays")
        assert "log_level" in aimux.output, "it says what was meant"
        assert await status(session, aimux, token=BOB["token"]) == 200

        write_config(folder, config | {"users": [BOB]})
        aimux.process.send_signal(signal.SIGHUP)
        await aimux.until(lambda: aimux.output.count("the configuration was taken again") == 2)
        assert await status(session, aimux) == 401, "a user who was taken out is out at once"
        sim.release()
        assert (await streamed.read()).endswith(b'data: {"type":"message_stop"}\n\n'), "an open stream goes on"


async def test_an_address_in_use_is_told(
    sim: Simulator, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    async with serving(folder, config_of(sim, folder)) as aimux:
        other = tmp_path_factory.mktemp("other")
        config = config_of(sim, other, listen=aimux.address.removeprefix("http://"))
        second = await Process.start(other, "serve", "--config", str(write_config(other, config)))
        assert await second.end() == 1
    assert "another program (or another aimux) listens there" in second.output
    assert "Traceback" not in second.output


async def test_a_socket_that_a_killed_process_left_is_taken_over_and_a_living_one_is_not(
    sim: Simulator, folder: Path, short: Path
) -> None:
    path = short / "aimux.sock"
    config = config_of(sim, folder, listen=f"unix:{path}")
    async with serving(folder, config) as first:
        second = await Process.start(folder, "serve", "--config", str(write_config(folder, config)))
        assert await second.end() == 1
        assert "listens there" in second.output
        await first.stop(signal.SIGKILL)
    assert path.exists()
    async with (
        serving(folder, config),
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as session,
        session.get("http://localhost/health") as answer,
    ):
        assert answer.status == 200


async def test_a_wrong_configuration_ends_the_start_with_every_problem(sim: Simulator, folder: Path) -> None:
    config = config_of(sim, folder, listen="nowhere", users=[{"name": "ann", "token": "short"}], log_levle="debug")
    process = await Process.start(folder, "serve", "--config", str(write_config(folder, config)))
    assert await process.end() == 1
    assert all(word in process.output for word in ("listen", "users[0].token", "log_levle", "log_level"))
    assert "short" not in process.output.replace("shorter", ""), "a token is a secret, however bad"
    assert "Traceback" not in process.output


async def test_a_credential_that_cannot_be_read_is_told_and_mended_without_a_restart(
    sim: Simulator, folder: Path
) -> None:
    path = folder / "state" / "claude" / ".credentials.json"
    path.write_text('{"claudeAiOauth": {"accessToken": "sk-ant-oat01-torn')
    async with serving(folder, config_of(sim, folder)) as aimux, aiohttp.ClientSession() as session:
        assert "claude/default (no credential): parked" in aimux.output
        async with post(session, aimux) as answer:
            assert (answer.status, answer.headers["x-should-retry"]) == (503, "false")
            assert "default is parked" in (await answer.json())["error"]["message"]
        body = {"model": "gpt-5.5", "input": "Hello!", "stream": True, "store": False}
        async with session.post(f"{aimux.chatgpt}/responses", json=body, headers=headers()) as other:
            assert other.status == 200, "the other provider serves"
        put_account(folder / "state", sim.accounts["claude"])
        aimux.process.send_signal(signal.SIGHUP)
        await aimux.said("the configuration was taken again")
        assert await status(session, aimux) == 200
    assert "torn" not in aimux.output


async def test_a_credential_that_others_can_read_is_made_its_owners_alone(sim: Simulator, folder: Path) -> None:
    """In a folder that is aimux's own."""
    path = folder / "state" / "claude" / ".credentials.json"
    path.chmod(0o644)
    async with serving(folder, config_of(sim, folder)) as aimux:
        assert f"{path} could be read by others; it is 0600 now" in aimux.output
        assert path.stat().st_mode & 0o777 == 0o600


async def test_a_login_by_another_program_is_picked_up(sim: Simulator, folder: Path) -> None:
    """The old one is refused: aimux reads the file again and goes on with what lies there now."""
    async with serving(folder, config_of(sim, folder)) as aimux, aiohttp.ClientSession() as session:
        account = sim.accounts["claude"]
        account.revoke()
        sim.tokens["anthropic"].login(account, account.family.client_id)
        put_account(folder / "state", account)
        assert await status(session, aimux) == 200
        assert sim.count("oauth/anthropic") == 0, "nothing had to be renewed"


async def test_first_requests_may_come_before_the_banner_is_read(sim: Simulator, folder: Path) -> None:
    """Whoever hears of the address is served at once."""
    async with serving(folder, config_of(sim, folder)) as aimux, aiohttp.ClientSession() as session:
        assert set(await asyncio.gather(*(status(session, aimux) for _ in range(20)))) == {200}
        lines = await aimux.logged(20)
        assert {line["user"] for line in lines} == {"ann"}
        assert json.loads(sim.requests[0].body) == MESSAGE | {"stream": False}
