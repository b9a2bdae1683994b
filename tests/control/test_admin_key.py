"""Who may use the API, and what it says to everybody else."""

from __future__ import annotations

import asyncio
import hashlib
import io
import stat
from pathlib import Path
from typing import Any

import pytest

from aimux.cli.banner import banner_lines
from aimux.control.key import KEY_FILE, ensure_key
from aimux.gateway.guesses import FREE
from tests.control.conftest import Aimux, Start

TOKEN = "admin-token-0123456789"
ELSEWHERE = {"x-forwarded-for": "203.0.113.9"}
PROXY = ["127.0.0.0/8"]


async def test_without_the_key_nothing_is_told(aimux: Aimux) -> None:
    for headers in (
        {"authorization": ""},
        {"authorization": f"Bearer {aimux.key}x"},
        {"authorization": f"Basic {aimux.key}"},
        {"authorization": "", "cookie": f"key={aimux.key}; authorization=Bearer {aimux.key}"},
    ):
        for path in ("/accounts", "/openapi.json", "/nothing", ""):
            status, answered, problem = await aimux.send("GET", path, headers=headers)
            assert (status, problem["type"]) == (401, "urn:aimux:unauthorized"), headers
            assert answered["www-authenticate"] == 'Bearer realm="aimux admin"'
            assert answered["content-type"] == "application/problem+json"
    assert (await aimux.send("GET", f"/accounts?key={aimux.key}", headers={"authorization": ""}))[0] == 401


async def test_a_user_is_no_admin(start: Start) -> None:
    user = "a-users-own-token-123"
    aimux = await start(users=[{"name": "ann", "token": user}])
    assert (await aimux.message(authorization=f"Bearer {user}"))[0] == 200
    assert (await aimux.send("GET", "/accounts", headers={"authorization": f"Bearer {user}"}))[0] == 403
    assert (await aimux.message(authorization=f"Bearer {aimux.key}"))[0] == 401


async def test_guessing_is_slowed_down_and_the_right_key_is_not(aimux: Aimux) -> None:
    async def guess(number: int) -> tuple[int, Any, Any]:
        return await aimux.send("GET", "/accounts", headers={"authorization": f"Bearer guess-{number}"})

    assert {(await guess(0))[0] for _ in range(FREE * 2)} == {401}, "the same one is no further guess"
    told = await asyncio.gather(*map(guess, range(1, 4 * FREE)))
    assert {status for status, _, _ in told} == {401, 429}
    assert [status for status, _, _ in told].count(401) < 2 * FREE
    [headers, *_] = [headers for status, headers, _ in told if status == 429]
    assert headers["retry-after"] == "1"
    assert (await aimux.send("GET", "/accounts"))[0] == 200


async def test_without_an_admin_token_only_this_machine_is_served(start: Start) -> None:
    aimux = await start(trusted_proxies=PROXY)
    for path in ("/accounts", "/openapi.json", "/oauth/claude/callback?code=x&state=x", "/nothing"):
        status, _, problem = await aimux.send("GET", path, headers=ELSEWHERE)
        assert (status, problem["type"]) == (403, "urn:aimux:forbidden")
    assert "admin.token" in problem["remedy"]
    assert (await aimux.send("GET", "/accounts"))[0] == 200


async def test_what_came_through_a_proxy_is_not_from_here(aimux: Aimux) -> None:
    for headers in (ELSEWHERE, {"x-forwarded-for": "127.0.0.1"}, {"forwarded": "for=127.0.0.1"}):
        assert (await aimux.send("GET", "/accounts", headers=headers))[0] == 403


@pytest.mark.parametrize(
    ("peer", "reached", "forwarded", "served"),
    [
        ("127.0.0.1", "127.0.0.1", False, True),
        ("192.0.2.5", "192.0.2.5", False, True),  # `listen: 192.0.2.5:8080`, from the machine itself
        ("192.0.2.5", "192.0.2.5", True, False),
        ("192.0.2.6", "192.0.2.5", False, False),
        ("192.0.2.6", "127.0.0.1", False, False),
    ],
)
async def test_from_the_machines_own_address_to_itself_is_local(
    aimux: Aimux, monkeypatch: pytest.MonkeyPatch, peer: str, reached: str, forwarded: bool, served: bool
) -> None:
    monkeypatch.setattr("aimux.control.middlewares.callers.ends", lambda _request: (peer, reached))
    headers = ELSEWHERE if forwarded else {}
    assert (await aimux.send("GET", "/accounts", headers=headers))[0] == (200 if served else 403)


@pytest.mark.parametrize("how", ["token", "token_file", "token_sha256"])
async def test_an_admin_token_opens_it_from_everywhere(start: Start, tmp_path: Path, how: str) -> None:
    file = tmp_path / "admin-token"
    file.write_text(TOKEN + "\n")
    file.chmod(0o600)
    given = {"token": TOKEN, "token_file": str(file), "token_sha256": hashlib.sha256(TOKEN.encode()).hexdigest()}
    aimux = await start(admin={how: given[how]}, trusted_proxies=PROXY)
    assert (await aimux.send("GET", "/accounts", headers=ELSEWHERE))[0] == 401
    aimux.key = TOKEN
    assert (await aimux.send("GET", "/accounts", headers=ELSEWHERE))[0] == 200
    assert not (aimux.state_dir / KEY_FILE).exists()
    assert TOKEN not in repr(aimux.app.control.key)


async def test_the_key_is_made_once_kept_privately_and_forgotten(start: Start) -> None:
    aimux = await start()
    path = aimux.state_dir / KEY_FILE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert aimux.app.made_key == aimux.key == path.read_text().strip()
    assert aimux.app.control.key is not None
    assert aimux.app.control.key.sha256 == hashlib.sha256(aimux.key.encode()).digest()
    assert aimux.key not in repr(aimux.app.control.key) + aimux.log
    again = await start()
    assert again.app.made_key is None
    assert (await again.send("GET", "/accounts", headers={"authorization": f"Bearer {aimux.key}"}))[0] == 200


async def test_the_banner_shows_a_fresh_key_once_and_to_a_terminal_only(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    aimux = await start()
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    shown = [line for line in banner_lines(aimux.app, 0.0) if "admin key" in line]
    assert len(shown) == 1
    assert aimux.key in shown[0]
    assert str(aimux.state_dir / KEY_FILE) in shown[0]
    again = await start()
    assert "admin key" not in "\n".join(banner_lines(again.app, 0.0))
    monkeypatch.setattr("sys.stdout.isatty", lambda: False, raising=False)
    text = "\n".join(banner_lines(aimux.app, 0.0))
    assert str(aimux.state_dir / KEY_FILE) in text
    assert aimux.key not in text


def test_a_key_that_can_be_none_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / KEY_FILE
    for broken in (b"", b"short\n", b"\xff" * 40, b"with a line\nand another 123456"):
        path.write_bytes(broken)
        key, made = ensure_key(tmp_path)
        assert made is not None
        assert path.read_text() == made + "\n"
        assert key.sha256 == hashlib.sha256(made.encode()).digest()
    assert [entry.name for entry in tmp_path.iterdir()] == [KEY_FILE]


def test_a_key_of_ones_own_is_kept_and_made_private(tmp_path: Path) -> None:
    path = tmp_path / KEY_FILE
    path.write_text("a-key-of-my-own-123\n")
    path.chmod(0o644)
    key, made = ensure_key(tmp_path)
    assert made is None
    assert key.sha256 == hashlib.sha256(b"a-key-of-my-own-123").digest()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_where_no_key_can_be_kept_the_rest_still_serves(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("aimux.app.files.ensure_key", fail)
    aimux = await start(admin={})
    assert aimux.app.control.key is None
    status, _, problem = await aimux.send("GET", "/accounts")
    assert (status, problem["type"]) == (403, "urn:aimux:no-key")
    assert (await aimux.message())[0] == 200
    assert "Read-only file system" in aimux.log


async def test_a_reload_brings_the_new_token(start: Start) -> None:
    settings = {"token": TOKEN}
    aimux = await start(admin=settings)
    aimux.key = "another-token-0123456789"
    assert (await aimux.send("GET", "/accounts"))[0] == 401
    settings["token"] = aimux.key
    assert await aimux.app.reload()
    assert (await aimux.send("GET", "/accounts"))[0] == 200


# --- requests that don't fit -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "options"),
    [
        (415, {"data": "x=1", "headers": {"content-type": "application/x-www-form-urlencoded"}}),
        (415, {"data": b"{}", "headers": {"content-type": "text/plain"}}),
        (415, {"data": b"{}", "headers": {"content-type": "application/json", "content-encoding": "br"}}),
        (400, {"data": b"{", "headers": {"content-type": "application/json"}}),
        (400, {"data": b"\xff", "headers": {"content-type": "application/json"}}),
        (413, {"data": io.BytesIO(b" " * (1024 * 1024 + 1)), "headers": {"content-type": "application/json"}}),
        (422, {"json": []}),
        (422, {"json": {"provider": "claude"}}),
        (422, {"json": {"provider": "claude", "api_key": "a", "file": "{}"}}),
        (422, {"json": {"provider": "claude", "api_key": "a", "unknown": 1}}),
        (422, {"json": {"provider": "claude", "api_key": "a", "replace": "yes"}}),
        (422, {"json": {"provider": "claude", "api_key": 5}}),
        (422, {"json": {"provider": "claude", "name": "../../etc", "api_key": "a"}}),
        (404, {"json": {"provider": "nobody", "api_key": "a"}}),
    ],
)
async def test_a_body_that_does_not_fit_is_refused(aimux: Aimux, status: int, options: dict[str, object]) -> None:
    got, headers, problem = await aimux.send("POST", "/accounts", **options)
    assert (got, problem["status"]) == (status, status), problem
    assert headers["content-type"] == "application/problem+json"
    assert problem["title"]
    assert problem["detail"]
    assert [fault["where"].partition(".")[0] for fault in problem.get("errors", [])] in ([], ["body"])


async def test_thousands_of_wrong_fields_are_counted_and_not_told(aimux: Aimux) -> None:
    """To word so many kept everybody else waiting for ten seconds."""
    for count, told in ((99, 100), (100, 0), (60_000, 0)):  # and the provider is missing
        fields = {f"k{number}": 1 for number in range(count)}
        status, _, problem = await aimux.send("POST", "/accounts", json=fields)
        assert (status, len(problem.get("errors", []))) == (422, told)
        assert len(problem["detail"]) < 5_000
    assert problem["detail"] == "body: 60001 fields are wrong, or not known here."


async def test_who_needs_no_key_sends_little(aimux: Aimux) -> None:
    for size, status in ((16_000, 422), (17_000, 413)):
        assert (await aimux.send("POST", "/invitations/look", json={"code": "x" * size}))[0] == status


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=x", "limit=1&limit=2", "what=1", "provider=/"])
async def test_a_query_that_does_not_fit_is_refused(aimux: Aimux, query: str) -> None:
    status, _, problem = await aimux.send("GET", f"/accounts?{query}")
    assert status == 422, problem


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PUT", "/accounts", "GET, HEAD, POST"),
        ("OPTIONS", "/accounts", "GET, HEAD, POST"),
        ("PUT", "/accounts/claude/default", "DELETE, GET, HEAD, PATCH"),
        ("GET", "/accounts/claude/default/test", "POST"),
    ],
)
async def test_another_method_is_told_which_ones_there_are(aimux: Aimux, method: str, path: str, allow: str) -> None:
    status, headers, _ = await aimux.send(method, path)
    assert (status, headers["allow"]) == (405, allow)
    assert "access-control-allow-origin" not in headers


@pytest.mark.parametrize(
    "path", ["", "/", "/accounts/", "/accounts/claude", "/accounts/claude/a%2Fb", "/accounts/claude/%00", "/v1", "/x"]
)
async def test_other_paths_have_the_same_kind_of_answer(aimux: Aimux, path: str) -> None:
    status, headers, problem = await aimux.send("GET", path)
    assert status in {400, 404}
    assert headers["content-type"] == "application/problem+json"
    assert problem["status"] == status


async def test_a_root_mount_does_not_hide_the_api(start: Start) -> None:
    aimux = await start(mounts={"/": "claude"})
    assert (await aimux.send("GET", "/accounts"))[0] == 200


async def test_a_fault_of_ours_is_told_without_its_details(aimux: Aimux, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("secret-in-a-traceback")

    monkeypatch.setattr("aimux.people.audit.page", broken)
    status, _, problem = await aimux.send("GET", "/audit")
    assert (status, problem["type"]) == (500, "urn:aimux:internal")
    assert "secret" not in str(problem)
    assert "RuntimeError" in aimux.log
