"""Whose account serves: conversations, pins, groups, and what is remembered of it."""

from __future__ import annotations

import json

import pytest

from aimux.people import Role

from .answers import OK, error, script, status_of
from .conftest import TOKEN, Start, Upstream, request
from .people import add


async def test_a_conversation_stays_on_its_account(start: Start, upstream: Upstream) -> None:
    """Without a session header its first message names it, and never the system prompt alone."""
    names = ("default", "two", "three")
    asked = script(upstream, dict.fromkeys(names, OK))
    aimux = await start(accounts=names)
    for turn in range(6):
        for talk in ("a", "b", "c"):
            messages = [{"role": "system", "content": "shared"}, {"role": "user", "content": talk}]
            messages += [{"role": "assistant", "content": "x"}] * turn
            await aimux.send(request(body=json.dumps({"messages": messages}).encode()))
    assert len(set(asked[0::3])) == len(set(asked[1::3])) == len(set(asked[2::3])) == 1
    assert len(set(asked)) > 1


@pytest.mark.parametrize("mark", ["cache_control", "prompt_cache_breakpoint"])
async def test_a_mark_for_the_cache_that_slides_on_moves_no_conversation(
    start: Start, upstream: Upstream, mark: str
) -> None:
    """Clients mark the last messages of each request: a conversation's first one is marked for a turn or two."""
    asked = script(upstream, {"default": OK, "two": OK})
    aimux = await start(accounts=("default", "two"))
    for talk in ("a", "b", "c"):
        text = {"type": "text", "text": talk}
        for content in ([text | {mark: {"type": "ephemeral"}}], [text], talk):
            await aimux.send(request(body=json.dumps({"messages": [{"role": "user", "content": content}]}).encode()))
        for marked in ({mark: {"type": "ephemeral"}}, {}):
            picture = {"type": "image", "source": {"type": "file", "file_id": talk}} | marked
            message = {"role": "user", "content": [picture, text]}
            await aimux.send(request(body=json.dumps({"messages": [message]}).encode()))
    talks = [asked[0:3], asked[3:5], asked[5:8], asked[8:10], asked[10:13], asked[13:15]]
    assert [len(set(talk)) for talk in talks] == [1] * 6
    assert len(set(asked)) == 2


async def test_a_long_first_message_keeps_its_conversation_as_that_grows(start: Start, upstream: Upstream) -> None:
    """A document in it, say: of a large body only the beginning is read."""
    asked = script(upstream, {"default": OK, "two": OK})
    aimux = await start(accounts=("default", "two"))
    for talk in ("a", "b", "c"):
        source = {"type": "base64", "media_type": "application/pdf", "data": talk * 100_000}
        messages: list[object] = [{"role": "user", "content": [{"type": "document", "source": source}]}]
        for _ in range(3):
            body = {"system": "s" * 20_000, "messages": messages}
            await aimux.send(request(body=json.dumps(body).encode()))
            messages = [*messages, {"role": "assistant", "content": "x" * 60_000}]
    assert [len(set(asked[at : at + 3])) for at in (0, 3, 6)] == [1] * 3
    assert len(set(asked)) == 2


@pytest.mark.parametrize("name", ["X-Session-Affinity", "X-Session-Id", "X-Opencode-Session"])
async def test_a_session_that_clients_name_to_any_gateway_is_a_conversation(
    start: Start, upstream: Upstream, name: str
) -> None:
    """Also behind a summary, which begins the conversation anew."""
    asked = script(upstream, {"default": OK, "two": OK})
    aimux = await start(accounts=("default", "two"))
    for turn in range(4):
        for talk in ("a", "b", "c"):
            body = json.dumps({"messages": [{"role": "user", "content": f"{turn}"}]}).encode()
            await aimux.send(request(headers=f"{name}: {talk}\r\nX-Request-Id: {talk}{turn}\r\n", body=body))
    assert [len(set(asked[at::3])) for at in range(3)] == [1] * 3
    assert len(set(asked)) == 2
    record = aimux.app.journal.get("a3")
    assert record is not None
    assert record.conversation == "a"


async def test_an_admin_is_told_whose_account_it_was(start: Start, upstream: Upstream) -> None:
    """Nobody else is who may not choose one, nor is a token with scopes, which has no role."""
    script(upstream, {"default": OK})
    tokens = {role: f"token-of-{role}-0123456789" for role in ("admin", "viewer", "member")}
    aimux = await start(users=[{"name": role, "token": token, "role": role} for role, token in tokens.items()])
    answers = {role: await aimux.send(request(token=token)) for role, token in tokens.items()}
    assert [role for role, answer in answers.items() if b"x-aimux-" in answer] == ["admin"]
    assert b"x-aimux-account: default\r\n" in answers["admin"]
    assert b"x-aimux-attempts: 1\r\n" in answers["admin"]
    narrow = await add(aimux, "ada", token_scopes=("provider:plain",), role=Role.ADMIN)
    answer = await aimux.send(request(token=narrow))
    assert status_of(answer) == 200
    assert b"x-aimux-" not in answer


async def test_a_user_may_pin_an_account_only_where_allowed(start: Start, upstream: Upstream) -> None:
    asked = script(upstream, {"default": OK, "two": OK})
    users = [{"name": "ann", "token": TOKEN, "pin_accounts": True}, {"name": "bob", "token": "bob-token-0123456789"}]
    aimux = await start(accounts=("default", "two"), users=users)
    for _ in range(3):
        answer = await aimux.send(request(headers="X-Aimux-Account: two\r\n"))
        assert b"x-aimux-account: two\r\n" in answer
        assert b"x-aimux-attempts: 1\r\n" in answer
    assert asked == ["two"] * 3
    refused = await aimux.send(request(headers="X-Aimux-Account: two\r\n", token="bob-token-0123456789"))
    assert status_of(refused) == 403
    assert status_of(await aimux.send(request(headers="X-Aimux-Account: nobody\r\n"))) == 400
    answer = await aimux.send(request(token="bob-token-0123456789"))
    assert b"x-aimux-account" not in answer


async def test_how_a_request_was_routed_is_remembered(start: Start, upstream: Upstream) -> None:
    script(upstream, {"default": error(503), "two": error(503)})
    aimux = await start(accounts=("default", "two"))
    await aimux.send(request(headers="X-Request-Id: why-1\r\n"))
    record = aimux.app.journal.get("why-1")
    assert record is not None
    assert record.status == 503
    assert [(step.status, step.action) for step in record.steps] == [(503, "back_off")] * 2
    assert {step.account for step in record.steps} == {"default", "two"}


async def test_the_record_says_who_sent_it(start: Start, upstream: Upstream) -> None:
    script(upstream, {"default": OK})
    aimux = await start(users=[{"name": "ann", "token": TOKEN, "groups": ["b"]}])
    about = "User-Agent: claude-cli/2.1 (external)\r\nX-Class: subagent\r\nX-Conversation: talk\r\nX-Request-Id: it\r\n"
    await aimux.send(request(headers=about))
    await aimux.send(request(headers="X-Request-Id: other\r\n"))
    record, other = aimux.app.journal.get("it"), aimux.app.journal.get("other")
    assert record is not None
    assert other is not None
    sender = record.sender
    assert (sender.mount, sender.groups, sender.client, sender.request_class) == (
        "/plain",
        ("b",),
        "claude-cli/2.1",
        "subagent",
    )
    assert record.conversation == "talk"
    assert sender.token
    assert sender.token not in TOKEN
    assert (other.sender.client, other.sender.request_class, other.conversation) == ("", "", "")
    assert record.id < other.id


async def test_two_users_with_the_same_conversation_share_no_account(start: Start, upstream: Upstream) -> None:
    """A user who names another one's conversation must not move it."""
    asked = script(upstream, {"default": OK, "two": OK})
    other = "bob-token-0123456789"
    users = [{"name": "ann", "token": TOKEN}, {"name": "bob", "token": other}]
    aimux = await start(accounts=("default", "two"), users=users)
    talk = "X-Conversation: talk\r\n"
    await aimux.send(request(headers=talk))
    await aimux.send(request(headers=talk, token=other))
    for _ in range(3):
        await aimux.send(request(headers=talk))
    assert asked[0] != asked[1]
    assert set(asked[2:]) == {asked[0]}


async def test_a_user_bound_to_a_group_gets_its_accounts_only(start: Start, upstream: Upstream) -> None:
    asked = script(upstream, {"default": OK, "two": OK})
    base = f"http://127.0.0.1:{upstream.port}"
    groups = {"default": {"groups": ["a"]}, "two": {"groups": ["b"]}}
    aimux = await start(
        accounts=("default", "two"),
        users=[{"name": "ann", "token": TOKEN, "groups": ["b"]}],
        providers={"plain": {"base_url": base, "accounts": groups}},
    )
    for _ in range(4):
        assert status_of(await aimux.send(request())) == 200
    assert set(asked) == {"two"}


async def test_what_is_said_when_nobody_serves_is_of_the_users_own_accounts(start: Start, upstream: Upstream) -> None:
    script(upstream, {"default": OK, "two": error(401)})
    aimux = await start(
        accounts=("default", "two"),
        users=[{"name": "ann", "token": TOKEN, "groups": ["b"]}],
        providers={
            "plain": {
                "base_url": f"http://127.0.0.1:{upstream.port}",
                "accounts": {"default": {"groups": ["a"]}, "two": {"groups": ["b"]}},
            }
        },
    )
    await aimux.send(request())
    answer = await aimux.send(request())
    assert status_of(answer) == 503
    assert b"Every plain account that you may use is out of service" in answer
    assert b"default" not in answer
