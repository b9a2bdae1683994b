"""State folder, address and certificate."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING

from aimux import atomic
from aimux.certificates import TLSError, own_pair
from aimux.cli.doctor.finding import Finding
from aimux.cli.remote import is_aimux

if TYPE_CHECKING:
    from aimux.config import Config, Listen

MIN_FREE = 16 * 1024 * 1024
"""Bytes that renewing credentials should find free."""


def of_state_dir(folder: Path) -> list[Finding]:
    """Owner, mode and room of the folder that holds the credentials."""
    subject = "state_dir"
    try:
        info = folder.stat()
    except FileNotFoundError:
        return [Finding("ok", subject, f"{folder} is not there yet; aimux makes it")]
    except OSError as error:
        return [Finding("error", subject, f"{folder} can't be reached ({error.strerror})", "correct state_dir")]
    if not stat.S_ISDIR(info.st_mode):
        return [Finding("error", subject, f"{folder} is not a folder", "correct state_dir")]
    obstacle = atomic.obstacle(folder)
    if obstacle is not None and obstacle.errno == errno.EROFS:
        message = f"{folder} is on a file system that is read-only: nothing that is renewed can be kept"
        return [Finding("error", subject, message, "mount it read-write")]
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        remedy = f"run aimux and its doctor as user id {info.st_uid}, or chown the folder"
        return [Finding("error", subject, f"user id {os.geteuid()} can't read and write {folder}", remedy)]
    found = []
    # As Kubernetes makes a volume (fsGroup): root's, and ours by its group. What we keep in it is ours alone.
    by_group = info.st_mode & stat.S_IWGRP and info.st_gid in {os.getegid(), *os.getgroups()}
    volume = info.st_uid == 0 != os.geteuid() and by_group
    if info.st_mode & 0o066 and not volume:  # passing through is how others read a certificate of our own
        found.append(Finding("warning", subject, f"{folder} is open to other users", f"chmod 700 {folder}"))
    if os.geteuid() != info.st_uid and not volume:
        remedy = f"run aimux and its doctor as user id {info.st_uid}"
        found.append(Finding("warning", subject, f"{folder} belongs to another user", remedy))
    if (free := shutil.disk_usage(folder).free) < MIN_FREE:
        message = f"{free // 1024} KiB are left at {folder}: a renewed credential might not fit"
        found.append(Finding("error", subject, message, "free some space"))
    elif obstacle is not None:
        message = f"no file can be made in {folder} ({obstacle.strerror})"
        found.append(Finding("error", subject, message, "look at the disk"))
    return found or [Finding("ok", subject, f"{folder} is private and can be written")]


async def of_address(config: Config) -> list[Finding]:
    """Whether `listen` is free, or used by aimux itself."""
    subject = f"listen {config.listen}"
    try:
        _try_unix(Path(config.listen.unix_path)) if config.listen.unix_path else _try_tcp(config.listen)
    except OSError as error:
        if error.errno == errno.EADDRINUSE and await is_aimux(config):
            return [Finding("ok", subject, "aimux runs there")]
        return [Finding("error", subject, f"can't be used: {error.strerror}", _address_remedy(error))]
    return [Finding("ok", subject, "is free")]


def of_certificate(config: Config) -> list[Finding]:
    """The certificate that `listen` would serve."""
    if not config.tls.enabled:
        return []
    # cryptography takes 80 ms to import.
    from aimux.certificates.loading import load_pair

    cert, key = config.tls.cert_path, config.tls.key_path
    if cert is None or key is None:
        cert, key = own_pair(config.state_dir)
        if not cert.exists():
            return [Finding("ok", "tls", "aimux makes its certificate at its first start")]
    now = time.time()
    try:
        pair = load_pair(cert, key, now=now)
    except TLSError as error:
        return [Finding("error", "tls", error.message, error.remedy)]
    names = ", ".join(sorted(pair.names)) or "no name at all"
    message = f"{cert} is for {names}, good for {(pair.not_after - now) / 86400:.0f} days, SHA-256 {pair.fingerprint}"
    return [Finding("ok", "tls", message), *(Finding("warning", "tls", warning) for warning in pair.warnings(now))]


def _try_tcp(listen: Listen) -> None:
    """Bind, and let go. Raises OSError."""
    addresses = socket.getaddrinfo(listen.host or None, listen.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    for family, kind, protocol, _, address in addresses:
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.bind(address)


def _try_unix(path: Path) -> None:
    """Whether somebody listens there, and whether the folder lets us. Raises OSError."""
    if path.exists():
        if not path.is_socket():
            raise FileExistsError(errno.EEXIST, "there is a file of another kind")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            if probe.connect_ex(str(path)) == 0:
                raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, f"there is no folder {path.parent}")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, f"user id {os.geteuid()} can't write the folder {path.parent}")


def _address_remedy(error: OSError) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return "stop the program that listens there (perhaps another aimux), or choose another `listen`"
        case errno.EACCES | errno.EPERM:
            return "take a port above 1023 or a folder you own, or give the service CAP_NET_BIND_SERVICE"
        case errno.EADDRNOTAVAIL:
            return "choose an address of this machine; `:PORT` means every one"
        case _:
            return "correct `listen`"
