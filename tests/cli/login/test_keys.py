"""Keys and setup tokens: from stdin or a hidden prompt, never from the command line."""

from __future__ import annotations

import json
import os
import pty
import signal

import pytest

from tests.cli.support import Commands, read_until, type_hidden, until_asleep


def test_a_key_and_a_setup_token_come_from_stdin(aimux: Commands) -> None:
    accounts = aimux.live.sim.accounts
    written_by_windows = f"\ufeff{accounts['claude-key'].api_key}\r\n"
    said = aimux("login", "claude", "--api-key", stdin=written_by_windows)
    assert "claude/default: healthy" in said.stdout
    said = aimux("login", "claude", "--setup-token", "--account", "ci", stdin=accounts["claude-setup"].access_token)
    assert "claude/ci: healthy" in said.stdout
    for name in ("default", "ci"):
        assert "works: 200" in aimux("accounts", "test", name).stdout


def test_json_is_all_that_stdout_has(aimux: Commands) -> None:
    key = aimux.live.sim.accounts["claude-key"].api_key
    assert key
    said = aimux("login", "claude", "--api-key", "--json", stdin=f"{key}\n")
    account = json.loads(said.stdout)
    assert (account["provider"], account["name"], account["status"]) == ("claude", "default", "healthy")
    assert "It works: 200" in said.stderr
    assert key not in said.stdout + said.stderr


def test_a_secret_on_the_command_line_is_refused_and_not_repeated(aimux: Commands) -> None:
    for arguments in (("--api-key", "sk-ant-api03-secret"), ("sk-ant-api03-secret",)):
        said = aimux("login", "claude", *arguments, expect=2)
        assert "read from stdin" in said.stderr
        assert "secret" not in said.output


@pytest.mark.parametrize(
    ("option", "stdin", "says"),
    [
        ("--api-key", "", "there is none on stdin"),
        ("--setup-token", " \n", "there is none on stdin"),
        ("--setup-token", "sk-ant-api03-secret", "use --api-key"),
        ("--setup-token", "hunter2-secret", "setup token begins with"),
        ("--api-key", "two secret words", "can't be in a header"),
        ("--api-key", '"sk-ant-api03-secret"', "in quotation marks"),
        ("--api-key", "sk-proj-secret", "OpenAI API key"),
        ("--api-key", "sk-ant-api03-sec...ret", "with its middle left out"),
        ("--api-key", "sk-ant-api03-****secret", "with its middle left out"),
        ("--api-key", "sk-ant-api03-secret", "did not accept the credential"),
        ("--setup-token", "sk-ant-oat01-secret", "did not accept the credential"),
    ],
)
def test_what_is_none_is_refused_and_not_repeated(aimux: Commands, option: str, stdin: str, says: str) -> None:
    usage = "stdin" in says or "left out" in says
    result = aimux("login", "claude", option, stdin=stdin, expect=2 if usage else 1)
    assert says in result.stderr
    assert "secret" not in result.output
    assert aimux.names() == []


def test_a_refused_key_takes_no_accounts_place(aimux: Commands) -> None:
    key = aimux.live.sim.accounts["claude-key"].api_key or ""
    said = aimux("login", "claude", "--api-key", stdin=key)
    assert "It works: 200 after" in said.stdout
    aimux("login", "claude", "--api-key", "--account", "default", "--force", stdin="sk-ant-api03-mistyped", expect=1)
    assert "works: 200" in aimux("accounts", "test", "default").stdout


def test_a_key_is_kept_where_nobody_can_be_asked(aimux: Commands) -> None:
    aimux.environ["AIMUX_PROVIDERS__CLAUDE__BASE_URL"] = "http://127.0.0.1:1"
    said = aimux("login", "claude", "--api-key", stdin="sk-ant-api03-untried")
    assert "claude/default: healthy" in said.stdout
    assert "Warning: It is kept, and could not be tried: " in said.stderr


@pytest.mark.parametrize(
    ("arguments", "question"),
    [
        (["--api-key"], "API key:"),
        (["--no-browser"], "Code or address:"),
        (["--account", "default"], "Replace its login?"),
    ],
)
def test_ctrl_c_ends_a_question_at_once(aimux: Commands, arguments: list[str], question: str) -> None:
    aimux("login", "claude", "--api-key", stdin=f"{aimux.live.sim.accounts['claude-key'].api_key}\n")
    ours, theirs = pty.openpty()
    command = ("login", "claude", *arguments)
    with aimux.process(*command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True) as process:
        os.close(theirs)
        try:
            read_until(ours, question)
            until_asleep(process)
        finally:
            process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    os.close(ours)


def test_a_hidden_prompt_does_not_show_the_key(aimux: Commands) -> None:
    key = aimux.live.sim.accounts["claude-key"].api_key or ""
    ours, theirs = pty.openpty()
    with aimux.process("login", "claude", "--api-key", stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        shown = read_until(ours, "API key:")
        type_hidden(ours, key)
        shown += read_until(ours, "It works: 200")
        assert process.wait(30) == 0
    os.close(ours)
    assert "claude/default: healthy" in shown
    assert key not in shown
