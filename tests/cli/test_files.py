"""Commands without a server: they hold what a server would hold."""

from __future__ import annotations

import json
from pathlib import Path

from aimux.cli.calls import Setting
from aimux.cli.files import local_parts
from aimux.redaction import mask

KEY, HEADER = "sk-ant-api03-0123456789abcdef", "open o simsim"


async def test_their_errors_tell_no_secret(tmp_path: Path) -> None:
    file = tmp_path / "state" / "claude" / ".credentials.json"
    file.parent.mkdir(parents=True, mode=0o700)
    file.touch(mode=0o600)
    file.write_text(json.dumps({"api_key": KEY}))
    config = tmp_path / "config.yaml"
    config.write_text(f"state_dir: {tmp_path}/state\nproviders: {{claude: {{headers: {{x-h: {HEADER}}}}}}}\n")
    config.chmod(0o600)
    said = f"{KEY} and {HEADER} are refused"
    async with local_parts(Setting(config)):
        assert mask(said) == "sk-ant-a… and open o… are refused"
    assert mask(said) == said, "nothing is held any more"
