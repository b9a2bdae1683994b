"""Logins that other programs keep become accounts through the API."""

from __future__ import annotations

import json

from aimux.simulator import Simulator
from aimux.simulator.demo import credential_file
from tests.control.conftest import Aimux


def opencode(sim: Simulator) -> dict[str, dict[str, object]]:
    """Its auth.json, with a login of each vendor that are not in aimux yet, and what no provider takes."""
    claude = json.loads(credential_file(sim.add_account("kept-claude", "anthropic")))["claudeAiOauth"]
    chatgpt = json.loads(credential_file(sim.add_account("kept-chatgpt", "openai")))["tokens"]
    return {
        "anthropic": {"type": "oauth", "access": claude["accessToken"], "refresh": claude["refreshToken"]},
        "openai": {"type": "oauth", "access": chatgpt["access_token"], "refresh": chatgpt["refresh_token"]},
        "github-copilot": {"type": "oauth", "access": "tid=secret-9", "refresh": "ghu_secret-9"},
    }


async def test_logins_that_another_program_keeps_become_accounts(aimux: Aimux, sim: Simulator) -> None:
    file = json.dumps(opencode(sim))
    done = await aimux.post("/accounts/import", {"file": file, "check": True}, expect=201)
    assert [(one["provider"], one["status"]) for one in done["items"]] == [
        ("claude", "healthy"),
        ("chatgpt", "healthy"),
    ]
    assert [one["where"] for one in done["left"]] == ["github-copilot"]
    assert "secret-9" not in json.dumps(done)
    # Once more: what is here may have been renewed since, and what comes again may be older.
    status, _, told = await aimux.send("POST", "/accounts/import", json={"file": file})
    assert (status, told["detail"]) == (422, "No login in this file can be taken.")
    full = f"claude/{done['items'][0]['name']}"
    assert told["errors"][0] == {"where": "anthropic", "message": f"There is an account {full} already."}
    audit = (await aimux.get("/audit"))["items"]
    assert [one["target"] for one in audit if one["action"] == "account.add"] == [
        f"account:{one['provider']}/{one['name']}" for one in reversed(done["items"])
    ]


async def test_only_one_providers_are_taken_of_a_file(aimux: Aimux, sim: Simulator) -> None:
    body = {"file": json.dumps(opencode(sim)), "provider": "chatgpt"}
    done = await aimux.post("/accounts/import", body, expect=201)
    assert [one["provider"] for one in done["items"]] == ["chatgpt"]
    assert (await aimux.send("POST", "/accounts/import", json=body | {"provider": "cloud"}))[0] == 404


async def test_what_holds_no_login_says_so(aimux: Aimux) -> None:
    status, _, told = await aimux.send("POST", "/accounts/import", json={"file": "secret-of-somebody-9"})
    assert status == 422
    assert [one["where"] for one in told["errors"]] == ["body.file"]
    assert "secret-of" not in json.dumps(told)


async def test_a_key_fits_several_providers_and_has_to_be_said_whose_it_is(aimux: Aimux) -> None:
    key = json.dumps({"api_key": "a-key-of-nobody-knows-whom"})
    status, _, told = await aimux.send("POST", "/accounts/import", json={"file": key})
    assert status == 422
    assert told["errors"][0]["message"].endswith(": name its provider.")
    done = await aimux.post("/accounts/import", {"file": key, "provider": "claude"}, expect=201)
    assert done["items"][0]["kind"] == "api_key"


async def test_a_login_is_taken_out_of_the_file_in_which_another_program_keeps_it(aimux: Aimux, sim: Simulator) -> None:
    kept = opencode(sim)
    body = {"provider": "claude", "name": "kept", "file": json.dumps(kept)}
    assert (await aimux.post("/accounts", body, expect=201))["status"] == "healthy"
    two = {"accounts": [{"type": "claude", "access_token": f"sk-ant-oat01-login-{number}"} for number in range(2)]}
    status, _, told = await aimux.send("POST", "/accounts", json=body | {"name": "two", "file": json.dumps(two)})
    assert (status, told["detail"]) == (422, "This file has 2 logins of claude.")
