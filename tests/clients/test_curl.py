"""curl through aimux: the same that the other clients are put through."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.clients.programs import leaks
from tests.clients.world import Ran, Seat, run
from tests.tools import program

SAY_HI = {"role": "user", "content": "say hi"}
MESSAGE = {"model": "claude-sonnet-5", "max_tokens": 100, "messages": [SAY_HI]}
SAID = "You said: “say hi”"
KEY = "sk-ant-api03-" + "a-key-of-the-vendor-0123456789-" * 2
LOGIN = "sk-ant-oat01-" + "a-login-of-the-vendors-own-0123456789-" * 2


async def curl(seat: Seat, *arguments: str | Path, token: str | None = None, stdin: bytes = b"") -> Ran:
    auth = ["-H", f"authorization: Bearer {seat.token}"] if token is None else []
    usual = ["-sS", "-H", "anthropic-version: 2023-06-01", "-H", "content-type: application/json"]
    return await run([program("curl", "curl"), *usual, *auth, *arguments], seat.home, stdin=stdin)


def messages(seat: Seat) -> str:
    return f"{seat.world.aimux.claude}/v1/messages"


async def test_whole_and_streamed(seat: Seat) -> None:
    ran = await curl(seat, messages(seat), "-d", json.dumps(MESSAGE))
    assert SAID in json.loads(ran.out)["content"][0]["text"]
    ran = await curl(seat, "-N", messages(seat), "-d", json.dumps(MESSAGE | {"stream": True}))
    assert [line for line in ran.out.splitlines() if line.startswith("event:")][-1] == "event: message_stop"
    ran = await curl(seat, "--compressed", messages(seat), "-d", json.dumps(MESSAGE), "-H", "x-simulator: encode")
    assert SAID in json.loads(ran.out)["content"][0]["text"]


async def test_responses_and_their_models(seat: Seat) -> None:
    base = f"{seat.world.aimux.address}/chatgpt"
    asked = {"model": "gpt-5.5", "stream": True, "store": False, "input": [{"role": "user", "content": "say hi"}]}
    for path in ("/v1/responses", "//v1/responses", "/v1//responses", "/responses"):
        ran = await curl(seat, "-N", base + path, "-d", json.dumps(asked))
        last = [line for line in ran.out.splitlines() if line.startswith("data:")][-1]
        assert json.loads(last.removeprefix("data:"))["type"] == "response.completed", path
    ran = await curl(seat, f"{base}/v1/models?client_version=0.0.0")
    assert "gpt-5.5" in [model["slug"] for model in json.loads(ran.out)["models"]]


async def test_a_tool_turn(seat: Seat) -> None:
    seat.anthropic.script("tool:Bash")
    asked = MESSAGE | {"tools": [{"name": "Bash", "input_schema": {"type": "object"}}]}
    call = json.loads((await curl(seat, messages(seat), "-d", json.dumps(asked))).out)["content"][0]
    assert (call["type"], call["name"]) == ("tool_use", "Bash")
    result = {"type": "tool_result", "tool_use_id": call["id"], "content": "done"}
    turns = [SAY_HI, {"role": "assistant", "content": [call]}, {"role": "user", "content": [result]}]
    ran = await curl(seat, messages(seat), "-d", json.dumps(asked | {"messages": turns}))
    assert json.loads(ran.out)["content"][0]["type"] == "text"


async def test_two_turns_on_one_connection(seat: Seat) -> None:
    options = ["-d", json.dumps(MESSAGE), "-o", "/dev/null", "-o", "/dev/null", "-w", "%{http_code}:%{num_connects} "]
    assert (await curl(seat, messages(seat), messages(seat), *options)).out.split() == ["200:1", "200:0"]


async def test_a_prompt_of_three_megabytes(seat: Seat) -> None:
    """Which curl announces: it waits for `100 Continue` for a second at most."""
    large = MESSAGE | {"messages": [{"role": "user", "content": "word " * 600_000}]}
    for expect in ("Expect: 100-continue", "Expect:"):
        ran = await curl(seat, messages(seat), "-H", expect, "--data-binary", "@-", stdin=json.dumps(large).encode())
        assert "word word" in json.loads(ran.out)["content"][0]["text"]
    assert {len(r.body) for r in seat.sent} == {len(json.dumps(large))}


async def test_counts_models_and_probes(seat: Seat) -> None:
    base = seat.world.aimux.claude
    urls = [f"{base}/v1/messages/count_tokens"] * 26
    ran = await curl(seat, "--parallel", "--no-progress-meter", *urls, "-d", json.dumps(MESSAGE))
    assert ran.out.count('"input_tokens"') == 26
    assert "claude-sonnet-5" in (await curl(seat, f"{base}/v1/models?limit=1000")).out
    assert (await curl(seat, "-I", f"{base}/v1/models")).out.startswith("HTTP/1.1 200")
    for path in ("", "/", "/api/hello"):
        assert (await curl(seat, "-I", f"{base}{path}", token="")).out.startswith("HTTP/1.1 401")


async def test_bases(seat: Seat) -> None:
    for path in ("/v1/messages", "//v1/messages", "/v1/v1/messages", "/v1//messages"):
        ran = await curl(seat, seat.world.aimux.claude + path, "-d", json.dumps(MESSAGE))
        assert SAID in ran.out, path


@pytest.mark.parametrize("form", ["bearer", "x-api-key", "both"])
async def test_a_token_in_every_form(seat: Seat, form: str) -> None:
    fields = {
        "bearer": [f"authorization: Bearer {seat.token}"],
        "x-api-key": [f"x-api-key: {seat.token}"],
        "both": [f"x-api-key: {seat.token}", f"authorization: Bearer {seat.token}"],
    }
    headers = [part for field in fields[form] for part in ("-H", field)]
    assert SAID in (await curl(seat, messages(seat), *headers, "-d", json.dumps(MESSAGE), token="")).out
    assert [r.header("x-api-key") for r in seat.sent] == [None]


@pytest.mark.parametrize(
    ("field", "secret"),
    [("x-api-key: ", KEY), ("authorization: Bearer ", KEY), ("authorization: Bearer ", LOGIN)],
    ids=["key", "key as bearer", "login"],
)
async def test_the_vendors_own_credential_is_refused_with_advice_and_not_logged(
    seat: Seat, field: str, secret: str
) -> None:
    ran = await curl(seat, "-i", messages(seat), "-H", field + secret, "-d", json.dumps(MESSAGE), token="")
    assert ran.out.startswith("HTTP/1.1 401")
    assert "x-should-retry: false" in ran.out.lower()
    assert "not an aimux token" in ran.out
    assert seat.sent == []
    assert not leaks(seat, secret)
