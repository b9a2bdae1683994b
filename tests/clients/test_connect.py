"""What `aimux connect` writes and shows is all that the real programs need."""

from __future__ import annotations

import json
import sys

import pytest

from tests.clients.world import Ran, Seat, World, client, run

SAID = "You said: “say hi”"


async def connect(seat: Seat, *arguments: str) -> str:
    """Run it as the user of this seat, in the seat's home; what it says."""
    command = [sys.executable, "-m", "aimux.cli.main", "connect", *arguments]
    options = ["--config", str(seat.world.folder / "config.json"), "--url", seat.world.aimux.address]
    done = await run([*command, *options], seat.home, environ={"AIMUX_TOKEN": seat.token})
    assert done.code == 0, done.err
    return done.out


async def start(seat: Seat, name: str, program: str, *arguments: str, **environ: str) -> Ran:
    """A program with nothing but what it finds at home."""
    path = client(name, "node_modules", ".bin", program)
    return await run([path, *arguments], seat.home, environ=seat.world.trap.environ | environ)


async def test_claude_code(seat: Seat) -> None:
    await connect(seat, "claude-code", "--write", "--user", seat.name)
    ran = await start(seat, "claude-code", "claude", "-p", "say hi", CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC="1")
    assert (ran.code, SAID in ran.out) == (0, True), ran.said


async def test_codex_with_the_token_in_its_file(seat: Seat) -> None:
    (seat.home / ".codex").mkdir()
    (seat.home / ".codex" / "config.toml").write_text('model = "gpt-5.5"\nmodel_provider = "elsewhere"\n')
    await connect(seat, "codex", "--write", "--user", seat.name)
    ran = await start(seat, "codex", "codex", "exec", "--skip-git-repo-check", "say hi")
    assert (ran.code, SAID in ran.out) == (0, True), ran.said
    models, turn = seat.sent[0], next(request for request in seat.sent if request.body)
    assert models.target == "/chatgpt/backend-api/codex/models?client_version=0.171.0"
    assert turn.header("upgrade") == "websocket"
    asked = json.loads(turn.body)
    assert asked["input"][0]["content"][0]["text"] == "You are a simulator.", "what the list of models says"
    assert sum("/models" in request.target for request in seat.sent) == 1, "and asks no second time"


async def test_codex_with_the_token_in_its_environment(seat: Seat) -> None:
    shown = await connect(seat, "codex")
    assert seat.token not in shown
    (seat.home / ".codex").mkdir()
    (seat.home / ".codex" / "config.toml").write_text(shown[shown.index("model_provider") : shown.index("With `env")])
    ran = await start(seat, "codex", "codex", "exec", "--skip-git-repo-check", "say hi", AIMUX_TOKEN=seat.token)
    assert (ran.code, SAID in ran.out) == (0, True), ran.said


ANTHROPIC = """
from anthropic import Anthropic
asked = [{"role": "user", "content": "say hi"}]
print(Anthropic().messages.create(model="claude-sonnet-5", max_tokens=9, messages=asked).content[0].text)
"""
OPENAI = """
from openai import OpenAI
print(OpenAI().responses.create(model="gpt-5.5", input="say hi").output_text)
"""


@pytest.mark.parametrize("code", [ANTHROPIC, OPENAI], ids=["anthropic", "openai"])
async def test_the_sdks(world: World, code: str) -> None:
    """The lines for a shell, and then a client that is made without any argument."""
    seat = world.seat(key=True)
    lines = [line.strip() for line in (await connect(seat, "sdk")).splitlines() if "export" in line]
    script = "\n".join([*lines, f"exec {sys.executable} -c '{code}'"])
    ran = await run(["/bin/sh", "-c", script], seat.home, environ={"AIMUX_TOKEN": seat.token})
    assert SAID in ran.out, ran.err
