"""Tokens that Link.Assistant.Router has signed, and its admin key."""

from __future__ import annotations

import contextlib
import sqlite3

from tests.migrate.support import LOGIN, ROUTER, Migration, digest, environment
from tests.migrate.test_who_gets_in import RECORD, binary

LONG = "the secret that signs tokens"


def test_signed_tokens_go_on_and_what_was_revoked_stays_revoked(migrate: Migration) -> None:
    migrate.file("claude/.credentials.json", LOGIN)
    migrate.file("data/x", "")
    records = (RECORD, RECORD | {"id": "2", "label": "bob", "revoked": True}, RECORD | {"id": "3", "expires_at": 1})
    (migrate.folder / "data" / "tokens.bin").write_bytes(binary(*records))
    key = "the-admin-key-of-the-router"
    migrate(migrate.file("router.env", environment(**ROUTER | {"TOKEN_SECRET": LONG, "TOKEN_ADMIN_KEY": key})))
    secret = migrate.state / "token-secret"
    assert migrate.config["auth"] == {
        "jwt": {"secret": f"${{file:{secret}}}", "prefix": "la_sk_", "user_claim": ["label", "sub"]}
    }
    assert (secret.read_text(), secret.stat().st_mode & 0o777) == (LONG, 0o600)
    assert "users" not in migrate.config
    assert migrate.config["admin"] == {"token_sha256": digest(key)}
    assert migrate.config["compatibility"] == ["link-assistant-router"]
    with contextlib.closing(sqlite3.connect(migrate.state / "aimux.db")) as database:
        assert database.execute("SELECT subject, reason FROM revoked_subjects").fetchall() == [("2", "bob")]


def test_a_missing_store_of_signed_tokens_is_said(migrate: Migration) -> None:
    migrate.file("claude/.credentials.json", LOGIN)
    said = migrate(migrate.file("router.env", environment(**ROUTER | {"TOKEN_SECRET": LONG})), expect=1)
    assert "revoked ones are not known" in said
    assert "auth" in migrate.config


def test_an_admin_key_that_can_be_guessed_opens_nothing(migrate: Migration) -> None:
    migrate.file("claude/.credentials.json", LOGIN)
    settings = ROUTER | {"TOKEN_SECRET": LONG, "TOKEN_ADMIN_KEY": "admin"}
    assert "TOKEN_ADMIN_KEY: can be guessed" in migrate(migrate.file("router.env", environment(**settings)), expect=1)
    assert "admin" not in migrate.config
