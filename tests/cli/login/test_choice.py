"""Which way a login goes."""

from __future__ import annotations

import click
import pytest

from aimux.cli.login import choose_flow
from aimux.plugin import Provider
from aimux.plugin.settings import ProviderSettings
from aimux_chatgpt import ChatGPT
from aimux_claude import Claude
from tests.cli.support import Commands


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
