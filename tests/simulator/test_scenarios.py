"""How a scenario is written and chosen."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimux.simulator import Scenario, Script, UnknownScenario, parse, scenarios
from aimux.simulator.scenarios import NAMES, OK, choose


def test_several_are_combined() -> None:
    assert parse("slow-start:0.5, gap:0.01,reset:7,encode:zstd") == Scenario(
        slow_start=0.5, gap=0.01, ending="reset", ending_at=7, encode="zstd"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", OK),
        ("ok", OK),
        ("529", Scenario(status=529)),
        ("403:disabled", Scenario(status=403, detail="disabled")),
        ("429:60", Scenario(status=429, seconds=60.0)),
        ("429:60:7d_oi", Scenario(status=429, seconds=60.0, window="7d_oi")),
        ("429:60:secondary", Scenario(status=429, seconds=60.0, window="7d")),
        ("429:extra-usage", Scenario(status=429, detail="extra-usage")),
        ("503:2", Scenario(status=503, seconds=2.0)),
        ("drop:rst", Scenario(ending="drop-rst")),
        ("encode", Scenario(encode="accepted")),
        ("tool:Bash", Scenario(tool="Bash")),
    ],
)
def test_arguments(text: str, expected: Scenario) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("slow", "'slow' is no scenario; there are ok, slow-start"),
        ("999", "'999' is no scenario"),
        ("200", "'200' is no scenario"),
        ("gap:soon", "scenario 'gap:soon': could not convert"),
        ("gap:-1", "must be a number of seconds"),
        ("gap:nan", "must be a number of seconds"),
        ("reset:-1", "must not be negative"),
        ("encode:lzma", "must be one of gzip, deflate, br, zstd"),
        ("429:1:9d", "the window must be one of"),
        ("ok:1", "takes other arguments"),
        ("events", "takes other arguments"),
        ("drop:gently", "takes other arguments"),
    ],
)
def test_what_is_wrong_is_said(text: str, says: str) -> None:
    with pytest.raises(UnknownScenario, match=re.escape(says)):
        parse(text)


@given(st.text(max_size=40) | st.from_regex(r"[a-z0-9-]{1,10}(:[^,]{0,5}){0,3}", fullmatch=True))
def test_any_text_is_a_scenario_or_unknown(text: str) -> None:
    try:
        assert isinstance(parse(text), Scenario)
    except UnknownScenario as error:
        assert str(error)


def test_the_table_names_every_scenario_and_no_other() -> None:
    rows = [line for line in (scenarios.__doc__ or "").splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`([a-z][a-z0-9-]*)[\[:`]", row.split(" | ")[0])}
    assert named == set(NAMES)


def test_a_script_is_used_up_and_then_falls_back() -> None:
    script = Script("500")
    script("429:60", Scenario(hang=True))
    assert len(script) == 2
    chosen = [choose(None, script) for _ in range(4)]
    assert chosen == [parse("429:60"), Scenario(hang=True), parse("500"), parse("500")]
    script.clear()
    assert choose(None, script) == OK


def test_header_first_then_queues_then_what_is_always() -> None:
    account, server = Script("401"), Script("500")
    server("529")
    assert choose("ok", account, server) == OK
    assert [choose(None, account, server).status for _ in range(2)] == [529, 401]
