"""A login with a browser elsewhere: its code or address is pasted."""

from __future__ import annotations

import http.client
import json
import subprocess
from collections.abc import Callable
from urllib.parse import urlsplit

import pytest

from tests.cli.support import Commands, follow, sign_in_address


def paste(aimux: Commands, provider: str, *made: Callable[[str], str]) -> tuple[int, str]:
    """Sign in elsewhere and paste what each of `made` makes of the address that was shown last."""
    with aimux.process("login", provider, "--no-browser") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        said, address = "", ""
        for one in made:
            shown = ""
            while not shown.endswith("Code or address: "):
                character = process.stdout.read(1)
                assert character, said + shown
                shown += character
            said += shown
            if "/authorize?" in shown:
                address = sign_in_address(shown)
            process.stdin.write(one(address) + "\n")
            process.stdin.flush()
        rest, _ = process.communicate(timeout=60)
        return process.returncode, said + rest


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
        (lambda url: shown_code(url).partition("#")[0] + "#another-state", "belongs to another sign-in"),
        (lambda url: shown_code(url).partition("#")[0], "only a part of the code"),
        (lambda url: "ac_made-up#" + shown_code(url).partition("#")[2], "the code was wrong"),
        (lambda url: url, "the address to sign in at"),
        (lambda url: "https://example.com/", "there is no code in that"),
    ],
    ids=["another state", "no state", "another code", "the same address", "another address"],
)
def test_a_wrong_paste_asks_again(aimux: Commands, made: Callable[[str], str], says: str) -> None:
    status, said = paste(aimux, "claude", made, made, shown_code)
    assert status == 0, said
    assert said.count(says) == 2
    assert aimux.names() == ["claude/default"]


def test_who_has_nothing_more_to_paste_is_done(aimux: Commands) -> None:
    status, said = paste(aimux, "claude", lambda url: url)
    assert status == 1
    assert said.endswith("Aborted.\n")
    assert aimux.names() == []


def test_what_a_person_reads_goes_to_stderr_where_json_is_wanted(aimux: Commands) -> None:
    with aimux.process("login", "claude", "--no-browser", "--json", stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        shown = ""
        while not shown.endswith("Code or address: "):
            character = process.stderr.read(1)
            assert character, shown
            shown += character
        out, err = process.communicate(shown_code(sign_in_address(shown)) + "\n", timeout=60)
    assert process.returncode == 0, err
    assert json.loads(out)["name"] == "default"
    assert "claude/default: healthy" in err
