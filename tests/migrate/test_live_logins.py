"""A live login stays its owner's."""

from __future__ import annotations

import pytest

from tests.migrate.support import LOGIN, ROUTER, Migration, environment, service


def test_the_login_of_a_vendors_cli_is_shared(migrate: Migration) -> None:
    home = migrate.file("claude/.credentials.json", LOGIN)
    said = migrate(migrate.file("router.env", environment(**ROUTER)), expect=1)
    link = migrate.state / "claude" / ".credentials.json"
    assert link.is_symlink()
    assert link.resolve() == home
    assert f"claude/default, shared with {home}" in said
    assert "Stop the old gateway" not in said
    migrate.output.unlink()
    assert "claude/default (there already)" in migrate(migrate.folder / "router.env", expect=1)


def test_it_is_copied_only_when_that_is_said(migrate: Migration) -> None:
    migrate.file("claude/.credentials.json", LOGIN, mode=0o644)
    source = migrate.file("router.env", environment(**ROUTER))
    refused = migrate(source, expect=1)
    assert "claude/.credentials.json can be read by others" in refused
    assert "--copy" in refused
    assert not migrate.output.exists()
    said = migrate(source, "--copy", expect=1)
    assert not (migrate.state / "claude" / ".credentials.json").is_symlink()
    assert "Stop the old gateway for good" in said


def test_a_login_that_is_never_renewed_is_copied(migrate: Migration) -> None:
    migrate.file("claude/.credentials.json", {"oauth_token": "sk-ant-oat01-of-a-setup"})
    migrate(migrate.file("router.env", environment(**ROUTER)), expect=1)
    assert not (migrate.state / "claude" / ".credentials.json").is_symlink()


@pytest.mark.parametrize("given", [True, False])
def test_the_cli_s_own_place_is_known_whoever_names_it(migrate: Migration, given: bool) -> None:
    home = migrate.file("home/.codex/auth.json", {"tokens": {"access_token": "opaque", "refresh_token": "rt"}})
    one = service("ocm", ("ann", "token-of-ann-for-codex"))
    if given:
        one["credential_path"] = str(home)
    else:
        del one["credential_path"]
    migrate(migrate.file("sing-box.json", {"services": [one]}))
    assert (migrate.state / "chatgpt" / "auth.json").resolve() == home
