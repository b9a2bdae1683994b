"""How each program is pointed at aimux, as its documentation has it."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from tests.clients.world import Ran, Seat, client, run


async def claude_code(
    seat: Seat,
    *arguments: str,
    base: str | None = None,
    token: str | None = None,
    stdin: bytes = b"",
    interrupt: Callable[[], Awaitable[None]] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Ran:
    """`claude -p`. `token` "": none at all, and `environ` says how to authenticate. Three tries where it retries."""
    token = seat.token if token is None else token
    settings = {
        "ANTHROPIC_BASE_URL": base or seat.world.aimux.claude,
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "CLAUDE_CODE_MAX_RETRIES": "2",
        **({"ANTHROPIC_AUTH_TOKEN": token} if token else {}),
        **(environ or {}),
    }
    program = client(seat.claude, "node_modules", ".bin", "claude")
    command: list[str | Path] = [program, "-p", *(arguments or ("say hi",))]
    return await run(command, seat.home, stdin=stdin, interrupt=interrupt, environ=settings)


async def codex(
    seat: Seat,
    *arguments: str,
    base: str | None = None,
    name: str = "aimux",
    auth: str | None = None,
    entry: str = "",
    top: str = "",
    login: bytes | None = None,
    websockets: bool = False,
    patient: bool = False,
    stdin: bytes = b"",
    interrupt: Callable[[], Awaitable[None]] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Ran:
    """`codex exec`. `auth`, `entry`, `top`: lines of its config.toml, in the provider's entry and above it; `name` is
    the provider's.

    It tries a request and a connection twice; with `patient`, as often as it does by itself.
    """
    folder = seat.home / ".codex"
    folder.mkdir(exist_ok=True)
    if login is not None:
        (folder / "auth.json").write_bytes(login)
    (folder / "config.toml").write_text(f"""
model = "gpt-5.5"
model_provider = "aimux"
{top}
[model_providers.aimux]
name = "{name}"
base_url = "{base or seat.world.aimux.chatgpt}"
wire_api = "responses"
{"" if patient else "request_max_retries = 1"}
{"" if patient else "stream_max_retries = 1"}
supports_websockets = {str(websockets).lower()}
{f'experimental_bearer_token = "{seat.token}"' if auth is None else auth}
{entry}
""")
    program = client("codex", "node_modules", ".bin", "codex")
    command: list[str | Path] = [program, "exec", "--skip-git-repo-check", *(arguments or ("say hi",))]
    settings = {**seat.world.trap.environ, **(environ or {})}
    return await run(command, seat.home, stdin=stdin, interrupt=interrupt, environ=settings)


def leaks(seat: Seat, secret: str) -> bool:
    """Whether any part of `secret` stands in what aimux wrote, on its streams or in its folder.

    Credential files are left out: they hold the accounts' own tokens, whose beginnings look the same.
    """
    texts = [seat.world.aimux.output]
    for path in (seat.world.folder / "state").rglob("*"):
        if path.is_file() and not path.name.startswith((".credentials.json", "auth.json")):
            with contextlib.suppress(FileNotFoundError):  # one that was written under another name, and is in its place
                texts.append(path.read_bytes().decode("latin-1"))
    pieces = [secret[at : at + 16] for at in range(8, len(secret) - 16, 8)]
    return any(piece in text for piece in pieces for text in texts)
