"""What PostgreSQL's errors mean, and what to do about them."""

from __future__ import annotations

import os
import ssl
from urllib.parse import parse_qs, urlsplit

import asyncpg

from aimux.config.database import SYSTEM
from aimux.storage.errors import Conflict, StorageError, Unusable
from aimux.storage.migrations import MIGRATED

READ_ONLY = "25006"
"""SQLSTATE of a write where nothing may be written."""
_LENT = frozenset({"26000", "42P05"})
"""What a server says of prepared statements that a pooler has prepared elsewhere, or here for another client."""
_REMEDIES = {
    "28": "check user and password in database.url, and pg_hba.conf on the server",
    READ_ONLY: "if it is a standby, let database.url lead to the primary, or name all hosts: aimux takes the one that"
    " takes writes",
    "3D": "make it: createdb NAME",
    "42703": MIGRATED,
    "42P01": MIGRATED,
    "42704": "take it out of database.url",
    "42501": "make the user its owner: ALTER DATABASE NAME OWNER TO USER; and that of tables, which a restore may have"
    " given to another: ALTER TABLE NAME OWNER TO USER, or restore with pg_restore --no-owner as the user",
    "53300": "a node takes up to 17: raise max_connections, or the CONNECTION LIMIT of the user or the database",
    "53": "make room on the server: disk or memory",
    "57014": "raise statement_timeout of the user or the database",
    "57": "the server is stopping or starting",
}
"""Remedies by SQLSTATE, or its class (the first two characters)."""
_UNUSABLE = frozenset({"25", "28", "3D", "40", "42", "53", "55", "57", "58", "XX"})
"""Classes that are about the server, the transaction (read-only, or in another one's way) or the schema (another one,
or not ours to use), not about what was to be written."""
_TLS_FILES = ("sslrootcert", "sslcert", "sslkey", "sslcrl")


class Lent(ConnectionError):
    """A connection is not one to the server."""


def explained(url: str, name: str, error: BaseException) -> StorageError:
    """An error of the driver's or of SQLAlchemy's, about the database of that address, which messages call `name`."""
    from sqlalchemy.exc import DBAPIError, IntegrityError

    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    if isinstance(error, IntegrityError):
        # The detail after the first line holds values.
        return Conflict(str(cause.__cause__ or cause).partition("\n")[0])
    cause = cause.__cause__ if isinstance(error, DBAPIError) and cause.__cause__ else cause
    return of_tls(url, name, cause) or _of_server(name, cause)


def of_tls(url: str, name: str, error: BaseException) -> StorageError | None:
    """What is wrong with what the address says of TLS, or with the server's; None: it isn't that."""
    text = str(error).partition("\n")[0]
    if isinstance(error, asyncpg.ClientConfigurationError):
        remedy = "correct database.url"
        if text.startswith("root certificate"):
            remedy = "name the certificate of the server's authority in database.url: sslrootcert=FILE"
        return Unusable(f"{name}: {text}", remedy=remedy)
    if isinstance(error, ssl.SSLCertVerificationError):
        remedy = (
            "sslrootcert in database.url is to be the certificate of its authority, and the host a name that it has"
        )
        return Unusable(f"{name}: the server's certificate is not accepted ({error.verify_message})", remedy=remedy)
    query = parse_qs(urlsplit(url).query)
    if isinstance(error, ssl.SSLError) and error.library == "X509":
        path = query.get("sslrootcert", ["root.crt"])[-1]
        return Unusable(f"{name}: there is no certificate in {path}", remedy="correct sslrootcert in database.url")
    if isinstance(error, FileNotFoundError | PermissionError):
        for option in _TLS_FILES:
            path = query.get(option, [""])[-1]
            if path not in {"", SYSTEM} and not os.access(path, os.R_OK):
                why = f"{option}={path} can't be read ({error.strerror})"
                return Unusable(f"{name}: {why}", remedy="correct database.url")
    if "rejected SSL upgrade" in text:
        return Unusable(f"{name} has no TLS", remedy="switch it on there (ssl = on), or set sslmode=disable")
    return None


def _of_server(name: str, error: BaseException) -> StorageError:
    state = str(getattr(error, "sqlstate", None) or "")
    if isinstance(error, Lent) or state in _LENT:
        remedy = "set pool_mode = session there (pgbouncer), or let database.url lead to the server itself"
        return Unusable(f"{name}: a pooler in between lends its connections for a transaction at a time", remedy=remedy)
    if "unsupported startup parameter" in str(error):
        remedy = "take it out of database.url, or have the pooler ignore it (pgbouncer: ignore_startup_parameters)"
        return Unusable(f"{name}: {text_of(error)}", remedy=remedy)
    if state and not state.startswith("08"):
        kind = Unusable if state[:2] in _UNUSABLE else StorageError
        return kind(f"{name}: {text_of(error)}", remedy=_REMEDIES.get(state) or _REMEDIES.get(state[:2], ""))
    remedy = "check that it runs, and the address in database.url"
    return Unusable(f"{name} can't be reached ({text_of(error)})", remedy=remedy)


def text_of(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, asyncpg.TargetServerAttributeNotMatched):
        return "it takes no writes"  # whatever target_session_attrs asks for, another is of no use
    return str(error).partition("\n")[0] or type(error).__name__
