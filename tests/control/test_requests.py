"""How a request was routed, as the API tells it afterwards."""

from __future__ import annotations

from aimux.simulator import Simulator
from aimux.simulator.demo import credential_file
from tests.control.conftest import Aimux, Start, put


async def test_a_request_that_failed_over_is_explained(start: Start, sim: Simulator) -> None:
    aimux = await start(users=[{"name": "ann", "token": "a-users-own-token-123"}])
    put(aimux.state_dir, "claude", credential_file(sim.add_account("second", "anthropic")), "second")
    await aimux.get("/accounts")
    for account in ("claude", "second"):
        sim.accounts[account].script("429:600" if account == "claude" else "ok")
    for _ in range(2):  # one of the two begins with the account that is limited
        status, headers = await aimux.message(authorization="Bearer a-users-own-token-123")
        assert status == 200
        told = await aimux.get(f"/requests/{headers['x-request-id']}")
        if told["attempts"] == 2:
            break
    assert (told["user"], told["provider"], told["account"], told["status"]) == ("ann", "claude", "second", 200)
    assert (told["method"], told["path"], told["model"]) == ("POST", "/claude/v1/messages", "claude-sonnet-5")
    first, *_ = told["steps"]
    assert (first["account"], first["status"], first["action"]) == ("default", 429, "cool_down")
    assert told["tokens"]["output"] > 0
    assert told["time"].endswith("Z")
    begun, moved = told["choices"]
    assert (begun["account"], moved["account"]) == ("default", "second")
    assert {one["account"]: one["able"] for one in begun["considered"]} == {"default": True, "second": True}
    assert {one["account"]: one["standing"] for one in moved["considered"]}["default"] == "was tried"


async def test_what_nobody_served_is_explained_too(aimux: Aimux) -> None:
    await aimux.post("/accounts/claude/default/disable")
    status, headers = await aimux.message()
    assert status == 503
    told = await aimux.get(f"/requests/{headers['x-request-id']}")
    assert (told["status"], told["attempts"], told["tokens"]) == (503, 0, None)


async def test_a_conversation_that_stays_weighs_nothing(aimux: Aimux, sim: Simulator) -> None:
    put(aimux.state_dir, "claude", credential_file(sim.add_account("second", "anthropic")), "second")
    await aimux.get("/accounts")
    told = []
    for _ in range(2):
        _, headers = await aimux.message(**{"x-claude-code-session-id": "one-and-the-same"})
        told.append((await aimux.get(f"/requests/{headers['x-request-id']}"))["choices"][0])
    first, then = told
    assert first["why"] == "by strategy least_used"
    assert (then["why"], then["home"], then["considered"]) == ("the conversation is on it", first["account"], [])


async def test_an_id_of_the_vendors_finds_it(aimux: Aimux) -> None:
    _, headers = await aimux.message()
    told = await aimux.get(f"/requests/{headers['x-request-id']}")
    assert (await aimux.get(f"/requests/{told['steps'][0]['upstream_id']}"))["id"] == told["id"]


async def test_the_ledger_finds_it_by_the_vendors_id_as_well(start: Start) -> None:
    aimux = await start()
    _, headers = await aimux.message()
    told = await aimux.get(f"/requests/{headers['x-request-id']}")
    vendors = told["steps"][0]["upstream_id"]
    await aimux.get("/requests")  # which waits for the ledger
    again = await start()  # whose memory knows of no request
    found = await again.get(f"/requests/{vendors}")
    assert (found["id"], found["steps"][0]["upstream_id"], found["choices"]) == (told["id"], vendors, [])


async def test_an_id_of_the_clients_own_finds_it(aimux: Aimux) -> None:
    await aimux.message(**{"x-request-id": "build-42:3"})
    assert (await aimux.get("/requests/build-42:3"))["id"] == "build-42:3"


async def test_an_unknown_id_is_not_found(aimux: Aimux) -> None:
    for request_id in ("req_0", "a%20b", "x" * 129):
        assert (await aimux.send("GET", f"/requests/{request_id}"))[0] == 404
