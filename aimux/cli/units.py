"""Service files for systemd and launchd, as text. Everything about systemd's sandbox comes from aimux/unit.toml."""

from __future__ import annotations

import plistlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from aimux.config import Listen

Settings = Mapping[str, Any]


def unit_settings() -> dict[str, dict[str, Any]]:
    """unit.toml: `service`, `hardening` (any manager) and `system` (the system's manager only)."""
    return tomllib.loads((files("aimux") / "unit.toml").read_text(encoding="utf-8"))


@dataclass(frozen=True, slots=True)
class Service:
    """What to run. `socket`: the manager binds `listen` instead of aimux."""

    command: tuple[str, ...]
    config: Path | None
    listen: Listen | None = None
    socket: bool = False

    def arguments(self, verb: str) -> tuple[str, ...]:
        return (*self.command, verb, *(("--config", str(self.config)) if self.config else ()))

    @property
    def binds_low_port(self) -> bool:
        return self.listen is not None and not self.socket and 0 < self.listen.port < 1024


def systemd_unit(service: Service, *, user: bool) -> str:
    """The .service file, for a user's own manager or the system's."""
    settings = unit_settings()
    unit: dict[str, Any] = {"Description": "aimux, a gateway to a team's AI accounts"}
    if not user:
        unit |= {"Wants": "network-online.target", "After": ["network-online.target"]}
    if service.socket:
        unit |= {"Requires": "aimux.socket", "After": [*unit.get("After", []), "aimux.socket"]}
    run: dict[str, Any] = {
        "ExecStart": " ".join(map(_quoted, service.arguments("serve"))),
        # It fails if the new configuration is refused, and says why; a signal would only be sent.
        "ExecReload": " ".join(map(_quoted, service.arguments("reload"))) + " --pid $MAINPID",
        **settings["service"],
        **settings["hardening"],
    }
    if not user:
        run |= {**settings["system"], "StateDirectory": "aimux", "Environment": "AIMUX_STATE_DIR=/var/lib/aimux"}
        if service.binds_low_port:
            # A capability of a user namespace of its own does not reach the host's ports.
            low = {"AmbientCapabilities": "CAP_NET_BIND_SERVICE", "CapabilityBoundingSet": "CAP_NET_BIND_SERVICE"}
            run |= {**low, "PrivateUsers": False}
    install = {"WantedBy": "default.target" if user else "multi-user.target"}
    return _ini({"Unit": unit, "Service": run, "Install": install})


def systemd_socket(listen: Listen) -> str:
    """The .socket file. Its address is written as in `listen`, without the marks that systemd does not need."""
    stream = str(listen).removeprefix("unix:").removeprefix(":")
    return _ini(
        {
            "Unit": {"Description": "aimux's socket"},
            # The mode is a unix socket's: `SocketGroup=` names who may use it beside root.
            "Socket": {"ListenStream": stream, "SocketMode": "0660"},
            "Install": {"WantedBy": "sockets.target"},
        }
    )


def launchd_agent(service: Service, *, home: str) -> str:
    """The property list of a launchd agent, for macOS."""
    return plistlib.dumps(
        {
            "Label": "aimux",
            "ProgramArguments": list(service.arguments("serve")),
            "RunAtLoad": True,
            "KeepAlive": {"SuccessfulExit": False},
            "ProcessType": "Interactive",  # anything else is throttled
            "ExitTimeOut": 90,  # as systemd's own: drain_timeout, and a renewal that has begun
            "SoftResourceLimits": {"NumberOfFiles": unit_settings()["service"]["LimitNOFILE"]},
            "Umask": 0o077,
            "StandardOutPath": f"{home}/Library/Logs/aimux.log",
            "StandardErrorPath": f"{home}/Library/Logs/aimux.log",
        }
    ).decode()


def _ini(sections: Mapping[str, Settings]) -> str:
    return "\n".join(f"[{name}]\n{''.join(_lines(settings))}" for name, settings in sections.items())


def _lines(settings: Settings) -> list[str]:
    lines = []
    for name, value in settings.items():
        for one in value if isinstance(value, list) else [value]:
            lines.append(f"{name}={'yes' if one is True else 'no' if one is False else one}\n")
    return lines


def _quoted(word: str) -> str:
    """One word of a command line, with systemd's specifiers and variables taken literally."""
    word = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{word}"' if any(character.isspace() or character in "'\"\\;" for character in word) else word
