"""What a server finds on its machine: the state folder and who else uses it, a certificate, keys."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from aimux.accounts.files import Grip
from aimux.certificates import TLSFiles
from aimux.config import ConfigError, Problem
from aimux.control.key import KEY_FILE, Key, ensure_key
from aimux.people.keys import NoKeys

if TYPE_CHECKING:
    from pathlib import Path

    from aimux.config import Config
    from aimux.people.trust import Trust

log = logging.getLogger("aimux")


def claim(state_dir: Path) -> Grip:
    """Hold the state folder for as long as aimux serves. If another aimux holds it, warn."""
    grip = Grip(state_dir / "serving")
    try:
        alone = grip.take()
    except OSError:  # nothing can be written there, which is reported elsewhere
        return grip
    if not alone:
        log.warning(
            "another aimux serves with %s, or is still ending: each counts limits and remembers requests by itself;"
            " give each a state_dir of its own, and for one aimux of several processes a PostgreSQL database",
            state_dir,
        )
    return grip


def tls_files(config: Config) -> TLSFiles | None:
    """None: it serves without TLS."""
    tls = config.tls
    if not tls.enabled:
        return None
    if tls.self_signed:
        return TLSFiles.self_signed(config.state_dir, config.listen.host or "", *tls.self_signed.names)
    assert tls.cert_path is not None
    assert tls.key_path is not None
    return TLSFiles(tls.cert_path, tls.key_path)


def admin_key(config: Config) -> tuple[Key | None, str | None]:
    """The configured key, or this machine's own; and its text if it was made just now. None: no disk takes one."""
    if config.admin.configured:
        return Key(config.admin.sha256, local=False), None
    try:
        key, made = ensure_key(config.state_dir)
    except OSError as error:
        log.warning("no admin key can be kept in %s (%s): set admin.token", config.state_dir, error.strerror)
        return None, None
    if made is not None:
        log.info("made an admin key for this machine: it is in %s", config.state_dir / KEY_FILE)
    return key, made


async def adopt_keys(trust: Trust, config: Config) -> None:
    """The keys that tokens are signed with elsewhere. Raises ConfigError."""
    try:
        await trust.adopt(config.auth.jwt)
    except NoKeys as error:
        raise ConfigError([Problem("auth.jwt.key_file", None, str(error), "a JWKS, or a public key as PEM")]) from None
