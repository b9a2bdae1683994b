"""The server's TLS context, whose certificate changes under it while it serves."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aimux.certificates.pair import RENEW_BEFORE, Pair, TLSError, own_pair, server_context

if TYPE_CHECKING:
    import ssl
    from pathlib import Path

log = logging.getLogger(__name__)

POLL_SECONDS = 2.0
DAY = 86400.0


@dataclass(frozen=True, slots=True)
class TLSFiles:
    """Where certificate (with its chain) and key lie. With `own_names` aimux makes and renews them itself."""

    cert_path: Path
    key_path: Path
    own_names: tuple[str, ...] | None = None
    """What its own certificate is for beside localhost; None: the files are the operator's."""

    @classmethod
    def self_signed(cls, state_dir: Path, *names: str) -> TLSFiles:
        """aimux's own pair in the state folder, good for `names` beside localhost."""
        return cls(*own_pair(state_dir), names)


class ServerTLS:
    """Give `context` to the listening socket once; it hands every new connection to the pair that is current.

    That is done in the SNI callback, which OpenSSL calls for clients without SNI as well. The swap is one assignment
    of a pair that was checked whole: loading into a live context would have a moment with the new certificate and
    the old key. Open connections keep what they have.
    """

    def __init__(self, files: TLSFiles) -> None:
        """Read the files. Raises TLSError."""
        self._files = files
        self._seen = _signature(files)
        self._pair = _load(files)
        self._problem = ""
        """Why what lies in the files was not taken."""
        self._renewal_tried = time.time()
        self._warned = 0.0
        self._warn(time.time())
        self.context = server_context()
        self.context.sni_callback = self._choose

    @property
    def pair(self) -> Pair:
        """The pair that new connections get."""
        return self._pair

    @property
    def not_after(self) -> float:
        """When its certificate expires, unix seconds."""
        return self._pair.not_after

    @property
    def fingerprint(self) -> str:
        """SHA-256 of its certificate, `AB:CD:…`."""
        return self._pair.fingerprint

    @property
    def own_certificate(self) -> bytes | None:
        """The self-signed certificate as PEM, which clients have to be told of; None: it is the operator's."""
        return self._pair.pem if self._files.own_names is not None else None

    def reload(self, files: TLSFiles | None = None) -> bool:
        """Take what lies in the files (or in others) now. False, and the old pair stays, where it can't be used."""
        files = files or self._files
        seen = _signature(files)
        try:
            pair = _load(files)
        except TLSError as error:
            if str(error) != self._problem:
                log.error("the old TLS certificate stays in use: %s", error)
            self._problem = str(error)
            return False
        self._files, self._seen, self._problem = files, seen, ""
        if pair.fingerprint != self._pair.fingerprint:
            log.info("new TLS certificate, SHA-256 %s", pair.fingerprint)
            self._warned = 0.0
        self._pair = pair
        return True

    async def watch(self, interval: float = POLL_SECONDS) -> None:
        """Until cancelled: take a changed pair, renew a self-signed one, warn once a day before the end.

        Certificate and key are two files and may change one after the other, so a change is taken once it has
        stood still for `interval` seconds. A bad pair is reported once, and tried again: it may only have been too
        early for it, by this machine's clock, or too late.
        """
        before = self._seen
        while True:
            await asyncio.sleep(interval)
            now = time.time()
            current = _signature(self._files)
            due = current == before and (current != self._seen or self._problem)
            if due or self._renewal_due(now):
                self._renewal_tried = now
                self.reload()
            before = current
            self._warn(now)

    def _choose(self, connection: ssl.SSLObject, server_name: str | None, context: ssl.SSLContext) -> None:
        connection.context = self._pair.context

    def _renewal_due(self, now: float) -> bool:
        return (
            self._files.own_names is not None
            and self.not_after - now < RENEW_BEFORE.total_seconds()
            and now - self._renewal_tried > DAY
        )

    def _warn(self, now: float) -> None:
        if now - self._warned < DAY:
            return
        for warning in self._pair.warnings(now):
            log.warning("%s", warning)
            self._warned = now


def _load(files: TLSFiles) -> Pair:
    # cryptography takes 80 ms to import, which a start without TLS need not pay.
    from aimux.certificates import selfsigned
    from aimux.certificates.loading import load_pair

    if files.own_names is not None:
        selfsigned.ensure(files.cert_path, files.key_path, files.own_names, time.time())
    return load_pair(files.cert_path, files.key_path)


def _signature(files: TLSFiles) -> tuple[tuple[int, int, int] | None, ...]:
    """Inode, time and size of both files, links followed (Kubernetes swaps a link)."""
    found: list[tuple[int, int, int] | None] = []
    for path in (files.cert_path, files.key_path):
        try:
            info = path.stat()
        except OSError:
            found.append(None)
        else:
            found.append((info.st_ino, info.st_mtime_ns, info.st_size))
    return tuple(found)
