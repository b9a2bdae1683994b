"""`aimux usage`: a table in the terminal, and what scripts read."""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import Iterator
from pathlib import Path

import pytest

from aimux.cli.usage import short
from aimux.config import load_config
from aimux.metering.metering import Metering
from aimux.storage import Database
from tests.cli.support import Commands, on_terminal, plain
from tests.control.conftest import PLUGINS
from tests.control.live import running
from tests.metering.support import NOON, record

SPAN = ("--since", "2026-11-20", "--until", "2026-11-28")
PRICES = {"sonnet": {"input": 3, "output": 15}}


@pytest.fixture
def aimux(tmp_path: Path) -> Iterator[Commands]:
    """No server; a ledger with requests of ann's and bob's."""
    with running(tmp_path, serve=False, prices=PRICES) as live:
        records = [record(NOON - number * 3600, usage={"input_tokens": 2_000_000}) for number in range(3)]
        records += [record(user="bob"), record(user="[red]eve", usage={"model": "no-such-model"}, conversation="")]

        async def fill() -> None:
            config = load_config(live.config, environ={}, providers=PLUGINS.providers)
            database = await Database.open(None, live.state_dir)
            metering = Metering(database, config, {})
            for one in records:
                metering.ledger.record(one)
            await metering.close()
            await database.close()

        asyncio.run(fill())
        yield Commands(live, {"HOME": str(live.folder), "AIMUX_CONFIG": str(live.config)})


def test_sums_stand_in_a_table_by_cost(aimux: Commands) -> None:
    lines = aimux("usage", *SPAN).stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["USER", "ann", "bob", "[red]eve", "total"]
    assert lines[1].split()[1:] == ["3", "6.00M", "15", "0", "0", "0", "$18.00"]
    assert lines[3].endswith("$0.00+?")
    assert lines[4].split()[1:] == ["5", "6.00M", "25", "0", "0", "0", "$18.00+?"]


def test_what_has_no_price_is_said(aimux: Commands) -> None:
    assert "1 request has no price: see `aimux prices`" in aimux("usage", *SPAN).stderr
    assert "no price" not in aimux("usage", *SPAN, "--user", "ann").stderr


def test_requests_without_a_conversation_are_in_the_sum_of_conversations(aimux: Commands) -> None:
    """So are those whose conversations went with single requests."""
    shown = aimux("usage", *SPAN, "--by", "conversation")
    assert [line.split()[0] for line in shown.stdout.splitlines()] == ["CONVERSATION", "talk", "talk", "total"]
    assert "1 request belongs to none" in shown.stderr
    shown = aimux("usage", *SPAN, "--by", "conversation", "--user", "[red]eve")
    assert [line.split()[:2] for line in shown.stdout.splitlines()] == [["CONVERSATION", "USER"], ["total", "1"]]
    assert "to none" not in aimux("usage", *SPAN, "--by", "conversation", "--user", "ann").stderr


def test_a_token_is_shown_with_whose_it_is(aimux: Commands) -> None:
    head, row, *_ = aimux("usage", *SPAN, "--by", "token").stdout.splitlines()
    assert head.split()[:4] == ["TOKEN", "USER", "LABEL", "REQUESTS"]
    assert row.split()[:3] == ["t1", "–", "–"], "nobody knows it"


def test_questions_can_be_narrowed(aimux: Commands) -> None:
    assert [item["day"] for item in aimux.json("usage", *SPAN, "--by", "day")["items"]] == ["2026-11-26"]
    for only in (
        ("--token", "t1"),
        ("--user", "ann"),
        ("--model", "sonnet"),
        ("--account", "claude/default"),
        ("--group", "team"),
    ):
        found = aimux.json("usage", *SPAN, *only)
        assert "ann" in [item["user"] for item in found["items"]]
        assert set(found) == {"items", "total", "unread"}
    for name in ("--token", "--class", "--client"):
        assert aimux.json("usage", *SPAN, name, "nothing")["items"] == []
        assert aimux.json("requests", *SPAN, name, "nothing")["items"] == []
    assert aimux.json("usage", *SPAN, "--user", "nobody")["items"] == []
    nothing = aimux("usage", *SPAN, "--user", "nobody")
    assert nothing.stdout == "There was no such request in that time.\n"
    assert "name the day after it" not in nothing.stderr
    one_day = aimux("usage", "--since", "2026-11-26", "--until", "2026-11-26")
    assert "It ends where 2026-11-26 begins: name the day after it to have that day." in one_day.stderr


def test_single_requests_are_listed_the_latest_first(aimux: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    heading, *lines = aimux("requests", *SPAN).stdout.splitlines()
    assert heading.split()[0] == "ID"
    assert len(lines) == 5
    assert [line.split()[3] for line in lines].count("ann") == 3
    times = [line.split()[2] for line in lines]
    assert times == sorted(times, reverse=True)
    assert [line.split()[0] for line in aimux("requests", *SPAN, "--last", "2").stdout.splitlines()[1:]] == [
        line.split()[0] for line in lines[:2]
    ]
    monkeypatch.setattr("aimux.cli.asking.PAGE", 2)
    assert aimux("requests", *SPAN).stdout.splitlines() == [heading, *lines], "from several pages"
    assert [item["user"] for item in aimux.json("requests", *SPAN, "--user", "bob")["items"]] == ["bob"]
    assert aimux("requests", *SPAN, "--failed").stdout == "There was no such request in that time.\n"
    assert "PROVIDER/ACCOUNT" in aimux("requests", "--account", "default", expect=2).stderr


def test_csv_is_csv(aimux: Commands) -> None:
    names, *rows = csv.reader(io.StringIO(aimux("usage", *SPAN, "--csv").stdout))
    assert (names[0], names[-1]) == ("user", "unpriced_requests")
    assert [row[0] for row in rows] == ["ann", "bob", "[red]eve"]
    assert float(rows[0][names.index("cost_usd")]) == pytest.approx(18.000225)
    for by, first in (("user", ["user"]), ("conversation", ["conversation", "user"]), ("day", ["day"])):
        [nothing] = csv.reader(io.StringIO(aimux("usage", "--by", by, "--user", "nobody", "--csv").stdout))
        assert nothing == [*first, *names[1:]]


@pytest.mark.parametrize(
    ("columns", "head", "ann"),
    [
        (140, "INPUT OUTPUT CACHE READ CACHE WRITE REASONING COST", "███ 3 6.00M 15 0 0 0 $18.00"),
        (80, "INPUT OUTPUT CACHE READ CACHE WRITE REASONING COST", "ann 3 6.00M 15 0 0 0 $18.00"),
        (70, "REQUESTS TOKENS COST", "███ 3 6.00M $18.00"),
        (40, "REQUESTS TOKENS COST", "ann 3 6.00M $18.00"),
    ],
)
def test_a_narrow_terminal_has_fewer_columns_and_whole_numbers(
    aimux: Commands, columns: int, head: str, ann: str
) -> None:
    code, shown = on_terminal(aimux.live.folder, "usage", *SPAN, columns=columns, **aimux.environ)
    table = plain(shown)[plain(shown).index("USER ") :].splitlines()  # what stands before says that no server runs
    assert code == 0
    assert " ".join(table[0].split()).endswith(head)
    assert " ".join(table[1].split()).endswith(ann)
    assert all(len(line) <= columns for line in table[:5])


def test_headings_are_written_alike_in_all_tables(aimux: Commands) -> None:
    plan = ("plan", "--since", "2026-11-20", "--window", "5h=12")
    for command in (
        ("usage", *SPAN),
        ("usage", *SPAN, "--by", "conversation"),
        ("requests", *SPAN),
        ("providers",),
        plan,
    ):
        lines = aimux(*command).stdout.splitlines()
        assert lines[command is plan].isupper()  # sentences come before it


def test_long_lists_are_cut_unless_all_is_wanted(aimux: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aimux.cli.usage.SHOWN", 1)
    lines = aimux("usage", *SPAN).stdout.splitlines()
    assert lines[2].startswith("2 more (--all)")
    assert lines[2].split()[3] == "2"
    assert len(aimux("usage", *SPAN, "--all").stdout.splitlines()) == 5


def test_a_wrong_question_is_answered_with_how_to_ask(aimux: Commands) -> None:
    assert "write it like 7d" in aimux("usage", "--since", "tomorrow", expect=1).stderr
    assert "user" in aimux("usage", "--by", "shoe", expect=2).stderr
    assert "Choose one" in aimux("usage", "--json", "--csv", expect=2).stderr
    assert "like claude/default" in aimux("usage", "--account", "default", expect=2).stderr
    assert "--url begins with https://" in aimux("prices", "update", "--url", "prices.json", expect=2).stderr


def test_why_reads_the_ledger_without_a_server(aimux: Commands) -> None:
    (first, *_) = aimux.json("usage", *SPAN, "--by", "hour")["items"]
    assert first["hour"] == "2026-11-26T10:00:00Z"
    assert "is not in the ledger, which keeps requests for 90 days" in aimux("why", "req_1", expect=1).stderr


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0"), (1234, "1,234"), (999_999, "999,999"), (1_234_567, "1.23M"), (5 * 10**9, "5.00G")]
)
def test_large_counts_are_short(count: int, text: str) -> None:
    assert short(count) == text


def test_prices_are_shown_and_applied(aimux: Commands) -> None:
    assert "No model was used yet" in aimux("prices").stdout
    assert "0 requests have a price now" in aimux("prices", "apply").stdout
    assert aimux.json("prices") == []
    assert (
        "can't be fetched from http://127.0.0.1:9/"
        in aimux("prices", "update", "--url", "http://127.0.0.1:9/", expect=1).stderr
    )


def test_accounts_are_compared_with_their_vendors_windows(aimux: Commands) -> None:
    assert "No window was sampled yet" in aimux("usage", "--accounts").stdout
    assert aimux.json("usage", "--accounts", "--since", "30d") == []
    assert "--since, --until and --json only" in aimux("usage", "--accounts", "--user", "ann", expect=2).stderr


def test_a_plan_says_what_fewer_or_more_accounts_would_have_done(aimux: Commands) -> None:
    """Each of ann's three requests cost six dollars, an hour apart; the others next to nothing."""
    since = ("--since", "2026-11-20", "--window", "5h=12")
    (one,) = aimux.json("plan", *since)
    assert (one["provider"], one["requests"]) == ("claude", 5)
    assert one["refused"] > 0
    assert [account["account"] for account in one["accounts"]] == ["default"]
    (two,) = aimux.json("plan", *since, "--accounts", "claude=2", "--strategy", "round_robin")
    assert (two["refused"], two["waited"]) == (0, 0)
    assert [account["account"] for account in two["accounts"]] == ["default", "new-1"]
    assert aimux("plan", *since).stdout.startswith("claude: of 5 requests 0 would have waited and ")


def test_a_plan_needs_to_know_what_a_window_holds(aimux: Commands) -> None:
    assert "--window 5h=12.50" in aimux("plan", "--since", "2026-11-20", expect=1).stderr
    for wrong in (("--window", "5h=x"), ("--window", "week=5"), ("--accounts", "claude=0")):
        aimux("plan", *wrong, expect=2)
    assert "no provider 'nobody'; there are: chatgpt" in aimux("plan", "--accounts", "nobody=2", expect=1).stderr
    assert "kept since" in aimux("plan", "--since", "120d", "--window", "5h=1").stderr
    assert "has no request since then" in aimux("plan", "--since", "1m", "--window", "5h=1", expect=1).stderr
