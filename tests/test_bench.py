"""The bench itself: its traffic, its load generator and its table."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from aimux.metering.calendar import DAY
from aimux.metering.spans import Span
from aimux.storage import Database
from bench import instructions, limits, report, traffic, year
from bench.__main__ import check
from bench.contenders import Served, Unavailable
from bench.peers import link_assistant_router, litellm
from bench.report import Results

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]


def body_of(message: bytes) -> bytes:
    return message.partition(b"\r\n\r\n")[2]


@pytest.mark.parametrize(("kind", "size"), [("small", traffic.SMALL_IN), ("turn", traffic.TURN_IN)])
def test_requests_have_their_size(kind: str, size: int) -> None:
    body = body_of(traffic.request(kind, "/claude"))
    assert len(body) == size
    assert json.loads(body)["stream"] is (kind == "turn")


def test_answers_have_their_size() -> None:
    assert len(body_of(traffic.small_answer(1, 0))) == traffic.SMALL_OUT
    chunks = traffic.stream_chunks(traffic.EVENTS)
    assert len(chunks) == traffic.EVENTS
    for chunk in chunks:
        size, _, rest = chunk.partition(b"\r\n")
        assert rest[int(size, 16) : int(size, 16) + 2] == b"\r\n"


def test_answers_repeat_what_a_vendor_repeats() -> None:
    first, second = (
        dict(line.split(b": ", 1) for line in traffic.answer_head("small", number, 1_790_000_000).split(b"\r\n")[1:-2])
        for number in (1, 100)
    )
    assert first.keys() == second.keys()
    changed = {name for name in first if first[name] != second[name]}
    assert {b"request-id", b"CF-RAY", b"anthropic-ratelimit-unified-5h-utilization"} <= changed
    assert b"anthropic-ratelimit-unified-5h-reset" not in changed
    assert len(traffic.small_answer(1, 0)) == len(traffic.small_answer(10_000, 0))


def test_more_instructions_than_before_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{instructions.BEGIN}| a |\n| - |\n| other | 1 | 2 | 3 |\n{instructions.END}\nafter\n")
    monkeypatch.setattr(instructions, "README", readme)
    figures = {"small request": 100_000, "turn": 1_000_000, "event": 6_000}
    assert instructions.compared(figures, instructions.kept().get(instructions.interpreter()))[1], "nothing to compare"
    instructions.keep(figures)
    assert instructions.kept() == {
        "other": {"small request": 1, "turn": 2, "event": 3},
        instructions.interpreter(): figures,
    }
    assert readme.read_text().startswith("before\n")
    assert readme.read_text().endswith(f"{instructions.END}\nafter\n")
    before = instructions.kept()[instructions.interpreter()]
    assert instructions.compared({**figures, "event": 6_170}, before)[1]
    lines, good = instructions.compared({**figures, "event": 6_190}, before)
    assert not good
    assert "WORSE" in lines[2]


@pytest.fixture
def upstream() -> Iterator[int]:
    with closing(socket.create_server(("127.0.0.1", 0))) as probe:
        port: int = probe.getsockname()[1]
    process = subprocess.Popen([sys.executable, "-m", "bench.upstream", str(port)], cwd=ROOT)
    try:
        while True:
            with socket.socket() as sock:
                if sock.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None
        yield port
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(("environ", "status"), [({}, 0), ({"CI": "true"}, 1)])
def test_what_can_not_be_counted_fails_in_ci_only(
    environ: dict[str, str],
    status: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def count(*_: object) -> dict[str, int]:
        raise Unavailable("valgrind is not installed")

    monkeypatch.setattr(instructions, "count", count)
    monkeypatch.delenv("CI", raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert check(tmp_path, write=False) == status
    assert capsys.readouterr().out == "skipped: valgrind is not installed\n"


@pytest.mark.parametrize("kind", ["small", "short", "hold"])
def test_load_and_upstream_understand_each_other(upstream: int, kind: str) -> None:
    order = asdict(Served(upstream)) | {"kind": kind, "connections": 4, "requests": 20, "warm_up": 4}
    run = subprocess.run(
        [sys.executable, "-m", "bench.load", json.dumps(order)],
        input="go\n",
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
        check=True,
    )
    ready, result = run.stdout.splitlines()
    assert ready == "ready"
    assert kind == "hold" or json.loads(result)["requests"] == 20


def test_the_load_generator_says_what_went_wrong() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        served = Served(server.getsockname()[1])
        order = asdict(served) | {"kind": "small", "connections": 1, "requests": 1, "warm_up": 1}
        process = subprocess.Popen(
            [sys.executable, "-m", "bench.load", json.dumps(order)],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        with closing(server.accept()[0]) as connection:
            connection.recv(100)
            connection.sendall(b"HTTP/1.1 503 Service Unavailable\r\n\r\n")
            assert "503 Service Unavailable" in process.communicate(timeout=30)[1]
    assert process.returncode == 1


def test_the_table_has_medians_ratios_and_reasons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {
        "nginx": {"small": [20e-6, 30e-6, 999e-6], "turn": [2e-3], "short": [0.26e-3], "rss": [50e6], "start": [0.01]},
        "aimux": {"small": [80e-6, 90e-6, 2997e-6], "turn": [3e-3]},
        "aimux, 10,000 users": {"small": [88e-6, 99e-6, 9999e-6]},
        "aimux, no ledger": {"small": [80e-6, 80e-6, 80e-6]},
        "aimux, limits, ledger and 10,000 users": {"small": [88e-6, 99e-6, 84e-6]},
        "aimux, 20 accounts and models": {"small": [1e-6]},
        "LiteLLM": {"small": [8e-3, 9e-3, 0.6]},
    }
    text = report.table(Results(values, {"nginx": "nginx/1"}, {"Go ReverseProxy": "go is not installed"}), 3, 1000)
    assert "| nginx | 30 | 2.00 | 6.0 | – | – | 50 | 10 |" in text
    assert "| aimux | 90 | 3.00 | – |" in text
    assert "A real turn costs aimux 1.50× nginx." in text
    assert "A small request costs aimux 3.00× nginx." in text, "the median of 4, 3 and 3: one slow minute slows both"
    assert "With 10,000 users a small request costs 1.10×" in text
    assert "Limits, ledger and 10,000 users together make a small request cost 1.100× as much." in text
    assert "A small request costs LiteLLM 100.0× aimux." in text
    assert "20 accounts and models routed" not in text, "a round of it is missing"
    assert "Left out: Go ReverseProxy: go is not installed." in text
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    monkeypatch.setattr(report, "README", readme)
    report.write_readme(text)
    assert readme.read_text() == f"before\n{report.BEGIN}\n{text}{report.END}\nafter\n"


def test_a_peer_that_cant_be_installed_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(litellm, "HOME", tmp_path / "peer")
    monkeypatch.setattr(litellm, "WANTED", str(tmp_path / "litellm.whl"))
    with pytest.raises(Unavailable, match="could not be installed"):
        litellm.LITELLM.command(tmp_path, 1, "http://127.0.0.1:1")
    monkeypatch.setattr(link_assistant_router, "HOME", tmp_path / "other")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unavailable, match="cargo is not installed"):
        link_assistant_router.LINK_ASSISTANT_ROUTER.command(tmp_path, 1, "http://127.0.0.1:1")


@pytest.mark.parametrize("shared", [False, True])
def test_a_week_under_limits_is_within_what_is_promised(shared: bool) -> None:
    tokens, cost = (40_000_000, 50_000_000_000) if shared else (12_000_000, 15_000_000_000)
    outcome = limits.month(
        limits.CONTENDERS["aimux"](tokens, cost, shared), 3, users=6, days=7, tokens=tokens, cost=cost, shared=shared
    )
    assert outcome.refused
    assert outcome.asked > 3000
    assert outcome.wrongly < 0.001 * outcome.had_room
    assert max(outcome.overrun) <= 1


async def test_a_years_questions_have_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aimux.metering.reports.now", lambda: year.AT)
    database = await Database.open(None, tmp_path)
    try:
        reports = await year.year(database, people=5, a_day=200)
        for question, days, only in year.QUESTIONS:
            assert await year.ask(reports, question, Span(year.AT - days * DAY), only) > 0, question
    finally:
        await database.close()
