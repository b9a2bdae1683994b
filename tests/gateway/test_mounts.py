"""Which provider a target leads to, and which targets are refused."""

from __future__ import annotations

import string
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimux.gateway.mounts import MountTable, check_target
from aimux.plugin import GatewayError

TABLE = MountTable({"/claude": "claude", "/api/latest/anthropic": "claude", "/chatgpt": "chatgpt"})
ROOT = MountTable({"/": "claude", "/chatgpt": "chatgpt"})


@pytest.mark.parametrize(
    ("table", "target", "provider", "below"),
    [
        (TABLE, "/claude/v1/messages?beta=true", "claude", "/v1/messages?beta=true"),
        (TABLE, "/claude", "claude", "/"),
        (TABLE, "/claude/", "claude", "/"),
        (TABLE, "/claude?a=b", "claude", "/?a=b"),
        (TABLE, "/claude//v1/messages", "claude", "//v1/messages"),
        (TABLE, "/api/latest/anthropic/v1/messages", "claude", "/v1/messages"),
        (TABLE, "/chatgpt/v1/responses?q=/claude/", "chatgpt", "/v1/responses?q=/claude/"),
        (ROOT, "/v1/messages", "claude", "/v1/messages"),
        (ROOT, "/chatgpt/v1", "chatgpt", "/v1"),
        (ROOT, "/chatgptx/v1", "claude", "/chatgptx/v1"),
        (ROOT, "/api/hello", "claude", "/api/hello"),
        (ROOT, "/healthy", "claude", "/healthy"),
    ],
)
def test_the_deepest_mount_wins(table: MountTable, target: str, provider: str, below: str) -> None:
    found = table.find(target)
    assert found is not None
    assert (found[0].provider, found[1]) == (provider, below)


@pytest.mark.parametrize(
    "target", ["/", "/claudex/v1", "/api/latest", "/api/latest/anthropicx", "/CLAUDE/v1", "/x?/claude"]
)
def test_what_is_not_mounted_is_not_found(target: str) -> None:
    assert TABLE.find(target) is None


@pytest.mark.parametrize("target", ["/health", "/ready?x", "/metrics", "/api/v1", "/api/v1/accounts", "/api/v1?x"])
def test_a_mount_at_the_root_leaves_aimuxs_own_paths_alone(target: str) -> None:
    assert ROOT.find(target) is None


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "/?x",
        "/admin",
        "/admin/accounts",
        "/oauth/exchange",
        "/auth/callback?code=c",
        "/api/oauth/authorize",
        "/api/oauth/exchange",
        "/api/oauth/callback?code=c",
        "/api/oauth/tokens/refresh",
        "/oauth/authorize?x",
        "/api/tokens",
        "/api/accounts/1",
        "/dashboard/",
    ],
)
def test_a_mount_at_the_root_sends_no_vendor_what_the_old_gateways_had_there(target: str) -> None:
    assert ROOT.find(target) is None


@pytest.mark.parametrize("target", ["/api/oauth/usage", "/api/codex/usage", "/v1/messages", "/adminx"])
def test_what_the_vendors_have_at_the_root_is_theirs(target: str) -> None:
    assert ROOT.find(target) is not None


@pytest.mark.parametrize(
    "target",
    [
        "http://evil.example/claude/v1",
        "evil.example:443",
        "*",
        "",
        "/claude/../chatgpt",
        "/claude/..",
        "/claude/./v1",
        "/claude/%2e%2e/x",
        "/claude/%2E./x",
        "/claude/.%2e/x",
        "/claude/%2fetc",
        "/claude/%5cx",
        "/claude/%252e%252e/x",
        "/claude/%00",
        "/claude/%0d%0aHost:x",
        "/claude\\..\\x",
        "/claude/v1#fragment",
        "/claude/%zz",
        "/claude/v1%",
        "/claude/v1%4",
        "/claude/v1%?x",
        "/claude/a b",
        "/claude/é",
        "/claude/v1?q=a b",
        "/claude/v1?q=\\",
        "/claude/v1?a#b",
    ],
)
def test_a_target_cannot_leave_its_mount_or_host(target: str) -> None:
    with pytest.raises(GatewayError) as caught:
        check_target(target)
    assert caught.value.status == 400
    assert caught.value.retry is False


@pytest.mark.parametrize(
    "target",
    [
        "/claude/v1/messages?beta=true",
        "/claude/v1/models/foo@bar:latest",
        "/claude/v1/files/a%20b",
        "/claude/...",
        "/claude/.well-known/x",
        "//v1/messages",
        "/claude/v1?path=../..&u=https://x/%2f",
    ],
)
def test_ordinary_targets_pass(target: str) -> None:
    check_target(target)


SLASHED = [
    ("/v1/models/mistralai%2Fmistral-7b", True),
    ("/v1/models/a%2fb%2Fc", True),
    ("/v1/models/a%2F..%2Fb", False),
    ("/v1/models/..%2Fb", False),
    ("/v1/models/%2e%2e%2Fb", False),
    ("/v1/models/a%2F", False),
    ("/v1/models/%2F%2Fhost", False),
    ("/v1/models/a%2F%252e%252e", False),
    ("/v1/models/a%5Cb%2Fc", False),
]


@pytest.mark.parametrize(("below", "passes"), SLASHED)
def test_an_encoded_slash_passes_where_the_providers_models_have_them(below: str, passes: bool) -> None:
    table = MountTable({"/claude": "claude", "/local": "local"}, ["local"])
    for prefix, allowed in (("/claude", False), ("/local", passes), ("", False)):
        try:
            found = table.find(prefix + below)
        except GatewayError:
            assert not allowed
        else:
            assert allowed
            assert found is not None
            assert found[1] == below, "as it was sent"


@given(st.text(string.ascii_letters + "/.%25eEfF;\\@:?#&=~ ", max_size=40))
def test_no_accepted_path_decodes_to_another_path(rest: str) -> None:
    target = "/" + rest
    try:
        check_target(target)
    except GatewayError:
        return
    path = target.partition("?")[0]
    once = unquote(path)
    assert once.count("/") == path.count("/")
    assert "\\" not in once
    assert not {".", ".."} & {segment.partition(";")[0] for segment in once.split("/")}
    assert unquote(once) == once
