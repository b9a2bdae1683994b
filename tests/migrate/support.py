"""`aimux migrate` as its tests run it, and what the old gateways' files hold."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import yaml
from click.testing import CliRunner, Result

from aimux.cli.migrate import migrate_command

LOGIN = {"claudeAiOauth": {"accessToken": "sk-ant-oat01-theirs", "refreshToken": "rt", "expiresAt": 4070908800000}}
ROUTER = {"TOKEN_SECRET": "s3cret", "CLAUDE_CODE_HOME": "claude", "DATA_DIR": "data"}


class Migration:
    """`aimux migrate` in a folder and a home of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.output, self.state = folder / "aimux.yaml", folder / "state"

    def file(self, name: str, content: object, mode: int = 0o600) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        path.chmod(mode)
        return path

    def __call__(self, file: Path, *options: str, expect: int = 0) -> str:
        args = [str(file), "--output", str(self.output), "--state-dir", str(self.state), *options]
        done: Result = CliRunner().invoke(migrate_command, args)
        assert done.exit_code == expect, done.output
        return done.output

    @property
    def config(self) -> dict[str, Any]:
        loaded: dict[str, Any] = yaml.safe_load(self.output.read_text())
        return loaded

    def stored(self, name: str) -> Any:
        return json.loads((self.state / name).read_text())


def digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def new_tokens(said: str) -> dict[str, str]:
    _, _, listed = said.partition("New tokens")
    return dict(re.findall(r"^  (\S+)  (\S{43})$", listed, re.MULTILINE))


def environment(**variables: str) -> str:
    return "".join(f"{name}={value}\n" for name, value in variables.items())


def service(kind: str, *users: tuple[str, str]) -> dict[str, Any]:
    return {
        "type": kind,
        "listen": "127.0.0.1",
        "listen_port": 8080,
        "credential_path": f"{kind}.json",
        "users": [{"name": name, "token": token} for name, token in users],
    }
