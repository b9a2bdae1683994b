"""The vendors' SDKs, for Python in two major versions and for Node, each through the same steps."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.clients.programs import leaks
from tests.clients.world import Seat, Wire, World, client, run

SCRIPTS = Path(__file__).parent / "scripts"
SAID = "You said: “say hi”"
KEYS = {"anthropic": "sk-ant-api03-a-key-of-the-vendor-0123456789", "openai": "sk-proj-a-key-of-the-vendor-0123456789"}
RUNTIMES = ("python", "python, older", "node")


@dataclass
class Report:
    """What came of a script's steps: a value, or `{"error": class, "message": text, "seconds": until then}`; and whose
    steps they were."""

    vendor: str
    steps: dict[str, Any]
    seat: Seat

    def tries(self, step: str) -> int:
        """How many of a step's requests came upstream."""
        return len([r for r in self.seat.sent if r.header("x-step") == step])


async def report(world: World, vendor: str, runtime: str, *steps: str, address: str = "") -> Report:
    """Run the steps, or all of them, through aimux or what stands in front of it at `address`."""
    seat = world.seat(key=True)
    environ = {
        "BASE": (address or world.aimux.address) + ("/claude" if vendor == "anthropic" else "/chatgpt/v1"),
        "TOKEN": seat.token,
        "VENDOR_KEY": KEYS[vendor],
    }
    if runtime == "node":
        folder = client("node-sdks")
        script = (SCRIPTS / f"sdk_{vendor}.mjs").read_bytes()  # through stdin: imports are looked up in the folder
        ran = await run(["node", "--input-type=module", "-", *steps], folder, stdin=script, environ=environ)
    else:
        python = client("python-sdks" if runtime == "python" else "python-sdks-older", "bin", "python")
        ran = await run([python, SCRIPTS / f"sdk_{vendor}.py", *steps], seat.home, environ=environ)
    assert ran.code == 0, ran.err
    return Report(vendor, json.loads(ran.out), seat)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def reports(world: World) -> dict[tuple[str, str], asyncio.Task[Report]]:
    """All of them, at once."""
    names = [(vendor, runtime) for vendor in KEYS for runtime in RUNTIMES]
    return {name: asyncio.create_task(report(world, *name)) for name in names}


@pytest.fixture(params=[(vendor, runtime) for vendor in KEYS for runtime in RUNTIMES], ids=", ".join)
def sdk(request: pytest.FixtureRequest, reports: dict[tuple[str, str], asyncio.Task[Report]]) -> asyncio.Task[Report]:
    task: asyncio.Task[Report] = reports[request.param]
    return task


async def test_answers_whole_and_streamed(sdk: asyncio.Task[Report]) -> None:
    done = await sdk
    steps = done.steps
    spoken = {"hello", "stream", "slash", "compressed"}
    spoken |= {"v1", "x-api-key", "both"} if done.vendor == "anthropic" else {"chat", "chat stream", "no v1"}
    assert {step: SAID in steps[step] for step in spoken} == dict.fromkeys(spoken, True)
    assert "word word" in steps["big"]
    assert len(next(r for r in done.seat.sent if r.header("x-step") == "big").body) > 3_000_000
    assert {done.tries(step) for step in spoken} == {1}


async def test_tools_counts_and_models(sdk: asyncio.Task[Report]) -> None:
    done = await sdk
    kind, text = done.steps["tool"]
    assert kind in {"tool_use", "function_call"}
    assert SAID in text
    assert {"claude-sonnet-5", "gpt-5.5"} & set(done.steps["models"])
    if done.vendor == "anthropic":
        assert len(done.steps["counts"]) == 26
        assert len(set(done.steps["counts"])) == 1


@pytest.mark.parametrize(("vendor", "runtime"), [(vendor, runtime) for vendor in KEYS for runtime in RUNTIMES])
async def test_turns_on_one_connection(world: World, vendor: str, runtime: str) -> None:
    """Node frees a connection a moment after the answer's end, so that its next turn opens another; then it has two."""
    async with Wire(world.aimux) as wire:
        done = await report(world, vendor, runtime, "twice", address=wire.url)
    assert [SAID in text for text in done.steps["twice"]] == [True] * 3
    assert wire.connections == (2 if runtime == "node" else 1)
    assert bytes(wire.written).count(f"Bearer {done.seat.token}".encode()) == 3


@pytest.mark.parametrize(
    ("runtime", "form", "version"),
    [
        ("python", "authorization: bearer ", "2026-10-21"),
        ("python, older", "x-api-key: ", "2023-06-01"),
        ("node", "authorization: bearer ", "2026-10-21"),
    ],
)
async def test_how_an_api_key_of_anthropic_is_sent(world: World, runtime: str, form: str, version: str) -> None:
    """Under either name of the header, by either version of the API, which arrives as it was."""
    async with Wire(world.aimux) as wire:
        done = await report(world, "anthropic", runtime, "x-api-key", address=wire.url)
    assert SAID in done.steps["x-api-key"]
    fields = bytes(wire.written).partition(b"\r\n\r\n")[0].decode().lower().split("\r\n")
    assert [field for field in fields if done.seat.token in field] == [form + done.seat.token]
    assert [r.header("anthropic-version") for r in done.seat.sent] == [version]


async def test_what_is_pointless_is_tried_once(sdk: asyncio.Task[Report]) -> None:
    """The SDKs retry twice where they aren't told not to."""
    done = await sdk
    for step, about in (("wrong", "This token is not known to aimux"), ("vendor", "not an aimux token")):
        assert done.steps[step]["error"] == "AuthenticationError"
        assert about in done.steps[step]["message"]
        assert done.tries(step) == 0
    assert done.steps["no such model"]["error"] == "NotFoundError"
    assert done.tries("no such model") == 1
    assert done.steps["500, no retry"]["error"] == "InternalServerError"
    assert done.tries("500, no retry") == 1
    assert not leaks(done.seat, KEYS[done.vendor])


async def test_what_may_get_better_is_tried_again(sdk: asyncio.Task[Report]) -> None:
    done = await sdk
    assert done.steps["500"]["error"] == "InternalServerError"
    assert done.tries("500") == 3
    assert done.tries("503:2") == 2
    assert done.steps["503:2"]["seconds"] > 1.9, "as retry-after says; by itself it would have waited half a second"


async def test_a_stream_that_breaks_off_is_never_taken_for_a_short_answer(sdk: asyncio.Task[Report]) -> None:
    """The SDKs accept a clean end without the protocol's last event in silence."""
    done = await sdk
    broken = {"end", "cut", "reset", "overload", *(["chat end"] if done.vendor == "openai" else [])}
    outcomes = {step: done.steps[step] for step in broken}
    assert {step: isinstance(outcome, dict) for step, outcome in outcomes.items()} == dict.fromkeys(broken, True)
    for step in ("end", "overload"):
        assert any(word in str(outcomes[step]["message"]).lower() for word in ("upstream", "overloaded")), outcomes
    assert "JSON" not in str(outcomes["cut"]), "half an event is followed by nothing"
