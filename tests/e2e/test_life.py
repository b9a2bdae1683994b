"""The process: how it starts, takes a new configuration, and ends; and what it says where something is wrong."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pty
import signal
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from aimux.simulator import Simulator
from tests.cli.support import read_until
from tests.e2e.process import COMMAND, TOKEN, Aimux, Process, config_of, put_account, serving, write_config
from tests.tools import child_environ

MESSAGE = {"model": "claude-sonnet-5", "max_tokens": 100, "messages": [{"role": "user", "content": "Hello!"}]}
BOB = {"name": "bob", "token": "bob-token-0123456789abcdef"}


def headers(token: str = TOKEN, simulator: str = "ok") -> dict[str, str]:
    return {"authorization": f"Bearer {token}", "anthropic-version": "2023-06-01", "x-simulator": simulator}


def post(session: aiohttp.ClientSession, aimux: Aimux, *, stream: bool = False, **fields: str) -> Any:
    """One message. `fields` are those of `headers`."""
    body = MESSAGE | {"stream": stream}
    return session.post(f"{aimux.claude}/v1/messages", json=body, headers=headers(**fields))


async def status(session: aiohttp.ClientSession, aimux: Aimux, **fields: Any) -> int:
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


HELD_UP = """
import asyncio, logging, os, signal, time
from pathlib import Path
from aimux.app.process import run
from aimux.config import load_config

async def announce(app):
    asyncio.get_running_loop().run_in_executor(None, time.sleep, 100)
    logging.getLogger().warning("a thread is under way")
    os.kill(os.getpid(), signal.SIGTERM)

run(lambda plugins: load_config(Path("config.json"), environ=os.environ, providers=plugins.providers), announce)
"""
"""A thread that can't be ended, as of a look-up that no name server answers."""


async def test_no_thread_holds_up_its_end(sim: Simulator, folder: Path) -> None:
    write_config(folder, config_of(sim, folder))
    process = await Process.start(folder, command=(sys.executable, "-c", HELD_UP))
    assert await process.end() == 0
    assert "a thread is under way" in process.output


async def test_until_the_first_answer_it_imports_what_the_mounts_take(sim: Simulator, folder: Path) -> None:
    """They are counted, not seconds. What is outside the mounts comes when asked for, and so does the database."""
    environ = {"PYTHONPROFILEIMPORTTIME": "1"}
    async with serving(folder, config_of(sim, folder), environ=environ) as aimux, aiohttp.ClientSession() as session:
        streamed = await post(session, aimux, stream=True, simulator="hold:3")
        await sim.wait_for_held()
        assert streamed.status == 200
        lines = [line for line in aimux.stderr if line.startswith("import time:")]
        loaded = {line.rpartition("|")[2].strip() for line in lines}
        assert len(loaded) <= 661, sorted(loaded)
        late = {"aiohttp", "cryptography", "genai_prices", "jinja2", "prometheus_client", "rich", "sqlalchemy"}
        assert not late & loaded
        assert not {name for name in loaded if name.startswith(("aimux.control.api", "aimux.control.dashboard"))}
        async with session.get(f"{aimux.address}/health") as answer:
            assert answer.status == 200
        await aimux.said(" aimux.control.plugin_routes")
        sim.release()
        await streamed.read()


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


async def test_the_first_signal_says_what_is_waited_for_and_a_second_cuts_it_off(sim: Simulator, folder: Path) -> None:
    async with serving(folder, config_of(sim, folder)) as aimux, aiohttp.ClientSession() as session:
        await post(session, aimux, stream=True, simulator="stall:3")
        aimux.process.send_signal(signal.SIGINT)
        await refused(aimux)
        await aimux.said("waiting for 1 open requests (POST /claude/v1/messages of ann, 0 s old), at most 30 s")
        aimux.process.send_signal(signal.SIGINT)
        assert await aimux.end() == 1
    assert "ending: open requests are cut off" in aimux.output
    (line,) = aimux.requests
    assert (line["user"], line["error"]) == ("ann", "shutdown"), "it has its line"


async def test_two_signals_at_once_wait_for_nothing(sim: Simulator, folder: Path) -> None:
    async with serving(folder, config_of(sim, folder)) as aimux, aiohttp.ClientSession() as session:
        await post(session, aimux, stream=True, simulator="stall:3")
        aimux.process.send_signal(signal.SIGTERM)
        aimux.process.send_signal(signal.SIGINT)
        assert await aimux.end() == 1
        assert [line["error"] for line in aimux.requests] == ["shutdown"]


@contextmanager
def terminal() -> Iterator[tuple[int, int]]:
    """Our side of a terminal, and the program's."""
    ours, theirs = pty.openpty()
    open_ones = {ours, theirs}
    try:
        yield ours, theirs
    finally:
        for fd in open_ones:
            with suppress(OSError):
                os.close(fd)


def in_terminal() -> None:
    """What a shell does for a program in the foreground of its terminal, which is stdin."""
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


async def test_closing_the_terminal_ends_it_and_a_sighup_before_does_not(sim: Simulator, folder: Path) -> None:
    file = write_config(folder, config_of(sim, folder))
    with terminal() as (ours, theirs):
        process = await asyncio.create_subprocess_exec(
            *COMMAND, "serve", "--config", str(file),
            stdin=theirs, stdout=theirs, stderr=theirs, cwd=folder, preexec_fn=in_terminal,
            env=child_environ(folder),
        )  # fmt: skip
        os.close(theirs)
        await asyncio.to_thread(read_until, ours, "listens on")
        process.send_signal(signal.SIGHUP)
        await asyncio.to_thread(read_until, ours, "the configuration was reloaded")
        os.close(ours)
        async with asyncio.timeout(30):
            assert await process.wait() == 0


async def test_a_second_aimux_on_the_same_state_folder_is_told_about(sim: Simulator, folder: Path) -> None:
    config = config_of(sim, folder)
    async with serving(folder, config) as first:
        assert "another aimux" not in first.output
        async with serving(folder, config) as second:
            assert f"another aimux serves with {folder}/state" in second.output
    async with serving(folder, config) as third:
        assert "another aimux" not in third.output


async def test_accounts_and_people_that_are_named_and_not_there_are_told_about(sim: Simulator, folder: Path) -> None:
    config = config_of(sim, folder)
    config["providers"]["claude"]["accounts"] = {"deflaut": {"weight": 2}, "default": {"weight": 2}}
    config["models"] = {"claude-*": [{"account": "claude/nosuch"}]}
    config["limits"] = {"users": {"nobody": {"tokens_per_day": 5}}, "groups": {"none": {"weight": 2}}}
    put_account(folder / "state", sim.accounts["claude"])
    async with serving(folder, config) as aimux:
        await aimux.said("providers.claude.accounts.deflaut: there is no account claude/deflaut (did you mean default?")
        await aimux.said("models.claude-*[0].account: there is no account claude/nosuch (There are: default)")
        await aimux.said(
            "limits.users.nobody: there is no user 'nobody': this limits nobody (take it out, or: aimux users"
        )
        await aimux.said(
            "limits.groups.none: there is no group 'none': this limits nobody (take it out, or: aimux groups"
        )
        assert "claude/default (" not in aimux.output.partition("mounts")[0]
        doctor = await Process.start(folder, "doctor", "--offline", "--config", str(folder / "config.json"))
        await doctor.end()
        assert "warning: configuration: models.claude-*[0].account: there is no account claude/nosuch" in doctor.output


async def test_the_log_says_at_debug_why_an_account_was_chosen(sim: Simulator, folder: Path) -> None:
    put_account(folder / "state", sim.accounts["claude"])
    put_account(folder / "state", sim.accounts["claude-key"], "key")
    config = config_of(sim, folder, log_level="debug")
    async with serving(folder, config) as aimux, aiohttp.ClientSession() as session:
        assert await status(session, aimux) == 200
        await aimux.said("is chosen: by strategy least_used (")
        found = next(line for line in aimux.stderr if "is chosen" in line)
        assert "default 0% used, 0 in flight; key 0% used, 0 in flight" in found
        assert await status(session, aimux) == 200
        await aimux.said("is chosen: the conversation is on it")


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
        await aimux.said("the configuration was reloaded")
        assert await status(session, aimux, token=BOB["token"]) == 200

        write_config(folder, config | {"users": [], "log_levle": "debug"})
        aimux.process.send_signal(signal.SIGHUP)
        await aimux.said("the old one stays")
        assert "log_level" in aimux.output, "it says what was meant"
        assert await status(session, aimux, token=BOB["token"]) == 200

        write_config(folder, config | {"users": [BOB]})
        aimux.process.send_signal(signal.SIGHUP)
        await aimux.until(lambda: aimux.output.count("the configuration was reloaded") == 2)
        assert await status(session, aimux) == 401, "a user who was taken out is out at once"
        sim.release()
        with pytest.raises(aiohttp.ClientPayloadError):  # and so is what was open
            await streamed.read()


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
            assert "is out of service" in (await answer.json())["error"]["message"]
        body = {"model": "gpt-5.5", "input": "Hello!", "stream": True, "store": False}
        async with session.post(f"{aimux.chatgpt}/responses", json=body, headers=headers()) as other:
            assert other.status == 200, "the other provider serves"
        put_account(folder / "state", sim.accounts["claude"])
        aimux.process.send_signal(signal.SIGHUP)
        await aimux.said("the configuration was reloaded")
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
