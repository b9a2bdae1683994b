"""Usage as the API tells it: exact, and in the form that scripts rely on."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest

from aimux.metering.windows import Sampler
from aimux.plugin.types import LimitWindow
from aimux.simulator import Simulator
from tests.control.conftest import MESSAGE, Start
from tests.control.metered import ANN, SPAN, USERS, filled
from tests.metering.support import NOON, record

CODEX = {
    "model": "gpt-5.5",
    "instructions": "You help.",
    "input": [{"role": "user", "content": "word " * 200}],
    "store": False,
}


async def test_the_form_is_fixed(start: Start) -> None:
    usage = {"cache_read_tokens": 1000, "cache_write_tokens": 7, "reasoning_tokens": 2}
    aimux = await filled(start, [record(usage=usage), record(usage={"model": "no-such-model"}), record(user="bob")])
    assert await aimux.get(f"/usage?by=user&{SPAN}") == {
        "by": "user",
        "items": [
            {
                "user": "ann",
                "requests": 2,
                "input_tokens": 20,
                "output_tokens": 10,
                "cache_read_tokens": 1000,
                "cache_write_tokens": 7,
                "reasoning_tokens": 2,
                "cost_usd": 0.000436,
                "unpriced_requests": 1,
            },
            {
                "user": "bob",
                "requests": 1,
                "input_tokens": 10,
                "output_tokens": 5,
                "cache_read_tokens": 0,
                "cache_write_tokens": 0,
                "reasoning_tokens": 0,
                "cost_usd": 0.000105,
                "unpriced_requests": 0,
            },
        ],
        "total": {
            "requests": 3,
            "input_tokens": 30,
            "output_tokens": 15,
            "cache_read_tokens": 1000,
            "cache_write_tokens": 7,
            "reasoning_tokens": 2,
            "cost_usd": 0.000541,
            "unpriced_requests": 1,
        },
        "series": None,
        "kinds": None,
        "unread": 0,
        "next": None,
    }


async def test_a_real_request_is_there_at_once(start: Start) -> None:
    aimux = await start(users=USERS)
    assert (await aimux.message(authorization=f"Bearer {ANN}"))[0] == 200
    for by, name in {"user": "ann", "group": "red", "account": "claude/default", "provider": "claude"}.items():
        (item,) = (await aimux.get(f"/usage?by={by}&since=1h"))["items"]
        assert (item[by], item["requests"]) == (name, 1)
        assert item["output_tokens"] > 0
    (listed,) = (await aimux.get("/requests?since=1h"))["items"]
    assert (listed["user"], listed["status"], listed["account"]) == ("ann", 200, "default")
    assert listed["tokens"]["output"] == item["output_tokens"]
    assert listed["client"]


@pytest.mark.parametrize("path", ["/usage?model=%00", "/requests?conversation=a%00b", "/audit?target=%00"])
async def test_a_null_character_is_refused_before_a_database_does(start: Start, path: str) -> None:
    status, _, problem = await (await start()).send("GET", path)
    assert (status, problem["type"]) == (422, "urn:aimux:invalid")


async def test_what_was_begun_and_nobody_has_read_is_told(start: Start) -> None:
    aimux = await start(users=USERS)
    deposits, batches = aimux.app.deposits, f"{aimux.url}/claude/v1/messages/batches"
    headers = {"authorization": f"Bearer {ANN}", "anthropic-version": "2023-06-01"}
    wanted = {"requests": [{"custom_id": "q", "params": MESSAGE}]}

    async def unread(query: str = "") -> int | None:
        while deposits.deposits.fresh or deposits.deposits.claims:
            await deposits.flush()
        return (await aimux.get(f"/usage?since=1h{query}"))["unread"]  # type: ignore[no-any-return]

    async with aiohttp.ClientSession(headers=headers) as session:
        async with session.post(batches, json=wanted) as answer:
            one = (await answer.json())["id"]
        assert [await unread(query) for query in ("", "&user=ann&by=day", "&user=bob", "&model=m", "&provider=x")] == [
            1,
            1,
            0,
            None,
            0,
        ]
        own = {"authorization": f"Bearer {ANN}"}
        async with session.get(f"{aimux.url}/api/v1/me/usage", headers=own) as answer:
            assert (await answer.json())["unread"] == 1
        async with session.get(f"{batches}/{one}") as answer:
            await answer.read()
        async with session.get(f"{batches}/{one}/results") as answer:
            await answer.read()
        assert await unread() == 0


@pytest.mark.parametrize(
    ("path", "account", "body"),
    [
        ("/claude/v1/messages", "claude", {**MESSAGE, "messages": CODEX["input"]}),
        ("/chatgpt/v1/responses", "chatgpt", CODEX),
    ],
)
@pytest.mark.parametrize(("scenario", "error"), [("cut:8", "upstream_lost"), ("overload:8", "upstream_failed")])
async def test_what_fails_in_the_middle_counts_with_an_estimate(
    start: Start, sim: Simulator, path: str, account: str, body: Mapping[str, Any], scenario: str, error: str
) -> None:
    aimux = await start(users=USERS)
    async with aiohttp.ClientSession() as session:
        for one in (scenario, "ok"):
            sim.accounts[account].script(one)
            headers = {"authorization": f"Bearer {ANN}", "x-request-id": one, "anthropic-version": "2023-06-01"}
            with contextlib.suppress(aiohttp.ClientError):
                async with session.post(f"{aimux.url}{path}", json={**body, "stream": True}, headers=headers) as answer:
                    await answer.read()
    failed, whole = [await aimux.get(f"/requests/{one}") for one in (scenario, "ok")]
    assert (failed["status"], failed["error"], failed["estimated"]) == (200, error, True)
    assert (whole["error"], whole["estimated"]) == ("", False)
    assert failed["tokens"]["input"] > 0
    assert 0 < failed["tokens"]["output"] < whole["tokens"]["output"]


@pytest.mark.parametrize(
    ("by", "names"),
    [
        ("model", ["opus", "sonnet"]),
        ("token", ["t1"]),
        ("class", ["main"]),
        ("conversation", ["talk"]),
        ("day", ["2026-11-25", "2026-11-26"]),
        ("hour", ["2026-11-25T12:00:00Z", "2026-11-26T12:00:00Z"]),
    ],
)
async def test_the_key_is_named_after_what_was_asked(start: Start, by: str, names: list[str]) -> None:
    sender = {"request_class": "main"}
    some = [record(sender=sender), record(NOON - 86400, sender=sender, usage={"model": "opus"})]
    aimux = await filled(start, some)
    items = (await aimux.get(f"/usage?by={by}&{SPAN}"))["items"]
    assert sorted(item[by] for item in items) == names


async def test_a_token_is_shown_with_whose_it_is(start: Start) -> None:
    aimux = await filled(start, [record()])
    issued = await aimux.post("/tokens", {"user": "ann", "label": "=laptop"}, expect=201)
    aimux.app.metering.ledger.record(record(sender={"token": issued["id"]}))
    await aimux.app.metering.ledger.catch_up(30)
    items = (await aimux.get(f"/usage?by=token&{SPAN}"))["items"]
    assert {(item["token"], item["user"], item["label"]) for item in items} == {
        (issued["id"], "ann", "=laptop"),
        ("t1", "", ""),
    }
    _, _, text = await aimux.send("GET", f"/usage?by=token&{SPAN}", headers={"accept": "text/csv"})
    table = text.splitlines()
    assert table[0].startswith("token,user,label,requests,")
    assert any(line.startswith(f"{issued['id']},ann,'=laptop,1,") for line in table)


async def test_cost_by_kind_and_what_the_cache_saved(start: Start) -> None:
    """At 3 $ a million tokens of input and 0.30 $ out of the cache, and 6 $ into it for an hour; thinking is 20 $ of
    15 $ of output."""
    tokens = {"input_tokens": 10**6, "output_tokens": 10**6, "cache_read_tokens": 10**7}
    tokens |= {"cache_write_tokens": 3 * 10**6, "cache_write_1h_tokens": 10**6, "reasoning_tokens": 4 * 10**5}
    aimux = await filled(start, [record(usage=tokens), record(usage={**tokens, "model": "no-such-model"})])
    usage = await aimux.get(f"/usage?by=user&{SPAN}&kinds=true")
    assert usage["kinds"] == {"input": 3, "output": 17, "cache_read": 3, "cache_write": 12, "saved": 24}
    assert usage["total"]["cost_usd"] == 35
    assert usage["items"] == (await aimux.get(f"/usage?by=user&{SPAN}"))["items"]


async def test_one_sees_ones_own_usage_and_no_accounts_name(start: Start) -> None:
    aimux = await filled(start, [record(), record(user="bob"), record(usage={"model": "opus"})])
    aimux.key = ANN
    found = await aimux.get(f"/me/usage?{SPAN}")
    assert [item["model"] for item in found["items"]] == ["sonnet", "opus"]
    assert found["total"]["requests"] == 2
    assert (await aimux.send("GET", f"/me/usage?by=account&{SPAN}"))[0] == 422
    assert (await aimux.send("GET", f"/me/usage?user=bob&{SPAN}"))[0] == 422
    for path in (f"/usage?{SPAN}", f"/usage/series?{SPAN}", f"/requests?{SPAN}"):
        assert (await aimux.send("GET", path))[0] == 403
    assert "default" not in str(found)


async def test_requests_are_found(start: Start) -> None:
    records = [
        record(NOON - 30, status=429, error="", usage={"output_tokens": 0, "input_tokens": 0}),
        record(NOON - 20, user="bob", usage={"model": "opus"}, conversation="other"),
        record(NOON - 10, error="upstream_lost"),
        record(NOON),
    ]
    aimux = await filled(start, records)

    async def ids(query: str) -> list[str]:
        return [item["id"] for item in (await aimux.get(f"/requests?{SPAN}&{query}"))["items"]]

    a, b, c, d = (one.id for one in records)
    assert await ids("") == [d, c, b, a]
    assert await ids("user=bob") == [b]
    assert await ids("model=opus") == [b]
    assert await ids("failed=true") == [c, a]
    assert await ids("failed=false") == [d, b]
    assert await ids("status=429") == [a]
    assert await ids("conversation=other") == [b]
    assert await ids("account=claude/default&user=ann") == [d, c, a]
    assert await ids("class=nothing") == []


async def test_a_request_that_memory_has_forgotten_is_explained_from_the_ledger(start: Start) -> None:
    aimux = await start(users=USERS)
    _, headers = await aimux.message(authorization=f"Bearer {ANN}", **{"x-request-id": "build-7"})
    remembered = await aimux.get("/requests/build-7")
    await aimux.get("/usage")  # which has it written
    kept = await (await start(users=USERS)).get("/requests/build-7")
    for one in (remembered, kept):
        for rounded in ("seconds", "first_byte_seconds", "steps"):
            one.pop(rounded)
    assert kept == remembered
    assert (kept["id"], headers["x-request-id"]) == ("build-7", "build-7")
    assert (await aimux.send("GET", "/requests/build-8"))[0] == 404


async def test_accounts_windows_stand_beside_what_was_metered(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth was moved by 30,015 tokens, and a fifth hours later by none."""
    at = int(NOON * 1000)
    for module in ("reports", "windows"):
        monkeypatch.setattr(f"aimux.metering.{module}.now", lambda: at + 10 * 3_600_000)
    aimux = await filled(start, [record(usage={"cache_read_tokens": 30_000}, duration=9.0)])
    state = SimpleNamespace(provider="claude", name="default", limits={})
    sampler = Sampler(aimux.app.metering.database, lambda: [state])
    for hours, used in ((0.0, 0.1), (0.5, 0.2), (4.0, 0.4)):
        still = LimitWindow("7d", 0.5, NOON + 5 * 86400)
        state.limits = {"5h": LimitWindow("5h", used, NOON + 5 * 3600), "7d": still}
        await sampler.sample(at + int(hours * 3_600_000))
    window, unmoved = (await aimux.get(f"/usage/accounts?{SPAN}"))["items"]
    assert (unmoved["moved"], unmoved["tokens"], unmoved["tokens_per_percent"]) == (0, 30_015, None)
    cost = window.pop("cost_usd")
    assert cost == (await aimux.get(f"/usage?by=user&{SPAN}"))["total"]["cost_usd"] > 0
    assert window == {
        "account": "claude/default",
        "window": "5h",
        "used": 0.4,
        "resets_at": "2026-11-26T17:00:00Z",
        "moved": 0.3,
        "unexplained": 0.2,
        "requests": 1,
        "tokens": 30_015,
        "tokens_per_percent": 3001.5,
    }
