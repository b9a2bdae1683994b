"""Accounts that are renamed or removed through the API, renewals under way or not."""

from __future__ import annotations

import asyncio
import json

from aimux.gateway.deposits import Deposit
from aimux.simulator import Simulator
from aimux.simulator.demo import credential_file
from tests.control.conftest import Aimux, Start, put


async def test_a_rename_keeps_the_state(aimux: Aimux) -> None:
    await aimux.message()
    stored = aimux.app.deposits.deposits
    stored.keep("claude", "default", ["file_1"], "ann")
    await aimux.post("/accounts/claude/default/disable")
    before = await aimux.get("/accounts/claude/default")
    after = await aimux.post("/accounts/claude/default/rename", {"name": "ann@example.com"})
    assert after == before | {"name": "ann@example.com", "remedy": "aimux accounts enable claude/ann@example.com"}
    assert await aimux.accounts("?provider=claude") == ["claude/ann@example.com"]
    assert stored.find("claude", ["file_1"]) == Deposit("ann@example.com", "ann")
    assert (aimux.state_dir / "claude" / "ann@example.com" / ".credentials.json").is_file()
    await aimux.post("/accounts/claude/ann%40example.com/enable")
    assert (await aimux.message())[0] == 200


async def test_a_name_that_is_taken_is_not_given_twice(aimux: Aimux, sim: Simulator) -> None:
    put(aimux.state_dir, "claude", credential_file(sim.add_account("ann", "anthropic")), "ann")
    refused = await aimux.post("/accounts/claude/ann/rename", {"name": "default"}, expect=409)
    assert (refused["type"], refused["detail"]) == (
        "urn:aimux:conflict",
        "There is an account claude/default already.",
    )
    await aimux.post("/accounts/claude/ann/rename", {"name": "ann"}, expect=409)
    for name in ("", "../x", ".x", "a b", "a" * 65):
        await aimux.post("/accounts/claude/ann/rename", {"name": name}, expect=422)
    assert await aimux.accounts("?provider=claude") == ["claude/ann", "claude/default"]


async def test_a_rename_does_not_slip_out_of_its_group(start: Start) -> None:
    grouped = {"claude": {"accounts": {"default": {"groups": ["team"]}, "ready": {"groups": ["team"]}}}}
    aimux = await start(providers=grouped)
    refused = await aimux.post("/accounts/claude/default/rename", {"name": "free"}, expect=409)
    assert "providers.claude.accounts.free" in refused["remedy"]
    assert (await aimux.post("/accounts/claude/default/rename", {"name": "ready"}))["groups"] == ["team"]


async def test_what_is_in_the_configuration_is_changed_there(start: Start, sim: Simulator) -> None:
    aimux = await start(providers={"claude": {"api_key": sim.accounts["claude-key"].api_key}})
    shown = await aimux.get("/accounts/claude/api-key")
    assert (shown["configured"], shown["status"]) == (True, "healthy")
    for method, path, body in (
        ("POST", "/api-key/rename", {"name": "x"}),
        ("DELETE", "/api-key", None),
        ("POST", "/api-key/refresh", None),
    ):
        assert (await aimux.send(method, f"/accounts/claude{path}", json=body))[0] == 409
    taken = {"provider": "claude", "name": "api-key", "api_key": "sk-ant-api03-x", "replace": True}
    assert (await aimux.post("/accounts", taken, expect=409))["type"] == "urn:aimux:configured"
    assert (await aimux.post("/accounts/claude/api-key/disable"))["status"] == "disabled"


async def test_a_removed_account_is_gone_from_the_disk_and_the_choice(aimux: Aimux) -> None:
    assert (await aimux.send("DELETE", "/accounts/claude/default"))[0] == 204
    assert not (aimux.state_dir / "claude" / ".credentials.json").exists()
    assert (await aimux.send("DELETE", "/accounts/claude/default"))[0] == 404
    assert (await aimux.message())[0] == 503


async def test_a_rename_waits_for_a_renewal_and_takes_its_result_along(aimux: Aimux, sim: Simulator) -> None:
    account = sim.accounts["claude"]
    before = account.refresh_token
    account.on_refresh("hold")
    renewal = asyncio.create_task(aimux.post("/accounts/claude/default/refresh"))
    await sim.wait_for_held()
    rename = asyncio.create_task(aimux.post("/accounts/claude/default/rename", {"name": "ann"}))
    # It can't be done before the renewal is: both need the account's lock, and the renewal has it.
    done, _ = await asyncio.wait({rename}, timeout=0.05)
    assert not done
    sim.release()
    await asyncio.gather(renewal, rename)
    saved = json.loads((aimux.state_dir / "claude" / "ann" / ".credentials.json").read_bytes())["claudeAiOauth"]
    assert saved["refreshToken"] == account.refresh_token != before
    assert not (aimux.state_dir / "claude" / ".credentials.json").exists()
    assert (await aimux.message())[0] == 200
    assert (await aimux.post("/accounts/claude/ann/refresh"))["status"] == "healthy"


async def test_a_removal_waits_for_a_renewal_and_nothing_comes_back(aimux: Aimux, sim: Simulator) -> None:
    sim.accounts["claude"].on_refresh("hold")
    renewal = asyncio.create_task(aimux.send("POST", "/accounts/claude/default/refresh"))
    await sim.wait_for_held()
    removal = asyncio.create_task(aimux.send("DELETE", "/accounts/claude/default"))
    sim.release()
    await renewal
    assert (await removal)[0] == 204
    assert await aimux.accounts("?provider=claude") == []
    assert not (aimux.state_dir / "claude" / ".credentials.json").exists()


async def test_a_caller_that_leaves_does_not_stop_what_it_began(aimux: Aimux, sim: Simulator) -> None:
    account = sim.accounts["claude"]
    account.on_refresh("hold")
    renewal = asyncio.create_task(aimux.post("/accounts/claude/default/refresh"))
    await sim.wait_for_held()
    renewal.cancel()
    await asyncio.wait({renewal})
    sim.release()
    await aimux.app.control.api.close()
    saved = json.loads((aimux.state_dir / "claude" / ".credentials.json").read_bytes())["claudeAiOauth"]
    assert saved["refreshToken"] == account.refresh_token
