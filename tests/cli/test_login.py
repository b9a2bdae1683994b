"""`aimux login`, driven against the simulator's OAuth servers."""

from __future__ import annotations

import http.client
import json
import os
import pty
import signal
import socket
import urllib.error
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import click
import pytest

from aimux.cli.login import choose_flow
from aimux.plugin import Provider
from aimux.plugin.settings import ProviderSettings
from aimux.simulator.answers import Answer, Call
from aimux_chatgpt import ChatGPT
from aimux_claude import Claude
from tests.admin.live import Live, running
from tests.cli.support import Commands, follow, read_until, sign_in_address

PROVIDERS = ("claude", "chatgpt")
VENDOR = {"claude": "anthropic", "chatgpt": "openai"}
FILES = {"claude": ".credentials.json", "chatgpt": "auth.json"}


@pytest.fixture(scope="module")
def nobody(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A simulator, and no aimux."""
    with running(tmp_path_factory.mktemp("login"), serve=False) as live:
        yield live


@pytest.fixture
def aimux(nobody: Live, tmp_path: Path) -> Iterator[Commands]:
    """Commands that work on files, with a state folder of their own."""
    environ = {"HOME": str(tmp_path), "AIMUX_CONFIG": str(nobody.config), "AIMUX_STATE_DIR": str(tmp_path / "state")}
    yield Commands(nobody, environ)
    for server in (nobody.sim.oauth_anthropic, nobody.sim.oauth_openai):
        server.consent.mode, server.consent.account = "approve", None
        server.script.clear()


@pytest.fixture
def browser(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A browser on this machine that does what it is told; the pages that it ended at."""
    pages: list[str] = []
    monkeypatch.setattr("webbrowser.open", lambda url: pages.append(follow(url)))
    monkeypatch.setattr(ChatGPT, "loopback_ports", (0,))  # another test run may have the real one
    return pages


def desktop(aimux: Commands) -> Commands:
    aimux.environ["DISPLAY"] = ":0"
    return aimux


# --- with a browser --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_browser_comes_back_and_the_account_is_there(aimux: Commands, browser: list[str], provider: str) -> None:
    said = desktop(aimux)("login", provider)
    assert f"{provider}/default: healthy" in said.stdout
    assert "No server listens on unix:" in said.stderr
    assert "goes on there" in browser[0]
    assert aimux.account("default")["email"] == f"{provider}@simulator.example"
    assert (Path(aimux.home) / "state" / provider / FILES[provider]).stat().st_mode & 0o777 == 0o600
    assert "works: 200" in aimux("accounts", "test", "default").stdout


def test_a_stranger_with_another_state_gets_nothing_and_stops_nothing(
    aimux: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[int] = []

    def attacked(url: str) -> None:
        back = urlsplit(parse_qs(urlsplit(url).query)["redirect_uri"][0])
        for place in (f"{back.path}?code=evil&state=guess", f"{back.path}?code=evil", back.path, "/elsewhere"):
            try:
                follow(f"http://{back.netloc}{place}")
            except urllib.error.HTTPError as error:
                refused.append(error.code)
        follow(url)

    monkeypatch.setattr("webbrowser.open", attacked)
    assert "claude/default: healthy" in desktop(aimux)("login", "claude").stdout
    assert refused == [400, 400, 400, 404]


@pytest.mark.parametrize("provider", PROVIDERS)
def test_who_declines_is_told_so(aimux: Commands, browser: list[str], provider: str) -> None:
    getattr(aimux.live.sim, f"oauth_{VENDOR[provider]}").consent.mode = "deny"
    said = desktop(aimux)("login", provider, expect=1)
    assert said.stderr.splitlines()[-1] == "Error: the sign-in was declined"
    assert "Not logged in" in browser[0]
    assert aimux.names() == []


def test_nobody_comes_in_time(aimux: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webbrowser.open", lambda _url: None)
    monkeypatch.setattr("aimux.cli.signin.LIFETIME", 0.01)
    assert "nobody signed in" in desktop(aimux)("login", "claude", expect=1).stderr


def test_a_token_endpoint_that_fails_leaves_nothing_behind(aimux: Commands, browser: list[str]) -> None:
    aimux.live.sim.oauth_anthropic.script("500")
    assert "answered 500" in desktop(aimux)("login", "claude", expect=1).stderr
    assert aimux.names() == []


def test_a_port_that_is_taken_leads_to_a_paste(aimux: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setattr(ChatGPT, "loopback_ports", (taken.getsockname()[1],))
        said = desktop(aimux)("login", "chatgpt", stdin="nonsense with spaces\n", expect=1)
    assert "is taken" in said.stderr
    assert "there is no code in that" in said.stderr


# --- with a paste ----------------------------------------------------------------------------------------------------


def paste(aimux: Commands, provider: str, made: Callable[[str], str]) -> tuple[int, str]:
    """Sign in elsewhere and paste what `made` makes of the address."""
    with aimux.process("login", provider, "--no-browser") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        shown = ""
        while "Code or address" not in shown:
            character = process.stdout.read(1)
            assert character, shown
            shown += character
        rest, _ = process.communicate(made(sign_in_address(shown)) + "\n", timeout=60)
        return process.returncode, shown + rest


def shown_code(url: str) -> str:
    """The page of Claude's that shows the code."""
    return follow(url).partition('id="code">')[2].partition("<")[0]


def address_at_the_end(url: str) -> str:
    """Where the browser ends, on a page that doesn't load."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc)
    connection.request("GET", f"{parts.path}?{parts.query}")
    location = connection.getresponse().getheader("location")
    connection.close()
    assert location is not None
    return location


def test_a_pasted_code_becomes_an_account(aimux: Commands) -> None:
    status, said = paste(aimux, "claude", shown_code)
    assert status == 0, said
    assert "claude/default: healthy" in said


def test_a_pasted_address_becomes_an_account(aimux: Commands) -> None:
    status, said = paste(aimux, "chatgpt", address_at_the_end)
    assert status == 0, said
    assert "chatgpt/default: healthy" in said


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (lambda url: shown_code(url).partition("#")[0] + "#another-state", "not under way"),
        (lambda url: shown_code(url).partition("#")[0], "only a part of the code"),
        (lambda url: "ac_made-up#" + shown_code(url).partition("#")[2], "the code was wrong"),
        (lambda url: url, "the address to sign in at"),
        (lambda url: "https://example.com/", "there is no code in that"),
    ],
    ids=["another state", "no state", "another code", "the same address", "another address"],
)
def test_another_paste_is_refused(aimux: Commands, made: Callable[[str], str], says: str) -> None:
    status, said = paste(aimux, "claude", made)
    assert status == 1
    assert says in said
    assert aimux.names() == []


# --- with a device code ----------------------------------------------------------------------------------------------


def test_a_device_code_is_shown_and_waited_for(aimux: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    server = aimux.live.sim.oauth_openai
    server.consent.mode = "ask"
    asked, statuses = server._device_poll, []

    def then_typed(call: Call) -> Answer:
        """The person types the code after the first poll."""
        answer = asked(call)
        statuses.append(answer.status)
        for device in list(server._devices.values()):
            server.decide_device(device.user_code)
        return answer

    monkeypatch.setattr(server, "_device_poll", then_typed)
    said = aimux("login", "chatgpt", "--device")
    assert f"{aimux.live.sim.url}/oauth/openai/codex/device" in said.stdout
    assert "chatgpt/default: healthy" in said.stdout
    assert statuses == [403, 200]


def test_a_device_code_that_is_declined_ends_the_login(aimux: Commands) -> None:
    aimux.live.sim.oauth_openai.consent.mode = "deny"
    assert "start again" in aimux("login", "chatgpt", "--device", expect=1).stderr
    assert aimux.names() == []


# --- tokens and keys -------------------------------------------------------------------------------------------------


def test_a_key_and_a_setup_token_come_from_stdin(aimux: Commands) -> None:
    accounts = aimux.live.sim.accounts
    said = aimux("login", "claude", "--api-key", stdin=f"{accounts['claude-key'].api_key}\n")
    assert "claude/default: healthy" in said.stdout
    said = aimux("login", "claude", "--setup-token", "--account", "ci", stdin=accounts["claude-setup"].access_token)
    assert "claude/ci: healthy" in said.stdout
    for name in ("default", "ci"):
        assert "works: 200" in aimux("accounts", "test", name).stdout


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
    ],
)
def test_what_is_none_is_refused_and_not_repeated(aimux: Commands, option: str, stdin: str, says: str) -> None:
    result = aimux("login", "claude", option, stdin=stdin, expect=2 if "stdin" in says else 1)
    assert says in result.stderr
    assert "secret" not in result.output
    assert aimux.names() == []


def test_a_hidden_prompt_does_not_show_the_key(aimux: Commands) -> None:
    ours, theirs = pty.openpty()
    with aimux.process("login", "claude", "--api-key", stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        shown = read_until(ours, "API key:")
        os.write(ours, b"sk-ant-api03-typed-in-secret\n")
        shown += read_until(ours, "claude/default: healthy")
        assert process.wait(30) == 0
    os.close(ours)
    assert "secret" not in shown


# --- names -----------------------------------------------------------------------------------------------------------


def test_an_account_of_that_name_is_not_replaced_unasked(aimux: Commands, browser: list[str]) -> None:
    key = aimux.live.sim.accounts["claude-key"].api_key
    aimux("login", "claude", "--api-key", "--account", "team", stdin=key)
    refused = desktop(aimux)("login", "claude", "--account", "team", expect=1)
    assert "--force" in refused.stderr
    assert not browser  # nobody was sent away to log in for nothing
    aimux("login", "claude", "--account", "team", "--force")
    assert aimux.account("team")["kind"] == "oauth"


def test_a_person_is_asked_before_a_login_is_replaced(aimux: Commands) -> None:
    aimux("login", "claude", "--api-key", stdin="sk-ant-api03-the-first")
    for answer, status, kept in (("n", 1, "the-first"), ("y", 0, "the-other")):
        ours, theirs = pty.openpty()
        arguments = ("login", "claude", "--api-key", "--account", "default")
        with aimux.process(*arguments, stdin=theirs, stdout=theirs, stderr=theirs) as process:
            os.close(theirs)
            read_until(ours, "Replace its login? [y/N]:")
            os.write(ours, f"{answer}\n".encode())
            if answer == "y":
                read_until(ours, "API key:")
                os.write(ours, b"sk-ant-api03-the-other\n")
                read_until(ours, "healthy")
            assert process.wait(30) == status
        os.close(ours)
        assert kept in (Path(aimux.home) / "state" / "claude" / FILES["claude"]).read_text()


def test_logging_in_again_cures_the_same_account(aimux: Commands, browser: list[str]) -> None:
    desktop(aimux)("login", "claude")
    aimux.live.sim.accounts["claude"].revoke()
    aimux("accounts", "test", "default", expect=1)
    assert aimux.account("default")["status"] == "parked"
    aimux("login", "claude")
    assert aimux.names() == ["claude/default"]
    assert aimux.account("default")["status"] == "healthy"


def test_a_second_person_gets_a_name(aimux: Commands, browser: list[str]) -> None:
    sim = aimux.live.sim
    desktop(aimux)("login", "chatgpt")
    sim.add_account("grace", "openai")
    sim.oauth_openai.consent.account = "grace"
    assert "chatgpt/grace: healthy" in aimux("login", "chatgpt").stdout
    assert aimux.names() == ["chatgpt/default", "chatgpt/grace"]


# --- which way -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("provider", "environ", "flow"),
    [
        (Claude, {"DISPLAY": ":0"}, "loopback"),
        (Claude, {"WAYLAND_DISPLAY": "wayland-0"}, "loopback"),
        (Claude, {"DISPLAY": ":0", "SSH_CONNECTION": "1 2 3 4"}, "paste"),
        (Claude, {"SSH_TTY": "/dev/pts/0", "BROWSER": "firefox"}, "paste"),
        (Claude, {}, "paste"),
        (Claude, {"DISPLAY": ""}, "paste"),
        (ChatGPT, {"BROWSER": "firefox"}, "loopback"),
        (ChatGPT, {"DISPLAY": ":0", "SSH_TTY": "/dev/pts/0"}, "device"),
        (ChatGPT, {}, "device"),
    ],
)
def test_the_way_is_one_that_the_machine_allows(
    provider: type[Provider], environ: dict[str, str], flow: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    assert choose_flow(provider(provider.Settings()), None, environ) == flow


def test_a_way_that_the_provider_has_not_is_refused(aimux: Commands) -> None:
    assert "(device); it has: loopback, paste" in aimux("login", "claude", "--device", expect=2).stderr
    assert "There is no provider 'claud'" in aimux("login", "claud", expect=2).stderr
    for pair in (("--device", "--no-browser"), ("--api-key", "--setup-token")):
        assert "exclude each other" in aimux("login", "chatgpt", *pair, expect=2).stderr


class Keyed(Provider):
    name = "keyed"


def test_a_provider_of_keys_only_says_so() -> None:
    with pytest.raises(click.UsageError, match="use --api-key"):
        choose_flow(Keyed(ProviderSettings()), None, {"DISPLAY": ":0"})


# --- with a server ---------------------------------------------------------------------------------------------------


def test_a_login_reaches_the_running_server_at_once(tmp_path: Path, browser: list[str]) -> None:
    with running(tmp_path) as live:
        aimux = desktop(Commands(live, {"HOME": str(tmp_path), "AIMUX_CONFIG": str(live.config)}))
        live.sim.add_account("grace", "anthropic")
        live.sim.oauth_anthropic.consent.account = "grace"
        said = aimux("login", "claude")
        assert "claude/grace: healthy" in said.stdout
        assert said.stderr.startswith(f"Using the server at unix:{tmp_path}/socket.")
        assert live.app.pools["claude"].accounts["grace"].credential is not None
        saved = json.loads((live.state_dir / "claude" / "grace" / FILES["claude"]).read_bytes())
        assert saved["claudeAiOauth"]["accessToken"] == live.sim.accounts["grace"].access_token


def test_ctrl_c_ends_a_login_that_waits(aimux: Commands) -> None:
    aimux.live.sim.oauth_openai.consent.mode = "ask"
    with aimux.process("login", "chatgpt", "--device") as process:
        assert process.stdout is not None
        while "Waiting for the code" not in process.stdout.readline():
            pass
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in said
