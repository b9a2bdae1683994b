"""Codex through aimux, by POST and by WebSocket."""

from __future__ import annotations

import asyncio
import json

import pytest

from aimux.plugin.body import Body
from aimux.simulator import credential_file
from tests.clients.programs import codex, leaks
from tests.clients.world import Seat, Wire

SAID = "You said: “say hi”"
OWN_LOGIN = "requires_openai_auth = true"
NO_BACKEND = 'chatgpt_base_url = "http://127.0.0.1:9/"'
"""Its plugins and analytics: nobody's business here."""
BOTH = pytest.mark.parametrize("websockets", [False, True], ids=["post", "websocket"])


@BOTH
async def test_one_shot(seat: Seat, websockets: bool) -> None:
    ran = await codex(seat, "--json", "say hi", websockets=websockets)
    assert ran.code == 0
    texts = [event["item"]["text"] for event in ran.events if event["type"] == "item.completed"]
    assert SAID in texts[-1]
    (served,) = seat.served
    assert served["error"] in {"-", "done"}, "it hangs up as soon as it has the last event"
    counted = next(event["usage"] for event in ran.events if event["type"] == "turn.completed")
    if websockets:  # whose turns are counted, the warm-up among them
        served = seat.turns[-1]
    fresh, cached, _, out = (int(count) for count in served["tokens"].replace("/", "+").split("+"))
    assert (fresh + cached, cached) == (counted["input_tokens"], counted["cached_input_tokens"])
    assert out == counted["output_tokens"]


@BOTH
async def test_its_request_arrives_as_it_was_written_but_for_the_credential(seat: Seat, websockets: bool) -> None:
    assert (await codex(seat, websockets=websockets)).code == 0
    first = seat.sent[0]
    assert first.target == "/chatgpt/backend-api/codex/responses"
    assert first.header("authorization") == f"Bearer {seat.openai.access_token}"
    assert first.header("chatgpt-account-id") == seat.openai.account_id
    assert first.header("originator") == "codex_exec"
    assert json.loads(first.header("x-codex-turn-metadata") or "")["request_kind"] in {"turn", "prewarm"}
    ids = ("x-codex-window-id", "x-client-request-id", "session-id", "thread-id")
    assert [first.header(name) is None for name in (*ids, "x-codex-beta-features")] == [False] * 5
    assert first.header("accept-encoding") == (None if websockets else "zstd,gzip")
    turn = seat.sent[-1].json()
    assert (turn["stream"], turn["store"]) == (True, False)
    assert turn["prompt_cache_key"] == turn["client_metadata"]["thread_id"] == first.header("thread-id")
    if websockets:
        assert [r.method for r in seat.sent] == ["GET", "WS", "WS"]
        assert first.header("openai-beta") == "responses_websockets=2026-02-06"
        assert seat.sent[1].json()["generate"] is False
    assert seat.token.encode() not in b"".join([value for _, value in first.headers] + [r.body for r in seat.sent])


@BOTH
async def test_a_tool_turn(seat: Seat, websockets: bool) -> None:
    """Two turns on one socket, the second built on the first; a connection for POSTs it leaves after each answer."""
    seat.openai.script(*(["ok"] if websockets else []), "tool:exec_command")
    async with Wire(seat.world.aimux) as wire:
        ran = await codex(seat, base=f"{wire.url}/chatgpt/v1", websockets=websockets)
    assert ran.code == 0, ran.err
    assert "succeeded in" in ran.err
    assert wire.connections == (1 if websockets else 2)
    assert {line["error"] for line in seat.served} <= {"-", "done"}
    result = seat.sent[-1].json()["input"][-1]
    assert (result["type"], "simulator" in result["output"]) == ("function_call_output", True)
    if websockets:
        assert [r.json().get("previous_response_id", "")[:5] for r in seat.sent[1:]] == ["", "resp_", "resp_"]
    else:  # what it was given for this turn, it brings along
        states = [r.header("x-codex-turn-state") for r in seat.sent]
        assert [state and state.startswith("turn-") for state in states] == [None, True]


async def test_a_conversation_that_is_taken_up_again(seat: Seat) -> None:
    assert (await codex(seat, "first")).code == 0
    ran = await codex(seat, "resume", "--last", "second")
    assert (ran.code, "You said: “second”" in ran.out) == (0, True)
    assert "first" in json.dumps(seat.sent[-1].json()["input"])
    assert len({r.header("thread-id") for r in seat.sent}) == 1


@BOTH
async def test_a_prompt_of_three_megabytes(seat: Seat, websockets: bool) -> None:
    """A million characters are the most it takes."""
    ran = await codex(seat, "-", stdin="字".encode() * 1_000_000, websockets=websockets)
    assert (ran.code, "字字字" in ran.out) == (0, True)
    assert len(seat.sent[-1].body) > 3_000_000


@pytest.mark.parametrize("base", ["/chatgpt/v1", "/chatgpt/v1/", "/chatgpt", "/chatgpt/"])
async def test_bases(seat: Seat, base: str) -> None:
    ran = await codex(seat, base=seat.world.aimux.address + base)
    assert (ran.code, SAID in ran.out) == (0, True)
    assert [r.target for r in seat.sent] == ["/chatgpt/backend-api/codex/responses"]


@pytest.mark.parametrize("coding", ["zstd", "gzip"])
async def test_a_compressed_stream(seat: Seat, coding: str) -> None:
    """Before 0.171 it asked for none, and a compressed one broke it."""
    seat.openai.script(f"encode:{coding}")
    ran = await codex(seat, "--json", "say hi")
    assert SAID in ran.out
    counted = next(event["usage"] for event in ran.events if event["type"] == "turn.completed")
    assert seat.served[0]["tokens"].endswith(f"/{counted['output_tokens']}")


async def test_a_compressed_stream_that_breaks_off_is_asked_for_again(seat: Seat) -> None:
    """Nothing can be put behind it in words; what it took is counted all the same."""
    seat.openai.script("encode:zstd,reset:6")
    ran = await codex(seat)
    assert (ran.code, SAID in ran.out) == (0, True), ran.said
    first, second = seat.served
    assert first["error"] not in {"-", "done"}
    assert int(first["tokens"].rpartition("/")[2]) > 0
    assert second["error"] in {"-", "done"}


@pytest.mark.parametrize("way", ["interim:3", "encode", "split", "tiny:100"])
async def test_pings_compressed_messages_and_fragments(seat: Seat, way: str) -> None:
    seat.openai.script("ok", way)
    ran = await codex(seat, websockets=True)
    assert (ran.code, SAID in ran.out) == (0, True)
    assert seat.sent[0].pongs == ([b"0", b"1", b"2"] if way == "interim:3" else [])


@BOTH
async def test_it_is_told_what_is_left_of_its_limits(seat: Seat, websockets: bool) -> None:
    """It writes that into its record of the session."""
    assert (await codex(seat, websockets=websockets)).code == 0
    (record,) = (seat.home / ".codex" / "sessions").rglob("*.jsonl")
    events = [json.loads(line)["payload"] for line in record.read_text().splitlines()]
    told = [event["rate_limits"] for event in events if event.get("type") == "token_count"][-1]
    windows = seat.openai.windows
    assert {name: told[name]["resets_at"] for name in windows} == {
        name: round(window.resets_at) for name, window in windows.items()
    }


@BOTH
async def test_it_is_told_which_model_answers(seat: Seat, websockets: bool) -> None:
    """By `openai-model`, which the simulator's handshakes give its usual model, before any is asked for."""
    ran = await codex(seat, "-m", "gpt-5.4-mini", "say hi", websockets=websockets)
    assert (ran.code, SAID in ran.out) == (0, True)
    assert ("model rerouted: gpt-5.4-mini -> gpt-5.5" in ran.err) is websockets


@BOTH
async def test_ctrl_c_ends_it_upstream_too(seat: Seat, websockets: bool) -> None:
    seat.openai.script(*(["ok"] if websockets else []), "hold:5")
    sim = seat.world.sim
    ran = await codex(seat, websockets=websockets, interrupt=sim.wait_for_held)
    assert SAID not in ran.out
    async with asyncio.timeout(10):
        await sim.wait_idle()
    assert seat.sent[0].aborted
    assert [line["error"] for line in seat.served] == ["client_gone"]


# --- who they are ----------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize(
    "auth",
    [
        'experimental_bearer_token = "{token}"',
        'env_key = "AIMUX_TOKEN"',
        'http_headers = {{ "x-api-key" = "{token}" }}',
        'env_http_headers = {{ "x-api-key" = "AIMUX_TOKEN" }}',
        'experimental_bearer_token = "{token}"\nhttp_headers = {{ "x-api-key" = "{token}" }}',
    ],
    ids=["bearer", "env_key", "header", "env_header", "both"],
)
async def test_a_token_in_any_of_its_settings(seat: Seat, auth: str, websockets: bool) -> None:
    environ = {"AIMUX_TOKEN": seat.token}
    ran = await codex(seat, auth=auth.format(token=seat.token), environ=environ, websockets=websockets)
    assert (ran.code, SAID in ran.out) == (0, True)
    assert {r.header("x-api-key") for r in seat.sent} == {None}


async def test_a_token_that_was_stored_as_a_key(seat: Seat) -> None:
    """As by `codex login --with-api-key`."""
    login = json.dumps({"OPENAI_API_KEY": seat.token}).encode()
    ran = await codex(seat, auth=OWN_LOGIN, login=login)
    assert (ran.code, SAID in ran.out) == (0, True)


@BOTH
async def test_a_token_in_place_of_a_logins(seat: Seat, websockets: bool) -> None:
    """As the vendor's own provider, Codex asks for the models, takes its instructions from there, and compresses."""
    login = json.loads(credential_file(seat.world.sim.add_account(f"{seat.name}-private", "openai")))
    login["tokens"]["access_token"] = seat.token
    ran = await codex(
        seat, name="OpenAI", auth=OWN_LOGIN, login=json.dumps(login).encode(), top=NO_BACKEND, websockets=websockets
    )
    assert (ran.code, SAID in ran.out) == (0, True)
    models, turn = seat.sent[0], next(r for r in seat.sent if r.body)
    assert (models.method, models.status) == ("GET", 200)
    assert models.target == "/chatgpt/backend-api/codex/models?client_version=0.171.0"
    assert {r.header("chatgpt-account-id") for r in seat.sent} == {seat.openai.account_id}
    assert turn.header("content-encoding") == (None if websockets else "zstd")
    asked = Body(turn.body, turn.header("content-encoding") or "").json()
    assert asked["input"][0]["content"][0]["text"] == "You are a simulator."


@BOTH
async def test_it_learns_of_the_models_once(seat: Seat, websockets: bool) -> None:
    """With the catalog's URL, as `aimux connect` writes it, Codex takes its instructions from the list of models. Each
    answer tells the version of the list, and where that were another than the list's own, it would ask again."""
    catalog = f'model_catalog_url = "{seat.world.aimux.chatgpt}/models"\n[features]\napi_key_model_discovery = true'
    ran = await codex(seat, entry=catalog, websockets=websockets)
    assert (ran.code, SAID in ran.out) == (0, True), ran.said
    assert [r.target for r in seat.sent if "/models" in r.target] == [
        "/chatgpt/backend-api/codex/models?client_version=0.171.0"
    ]
    turn = next(r for r in seat.sent if r.body)
    asked = Body(turn.body, turn.header("content-encoding") or "").json()
    assert asked["input"][0]["content"][0]["text"] == "You are a simulator."


async def test_the_vendors_own_login_is_refused_with_advice_and_not_logged(seat: Seat) -> None:
    """With such a login it asks for the models too, and renews it when it is refused, here with the simulator."""
    before = len(seat.world.aimux.requests)
    owner = seat.world.sim.add_account(f"{seat.name}-private", "openai")
    secrets = [owner.access_token, str(owner.refresh_token)]
    ran = await codex(
        seat,
        auth=OWN_LOGIN,
        login=credential_file(owner),
        top=NO_BACKEND,
        environ={"CODEX_REFRESH_TOKEN_URL_OVERRIDE": f"{seat.world.sim.url}/oauth/openai/oauth/token"},
    )
    assert ran.code == 1
    assert "You sent ChatGPT's own login token, not an aimux token" in ran.err
    assert "experimental_bearer_token" in ran.err
    asked = seat.world.aimux.requests[before:]
    assert {line["path"] for line in asked} == {"/chatgpt/v1/models", "/chatgpt/v1/responses"}
    assert {line["status"] for line in asked} == {"401"}
    assert {r.base for r in seat.world.sim.requests if r.account == owner.name} == {"oauth/openai"}
    for secret in (*secrets, owner.access_token, str(owner.refresh_token)):
        assert not leaks(seat, secret.rpartition(".")[0] or secret)
