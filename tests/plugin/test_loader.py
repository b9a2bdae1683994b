from __future__ import annotations

import sys
import types
from importlib.metadata import EntryPoint

import pytest

from aimux.plugin import Provider, Register, hookimpl
from aimux.plugin.loader import load_plugins


def module(monkeypatch: pytest.MonkeyPatch, name: str, *providers: type[Provider], **more: object) -> EntryPoint:
    """An entry point to a module that registers `providers`."""
    made = types.ModuleType(name)

    @hookimpl
    def aimux_register_providers(register: Register) -> None:
        for provider in providers:
            register(provider)

    made.aimux_register_providers = aimux_register_providers  # type: ignore[attr-defined]
    for key, value in more.items():
        setattr(made, key, value)
    monkeypatch.setitem(sys.modules, name, made)
    return EntryPoint(name, name, "aimux")


class One(Provider):
    name = "one"


class Two(Provider):
    name = "two"


class Nameless(Provider):
    pass


def test_each_plugin_registers_its_providers(monkeypatch: pytest.MonkeyPatch) -> None:
    found = load_plugins([module(monkeypatch, "b_plugin", Two), module(monkeypatch, "a_plugin", One)])
    assert found.providers == {"one": One, "two": Two}
    assert [(plugin.name, plugin.providers, plugin.error) for plugin in found.plugins] == [
        ("a_plugin", ["one"], None),
        ("b_plugin", ["two"], None),
    ]


def test_a_plugin_that_cannot_be_imported_is_named_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    found = load_plugins([EntryPoint("gone", "no_such_module", "aimux"), module(monkeypatch, "fine", One)])
    assert found.providers == {"one": One}
    (failed,) = found.failed
    assert failed.name == "gone"
    assert failed.error is not None
    assert "no_such_module" in failed.error


@pytest.mark.parametrize(
    ("providers", "says"),
    [
        ((), "registered no provider"),
        ((Nameless,), "no usable `name`"),
        ((dict,), "no subclass"),
        ((One, One), "already"),
    ],
)
def test_a_plugin_that_registers_nonsense_is_left_out_whole(
    monkeypatch: pytest.MonkeyPatch, providers: tuple[type[Provider], ...], says: str
) -> None:
    found = load_plugins([module(monkeypatch, "odd", *providers), module(monkeypatch, "unhurt", Two)])
    assert found.providers == {"two": Two}
    assert found.failed[0].error is not None
    assert says in found.failed[0].error
    assert found.failed[0].providers == []


def test_a_hook_that_is_misspelt_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    @hookimpl
    def aimux_register_provider(register: Register) -> None:
        """One letter short."""

    found = load_plugins([module(monkeypatch, "misspelt", One, aimux_register_provider=aimux_register_provider)])
    assert found.failed[0].error is not None
    assert "aimux_register_provider" in found.failed[0].error


def test_the_providers_of_this_distribution_load_as_a_strangers_do() -> None:
    found = load_plugins()
    assert not found.failed
    assert {"claude", "chatgpt", "compatible"} <= found.providers.keys()
