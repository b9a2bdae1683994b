"""Claude Code through aimux, in two versions: everything a person does with it, and every way to say who they are."""

from __future__ import annotations

import asyncio
import json
import re
import time
from pathlib import Path

import pytest

from tests.clients.programs import claude_code, leaks
from tests.clients.world import Seat, Wire

SAID = "You said: “say hi”"
LOGIN = "sk-ant-oat01-" + "a-login-of-the-vendor's-own-0123456789-".replace("'", "") * 2
VERSIONS = pytest.mark.parametrize("seat", ["claude-code", "claude-code-older"], ids=["new", "older"], indirect=True)
KEY = "sk-ant-api03-" + "a-key-of-the-vendor-0123456789-" * 2


@VERSIONS
async def test_one_shot(seat: Seat) -> None:
    ran = await claude_code(seat, "say hi", "--output-format", "json")
    result = json.loads(ran.out)
    assert (ran.code, result["is_error"], result["num_turns"]) == (0, False, 1)
    assert SAID in result["result"]
    assert [(r.method, r.target) for r in seat.sent] == [("POST", "/anthropic/v1/messages?beta=true")]
    (served,) = seat.served
    usage = result["usage"]
    counts = usage["input_tokens"], usage["cache_read_input_tokens"], usage["cache_creation_input_tokens"]
    assert served["tokens"] == "{}+{}+{}/{}".format(*counts, usage["output_tokens"]), "aimux counts what it counts"


@VERSIONS
async def test_its_request_arrives_as_it_was_written_but_for_the_credential(seat: Seat) -> None:
    assert (await claude_code(seat)).code == 0
    (sent,) = seat.sent
    assert sent.header("authorization") == f"Bearer {seat.anthropic.access_token}"
    assert sent.header("x-api-key") is None
    betas = (sent.header("anthropic-beta") or "").split(",")
    assert betas[-1] == "oauth-2025-04-20", "merged behind its own"
    assert len(betas) == len(set(betas)) > 1
    assert "claude-cli" in (sent.header("user-agent") or "")
    assert sent.header("accept-encoding") == "gzip, deflate, br, zstd"
    assert [sent.header(name) for name in ("content-encoding", "transfer-encoding", "expect")] == [None] * 3
    assert sent.json()["stream"] is True
    assert seat.token.encode() not in b"".join(value for _, value in sent.headers) + sent.body


async def test_streamed(seat: Seat) -> None:
    ran = await claude_code(seat, "say hi", "--output-format", "stream-json", "--verbose", "--include-partial-messages")
    events = [event["event"] for event in ran.events if event["type"] == "stream_event"]
    text = "".join(event["delta"]["text"] for event in events if event["type"] == "content_block_delta")
    assert SAID in text
    assert ran.events[-1]["result"] == text
    assert [events[0]["type"], events[-1]["type"]] == ["message_start", "message_stop"]


@VERSIONS
async def test_a_tool_turn(seat: Seat) -> None:
    seat.anthropic.script("tool:Bash")
    ran = await claude_code(seat, "say hi", "--allowedTools", "Bash(echo:*)")
    assert (ran.code, SAID in ran.out) == (0, True)
    first, second = seat.sent
    assert "Bash" in [tool["name"] for tool in first.json()["tools"]]
    results = [block for message in second.json()["messages"] for block in message["content"] if "tool_use_id" in block]
    assert [result["content"] for result in results] == ["simulator"], "the shell ran what the model asked for"


async def test_web_fetch_asks_past_aimux_whether_it_may(seat: Seat) -> None:
    """docs/troubleshooting.md says so: no gateway can answer that for it."""
    seat.anthropic.script("tool:WebFetch")
    caught, environ = len(seat.world.trap.caught), seat.world.trap.environ | {"ENABLE_TOOL_SEARCH": "false"}
    assert (await claude_code(seat, "say hi", "--allowedTools", "WebFetch", environ=environ)).code == 0
    assert seat.world.trap.caught[caught:] == ["CONNECT api.anthropic.com:443 HTTP/1.1"]
    assert b"Unable to verify if domain simulator.invalid is safe to fetch." in seat.sent[1].body


@VERSIONS
async def test_turns_and_retries_on_one_connection(seat: Seat) -> None:
    seat.anthropic.script("ok", "529")
    turns = [{"type": "user", "message": {"role": "user", "content": text}} for text in ("first", "second")]
    options = ("--input-format", "stream-json", "--output-format", "stream-json", "--verbose")
    async with Wire(seat.world.aimux) as wire:
        # Behind a proxy it leaves out its probe, which would have a connection of its own.
        ran = await claude_code(
            seat,
            *options,
            base=f"{wire.url}/claude",
            environ=seat.world.trap.environ,
            stdin=b"\n".join(json.dumps(turn).encode() for turn in turns) + b"\n",
        )
    assert wire.connections == 1
    results = [event["result"] for event in ran.events if event["type"] == "result"]
    assert ["first" in results[0], "second" in results[-1]] == [True, True]
    assert len({r.header("x-claude-code-session-id") for r in seat.sent}) == 1
    assert [line["status"] for line in seat.served] == ["200", "529", "200"]


async def test_a_prompt_of_three_megabytes(seat: Seat) -> None:
    """In a million characters: of more than that it says itself that they are too many."""
    ran = await claude_code(seat, "summarize", stdin="字".encode() * 1_000_000)
    assert (ran.code, "summarize 字字" in ran.out) == (0, True)
    assert len(seat.sent[0].body) > 3_000_000


@VERSIONS
async def test_a_burst_of_token_counts(seat: Seat) -> None:
    ran = await claude_code(seat, "/context")
    assert (ran.code, "Context Usage" in ran.out) == (0, True)
    assert {r.target for r in seat.sent} == {"/anthropic/v1/messages/count_tokens?beta=true"}
    assert len(seat.sent) > 10
    assert {line["status"] for line in seat.served} == {"200"}


@VERSIONS
async def test_it_finds_the_models(seat: Seat) -> None:
    """Which it does only with its other traffic allowed; the trap has that."""
    settings = {"CLAUDE_CODE_ENABLE_GATEWAY_MODEL_DISCOVERY": "1", "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": ""}
    ran = await claude_code(seat, environ=seat.world.trap.environ | settings)
    assert ran.code == 0
    asked = [(r.method, r.target, r.status) for r in seat.sent]
    assert ("GET", "/anthropic/v1/models?limit=1000", 200) in asked
    (kept,) = (seat.home / ".claude" / "cache").glob("*models*.json")
    assert "claude-sonnet-5" in kept.read_text()


async def test_a_proxy_for_the_rest_of_the_world_sees_nothing(seat: Seat) -> None:
    caught = len(seat.world.trap.caught)
    assert (await claude_code(seat, environ=seat.world.trap.environ)).code == 0
    assert seat.world.trap.caught[caught:] == []


@VERSIONS
@pytest.mark.parametrize("end", ["", "/", "/v1"])
async def test_bases(seat: Seat, end: str) -> None:
    """Its probe comes without a token and is refused, which it does not mind."""
    before = len(seat.world.aimux.requests)
    settings = seat.world.trap.environ_with_probe | {"CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": ""}
    ran = await claude_code(seat, base=seat.world.aimux.claude + end, environ=settings)
    assert (ran.code, SAID in ran.out) == (0, True)
    assert [r.target for r in seat.sent] == ["/anthropic/v1/messages?beta=true"]
    probes = {(line["path"], line["status"]) for line in seat.world.aimux.requests[before:] if line["method"] == "HEAD"}
    probed = f"{end.rstrip('/')}/api/hello" if seat.claude == "claude-code" else end
    assert probes == {(f"/claude{probed}", "401")}


async def test_a_beta_that_upstream_refuses(seat: Seat) -> None:
    """It then goes without some; aimux's own is behind what is left."""
    seat.anthropic.script("400")
    ran = await claude_code(seat)
    assert (ran.code, SAID in ran.out) == (0, True)
    first, second = [(r.header("anthropic-beta") or "").split(",") for r in seat.sent]
    assert first[-1] == second[-1] == "oauth-2025-04-20"
    assert set(first) > set(second)


@pytest.mark.parametrize(
    ("seat", "longer"),
    [("claude-code", "CLAUDE_CODE_PROMPT_CACHE_TTL=1h"), ("claude-code-older", "ENABLE_PROMPT_CACHING_1H=1")],
    ids=["new", "older"],
    indirect=["seat"],
)
async def test_how_long_its_cache_lasts(seat: Seat, longer: str) -> None:
    """README.md and `aimux connect` say so: it takes a gateway for one that is paid by use."""
    name, _, value = longer.partition("=")
    for environ in ({}, {name: value}):
        assert (await claude_code(seat, environ=environ)).code == 0
    marks = [set(re.findall(rb'"cache_control":({[^}]*})', sent.body)) for sent in seat.sent]
    assert marks == [{b'{"type":"ephemeral"}'}, {b'{"type":"ephemeral","ttl":"1h"}'}]


@VERSIONS
async def test_how_much_it_takes_for_the_context(seat: Seat) -> None:
    """README.md says so."""
    sizes = [(await claude_code(seat, "/context", "--model", model)).out for model in ("opus", "opus[1m]")]
    assert [" / 200k (" in size for size in sizes] == [seat.claude == "claude-code-older", False]
    assert " / 1m (" in sizes[1]


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd", "deflate"])
async def test_a_compressed_stream(seat: Seat, coding: str) -> None:
    seat.anthropic.script(f"encode:{coding}")
    ran = await claude_code(seat)
    assert (ran.code, SAID in ran.out) == (0, True)
    assert seat.served[0]["tokens"].endswith("/38")


async def test_it_is_told_what_is_left_of_its_limits(seat: Seat) -> None:
    """It looks where it takes its token for a subscription's."""
    options = ("say hi", "--output-format", "stream-json", "--verbose")
    ran = await claude_code(seat, *options, token="", environ={"CLAUDE_CODE_OAUTH_TOKEN": seat.token})
    (told,) = [event["rate_limit_info"] for event in ran.events if event["type"] == "rate_limit_event"]
    assert (told["status"], told["rateLimitType"]) == ("allowed", "five_hour")
    assert told["resetsAt"] == round(seat.anthropic.windows["5h"].resets_at)


async def test_ctrl_c_ends_it_upstream_too(seat: Seat) -> None:
    seat.anthropic.script("hold:5")
    sim = seat.world.sim
    ran = await claude_code(seat, interrupt=sim.wait_for_held)
    assert SAID not in ran.out
    async with asyncio.timeout(10):
        await sim.wait_idle()
    assert [r.aborted for r in seat.sent] == [True]
    assert [line["error"] for line in seat.served] == ["client_gone"]


# --- who they are ----------------------------------------------------------------------------------------------------


@VERSIONS
@pytest.mark.parametrize(
    ("variables", "sends"),
    [
        ("ANTHROPIC_AUTH_TOKEN", {"bearer"}),
        ("ANTHROPIC_API_KEY", {"x-api-key"}),
        ("ANTHROPIC_AUTH_TOKEN ANTHROPIC_API_KEY", {"bearer", "x-api-key"}),
        ("CLAUDE_CODE_OAUTH_TOKEN", {"bearer", "its own oauth beta"}),
    ],
)
async def test_a_token_in_any_of_its_variables(seat: Seat, variables: str, sends: set[str]) -> None:
    async with Wire(seat.world.aimux) as wire:
        environ = dict.fromkeys(variables.split(), seat.token)
        ran = await claude_code(seat, base=f"{wire.url}/claude", token="", environ=environ)
    assert (ran.code, SAID in ran.out) == (0, True)
    marks = {"bearer": f"Authorization: Bearer {seat.token}", "x-api-key": f"x-api-key: {seat.token}"}
    marks["its own oauth beta"] = "oauth-2025-04-20"
    assert {form for form, mark in marks.items() if mark.encode() in wire.written} == sends
    (sent,) = seat.sent
    betas = (sent.header("anthropic-beta") or "").split(",")
    assert betas.count("oauth-2025-04-20") == 1
    assert sent.header("authorization") == f"Bearer {seat.anthropic.access_token}"


async def test_its_command_for_a_token_is_run_anew_where_that_is_refused(seat: Seat) -> None:
    """docs/people.md says so. `x-should-retry: false` does not keep it from that."""
    helper, expired = seat.home / "helper", seat.home / "expired"
    helper.write_text(
        f"#!/bin/sh\nif mkdir {expired} 2>/dev/null; then echo an-old-token; else echo {seat.token}; fi\n"
    )
    helper.chmod(0o700)
    (seat.home / ".claude").mkdir()
    (seat.home / ".claude" / "settings.json").write_text(json.dumps({"apiKeyHelper": str(helper)}))
    before = len(seat.world.aimux.requests)
    ran = await claude_code(seat, token="")
    assert (ran.code, SAID in ran.out) == (0, True)
    assert seat.statuses(before) == ["401", "200"]


@pytest.mark.parametrize("variable", ["CLAUDE_CODE_OAUTH_TOKEN", "ANTHROPIC_API_KEY", "a stored login"])
async def test_the_vendors_own_credential_is_refused_with_advice_and_not_logged(seat: Seat, variable: str) -> None:
    secret, environ = (KEY if variable == "ANTHROPIC_API_KEY" else LOGIN), {}
    if variable == "a stored login":
        store(seat.home, secret)
    else:
        environ = {variable: secret}
    before = len(seat.world.aimux.requests)
    # The proxy: what it would do with such a login elsewhere is nobody's business here.
    ran = await claude_code(seat, token="", environ=seat.world.trap.environ | environ)
    assert ran.code == 1
    assert "Set ANTHROPIC_AUTH_TOKEN to the token that aimux gave you" in ran.out
    asked = [line for line in seat.world.aimux.requests[before:] if line["method"] == "POST"]
    assert 1 <= len(asked) <= 2, "it may read its login again, once"
    assert {line["status"] for line in asked} == {"401"}
    assert seat.sent == []
    assert not leaks(seat, secret)
    assert not leaks(seat, secret.replace("oat01", "ort01"))


def store(home: Path, token: str) -> None:
    """A login, as Claude Code keeps it."""
    login = {
        "accessToken": token,
        "refreshToken": token.replace("oat01", "ort01"),
        "expiresAt": int(time.time() + 8 * 3600) * 1000,
        "scopes": ["user:inference", "user:profile"],
        "subscriptionType": "max",
    }
    (home / ".claude").mkdir()
    (home / ".claude" / ".credentials.json").write_text(json.dumps({"claudeAiOauth": login}))


async def test_many_at_once(seat: Seat) -> None:
    """Users don't get into each other's way."""
    seats = [seat, *(seat.world.seat() for _ in range(3))]
    for number, one in enumerate(seats):
        one.anthropic.script(f"gap:0.0{number + 1}")
    for ran in await asyncio.gather(*(claude_code(one, f"I am {one.name}") for one in seats)):
        assert ran.code == 0
    for one in seats:
        assert [f"I am {one.name}" in r.body.decode() for r in one.sent] == [True]
