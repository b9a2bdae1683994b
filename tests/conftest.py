"""For all tests."""

from __future__ import annotations

import functools
import gc
import os
import signal
from collections import Counter
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.postgresql import database_url, postgresql, postgresql_url, tables_url

__all__ = ["database_url", "postgresql", "postgresql_url", "tables_url"]

# A shell that starts the suite in the background has Ctrl-C ignored, and so would have the programs under test.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# An example has no time limit: on a busy machine that would be chance. They are the same in each run; `make fuzz` takes
# new ones.
settings.register_profile("same", settings(deadline=None, derandomize=True))
settings.register_profile("new", settings(deadline=None))
settings.load_profile("same")

# As in a gateway that serves: looking for garbage after every 700 objects takes a fifth of the time.
gc.set_threshold(50_000)

ROOT = Path(__file__).parent
IN_CI = (
    "accounts/test_processes.py",
    "attacks",
    "chaos",
    "clients",
    "contracts/test_plugin_document.py",
    "control/dashboard",
    "control/test_openapi.py",
    "e2e",
    "front/test_descriptors.py",
    "nix",
    "packaging",
    "soak",
    "test_bench.py",
)
"""They take minutes, or programs that few machines have: run where CI is set, and by name."""
SLOW = (
    *IN_CI,
    "certificates/test_pair.py",
    "cli/accounts/test_commands.py",
    "cli/accounts/test_people.py",
    "cli/login",
    "cli/test_cli_config.py",
    "cli/test_cli_main.py",
    "cli/test_cli_serve.py",
    "deploy",
    "migrate/test_sources.py",
    "simulator/test_demo.py",
)
"""Programs that are started, or half a minute a file: `make check` leaves them to `make test`."""
LONG = (
    "accounts/test_database_state.py",
    "accounts/test_database_vault.py",
    "accounts/test_keeper.py",
    "accounts/test_machine.py",
    "cli/test_connect.py",
    "cli/test_db.py",
    "cli/importing",
    "cli/test_top.py",
    "cli/test_usage.py",
    "cli/test_words.py",
    "compiled",
    "contracts",
    "control/test_demo.py",
    "control/test_plan.py",
    "control/test_prices.py",
    "front/test_bombs.py",
    "front/test_heads.py",
    "front/test_hostile_heads.py",
    "front/test_slow.py",
    "front/test_smuggling.py",
    "fuzz",
    "gateway/test_attempts.py",
    "gateway/test_deposit_rows.py",
    "gateway/test_draining.py",
    "gateway/test_guesses.py",
    "gateway/test_large_bodies.py",
    "gateway/test_outline.py",
    "gateway/test_streaming.py",
    "gateway/websockets/test_messages.py",
    "limits/test_books.py",
    "limits/test_exchange.py",
    "limits/test_exchange_clocks.py",
    "limits/test_exchange_open.py",
    "limits/test_leases_machine.py",
    "limits/test_shares.py",
    "metering/test_ledger.py",
    "metering/test_ledger_rows.py",
    "metering/test_price_book.py",
    "metering/test_report_clocks.py",
    "metering/test_reports.py",
    "metering/test_spill.py",
    "migrate/test_who_gets_in.py",
    "people/test_changes.py",
    "people/test_machine.py",
    "plugin/test_codings.py",
    "relay/test_websocket_frames.py",
    "simulator/test_sdks.py",
    "storage/test_archive.py",
    "storage/test_database.py",
    "storage/test_migrations.py",
    "storage/test_postgresql.py",
    "storage/test_sqlite.py",
    "storage/test_start.py",
)
"""More than a few seconds a file: `make check` leaves them, too, and what is on PostgreSQL, since that starts a server.
Other Pythons get them (`.ci/run`)."""

LONGEST = (
    "e2e/test_ledger.py",
    "chaos/test_chaos.py",
    "e2e/test_database_away.py",
    "deploy/test_container.py",
    "nix/test_flake.py",
    "packaging/test_distribution.py",
)
"""Up to four minutes each: the first that run, so that none is alone at the end."""


def pytest_configure(config: pytest.Config) -> None:
    """Files go to workers in the order of `_longest_first`: by the number of tests, which is xdist's own, one whose
    single test takes minutes would be the last."""
    config.option.loadscopereorder = False


def pytest_xdist_auto_num_workers() -> int:
    """More than cores: tests wait for a third of their time, and those that only CI runs for most of it."""
    return (os.cpu_count() or 1) + (2 if os.environ.get("CI") else 1)


def _within(path: Path, places: tuple[str, ...]) -> bool:
    return any(path.is_relative_to(ROOT / place) for place in places)


def _on_postgresql(item: pytest.Item) -> bool:
    if not isinstance(item, pytest.Function):
        return False
    asked = "postgresql" in item.fixturenames
    return asked or (hasattr(item, "callspec") and item.callspec.params.get("database_url") == "postgresql")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """What `make check` leaves out is not imported either: some of it takes seconds."""
    expression = config.option.markexpr
    left_out = (*(SLOW if "not slow" in expression else ()), *(LONG if "not long" in expression else ()))
    return True if _within(collection_path, left_out) else None


def _longest_first(items: list[pytest.Item]) -> None:
    """Files that take long before others, and among their like those with the most tests: what ends a run is quick."""
    tests = Counter(item.path for item in items)
    first = {ROOT / place: number for number, place in enumerate(LONGEST)}

    @functools.cache
    def rank(path: Path) -> tuple[int, bool, bool, int, Path]:
        number = first.get(path, len(first))
        return number, not _within(path, IN_CI), not _within(path, SLOW), -tests[path], path

    items.sort(key=lambda item: rank(item.path))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    named = [Path(argument.partition("::")[0]).resolve() for argument in config.args]
    skipped = pytest.mark.skip(reason="it takes long: CI runs it, and `make test TESTS=` with its name")

    # The same for each test of a file, of which there are thousands.
    @functools.cache
    def marks(path: Path) -> list[pytest.MarkDecorator]:
        found = [mark for mark, places in ((pytest.mark.slow, SLOW), (pytest.mark.long, LONG)) if _within(path, places)]
        for place in () if os.environ.get("CI") else IN_CI:
            by_name = any(name == path or (name != ROOT and name.is_relative_to(ROOT / place)) for name in named)
            if path.is_relative_to(ROOT / place) and not by_name:
                found.append(skipped)
        return found

    _longest_first(items)
    for item in items:
        for mark in marks(item.path):
            item.add_marker(mark)
        if _on_postgresql(item):
            item.add_marker(pytest.mark.long)


def pytest_collection_finish() -> None:
    """What someone has set for their own aimux, or for the tests, which have read it, is not for those under test."""
    for name in [name for name in os.environ if name.startswith("AIMUX_")]:
        del os.environ[name]
    # All tests stay until the end: whenever the garbage is collected they would be looked through, a fifth of the time.
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What a test printed travels between processes, as UTF-8; some tests print what is none on purpose."""
    report = yield
    report.sections[:] = [(name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections]
    return report
