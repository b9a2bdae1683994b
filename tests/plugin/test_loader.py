from __future__ import annotations

import sys
import types
from importlib.metadata import EntryPoint, entry_points

import pytest
from aiohttp import web

from aimux import DISTRIBUTION
from aimux.metering.record import RequestRecord
from aimux.plugin import (
    Command,
    Provider,
    Record,
    Register,
    RegisterCommand,
    RegisterRoutes,
    RegisterSink,
    Routes,
    hookimpl,
)
from aimux.plugin.loader import Plugins, load_plugins


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
        ((), "registered nothing"),
        ((Nameless,), "no usable `name`"),
        ((dict,), "not a subclass"),
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


def parts(monkeypatch: pytest.MonkeyPatch, name: str, *brought: Command | Routes) -> EntryPoint:
    """An entry point to a module that registers commands and routes."""

    @hookimpl
    def aimux_register_commands(register: RegisterCommand) -> None:
        for part in brought:
            if isinstance(part, Command):
                register(part)

    @hookimpl
    def aimux_register_routes(register: RegisterRoutes) -> None:
        for part in brought:
            if isinstance(part, Routes):
                register(part)

    hooks = {"aimux_register_commands": aimux_register_commands, "aimux_register_routes": aimux_register_routes}
    return module(monkeypatch, name, **hooks)


def error(found: Plugins) -> str:
    (failed,) = found.failed
    assert failed.error is not None
    return failed.error


def command(name: str, target: str = "acme:cli") -> Command:
    return Command(name, target, "Do it.")


def routes(prefix: str) -> Routes:
    return Routes(prefix, lambda _api: web.Application())


def test_a_plugin_brings_commands_and_routes_without_a_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    served, told = routes("/acme/admin"), command("acme-report")
    found = load_plugins([parts(monkeypatch, "acme", served, told)])
    assert (found.commands, found.routes) == ({"acme-report": told}, {"/acme/admin": served})
    assert [(p.commands, p.routes, p.error) for p in found.plugins] == [(["acme-report"], ["/acme/admin"], None)]


@pytest.mark.parametrize(
    ("part", "says"),
    [
        (command("Acme Report"), "needs a name"),
        (command("acme", "acme.cli"), "module:attribute"),
        (routes("acme"), "not a usable path prefix"),
        (routes("/a/../b"), "not a usable path prefix"),
        (routes("/"), "not a usable path prefix"),
        (routes("/health"), "belongs to aimux itself"),
        (Routes("/acme", lambda _api: web.Application(), health="ok"), "`health` needs a `compatibility`"),
        (routes("/api/v1/users"), "belongs to aimux itself"),
    ],
)
def test_an_unusable_part_leaves_its_plugin_out_whole(
    monkeypatch: pytest.MonkeyPatch, part: Command | Routes, says: str
) -> None:
    found = load_plugins([parts(monkeypatch, "acme", command("fine"), part)])
    assert says in error(found)
    assert found.commands == found.routes == {}


@pytest.mark.parametrize("prefix", ["/acme", "/acme/sub", "/acme/sub/below"])
def test_two_plugins_cannot_serve_the_same_paths(monkeypatch: pytest.MonkeyPatch, prefix: str) -> None:
    found = load_plugins(
        [parts(monkeypatch, "a", routes("/acme/sub")), parts(monkeypatch, "b", routes(prefix), routes("/other"))]
    )
    assert "collides" in error(found)
    assert list(found.routes) == ["/acme/sub"]


def test_a_provider_cannot_be_named_after_a_path_of_aimux(monkeypatch: pytest.MonkeyPatch) -> None:
    health = type("Health", (Provider,), {"name": "health"})
    assert "path of aimux's own" in error(load_plugins([module(monkeypatch, "odd", health)]))


@pytest.mark.parametrize("name", ["serve", "accounts"])
def test_no_plugin_takes_a_built_in_command_by_sorting_first(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    own = list(entry_points(group="aimux"))
    found = load_plugins([parts(monkeypatch, "a_first", command(name)), *own])
    assert "already exists" in error(found)
    assert found.commands[name].target.startswith("aimux.cli.")


def test_no_plugin_takes_a_built_in_provider_by_sorting_first(monkeypatch: pytest.MonkeyPatch) -> None:
    claude = type("Claude", (Provider,), {"name": "claude"})
    found = load_plugins([module(monkeypatch, "a_first", claude), *entry_points(group="aimux")])
    assert "already exists" in error(found)
    assert found.providers["claude"].__module__.startswith("aimux_claude")


def test_what_is_built_in_is_told_by_its_distribution() -> None:
    assert {entry.dist.name for entry in entry_points(group="aimux") if entry.dist} == {DISTRIBUTION}


def test_sinks_of_records_are_found_and_nonsense_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Record] = []

    def plugin(name: str, sink: object) -> EntryPoint:
        @hookimpl
        def aimux_register_sinks(register: RegisterSink) -> None:
            register(sink)  # type: ignore[arg-type]

        return module(monkeypatch, name, aimux_register_sinks=aimux_register_sinks)

    found = load_plugins([plugin("good", seen.append), plugin("odd", "no function")])
    assert [sink.__name__ for sink in found.sinks] == ["append"]
    assert "can't be called" in error(found)
    record: Record = RequestRecord("req_1", 0.0, "GET", "/x")
    found.sinks[0](record)
    assert seen == [record]
