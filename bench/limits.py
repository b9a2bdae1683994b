"""A month of a team under limits, in virtual time: who is refused although there was room, and by how much a limit is
overrun. The same traffic goes through aimux's limits and through what others do.

`make limits` takes half a minute and prints the table of bench/README.md; `ARGS=--write` keeps it there.
"""

from __future__ import annotations

import argparse
import heapq
import random
import timeit
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from aimux.limits.leases import Limits, Refusal
from aimux.limits.rules import EVERYBODY, Owner, Policy, Rule, Who
from aimux.limits.sums import Lease

if TYPE_CHECKING:
    from collections.abc import Callable

MONDAY = datetime(2026, 11, 2, tzinfo=UTC).timestamp()
DAY = 86400.0
TEAM = "team"
MAX_TOKENS = 32_000
"""What Claude Code asks for with every request, whatever it needs."""
MODELS = {"opus": (5e3, 25e3), "sonnet": (3e3, 15e3), "haiku": (1e3, 5e3)}
"""Billionths of a dollar a token, in and out; a tenth for what a cache gives, a quarter more for what it takes."""
BEGIN, END = "<!-- limits: make limits ARGS=--write -->", "<!-- end of limits -->"


@dataclass(slots=True)
class Request:
    """One request of the traffic, with what it will turn out to take."""

    user: str
    model: str
    size: int
    tokens_in: int
    tokens_out: int
    cost: int
    seconds: float

    @property
    def tokens(self) -> int:
        return self.tokens_in + self.tokens_out


Conversation = Iterator[tuple[float, Request]]
"""Pauses, and the requests behind them."""


# --- traffic ---------------------------------------------------------------------------------------------------------


def conversation(
    rng: random.Random, user: str, model: str, first: float, rounds: int
) -> Iterator[tuple[float, Request]]:
    """Pauses and the requests behind them: tools are run and their output is sent, while the context grows."""
    context, bytes_per_token = first, 3.7 * rng.lognormvariate(0, 0.08)
    cached = 0.0
    price_in, price_out = MODELS[model]
    for _ in range(rounds):
        new = rng.lognormvariate(6.6, 1.0)
        pause = rng.lognormvariate(1.2, 0.9) if rng.random() < 0.85 else rng.lognormvariate(4.5, 1.0)
        if pause > 300:
            cached = 0.0
        context = context + new
        out = min(MAX_TOKENS, rng.lognormvariate(5.4, 1.15))
        cost = price_in * (0.1 * cached + 1.25 * (context - cached)) + price_out * out
        yield (
            pause,
            Request(
                user,
                model,
                int(context * bytes_per_token * rng.lognormvariate(0, 0.01)),
                int(context),
                int(out),
                int(cost),
                1.5 + out / 70,
            ),
        )
        context += out
        cached = context
        if context > 160_000:  # compacted
            context, cached = 30_000.0, 0.0


def working_day(
    rng: random.Random, user: str, keenness: float, start: float
) -> Iterator[tuple[float, Iterator[tuple[float, Request]]]]:
    """Conversations by when they begin: people's own, subagents beside them, and small ones of a small model."""
    for _ in range(max(1, round(rng.gauss(3 * keenness, 1)))):
        begins = start + rng.uniform(8, 18) * 3600
        model = "opus" if rng.random() < 0.6 else "sonnet"
        rounds = max(3, int(rng.lognormvariate(3.6, 0.7)))
        yield begins, conversation(rng, user, model, 18_000, rounds)
        for _ in range(rounds // 12):
            yield begins + rng.uniform(0, 40 * rounds), conversation(rng, user, "haiku", 300, rng.randint(1, 3))
        if rng.random() < 0.4:
            together = begins + rng.uniform(0, 20 * rounds)
            for _ in range(rng.randint(2, 6)):
                yield together + rng.uniform(0, 2), conversation(rng, user, "sonnet", 12_000, rng.randint(4, 15))


# --- who decides -----------------------------------------------------------------------------------------------------


class Policeman(Protocol):
    def ask(self, request: Request, now: float) -> Any:
        """A lease, or None for a refusal."""

    def over(self, lease: Any, request: Request) -> None:
        """The request has ended."""


class Ours:
    """aimux.limits."""

    def __init__(self, tokens: int, cost: int, *, shared: bool) -> None:
        owner = Owner("group", TEAM) if shared else EVERYBODY
        rules = (Rule(owner, "tokens_per_day", tokens), Rule(owner, "cost_per_day", cost))
        self.limits = Limits(Policy(rules), UTC)

    def ask(self, request: Request, now: float) -> Lease | None:
        plan = self.limits.plan(self.limits.terms(Who(request.user, "", (TEAM,))), "claude", request.model, now)
        answer = self.limits.reserve(plan, request.size, now)
        return None if isinstance(answer, Refusal) else answer

    def over(self, lease: Lease, request: Request) -> None:
        self.limits.settle(lease, request.tokens_in, request.tokens_out, request.cost)


@dataclass
class Simple:
    """What others do: `reserve` says what is set aside (tokens, cost) for a request until it is over."""

    tokens: int
    cost: int
    reserve: Callable[[Request], tuple[int, int]]
    shared: bool
    used: dict[tuple[str, int], list[int]] = field(default_factory=dict)

    def ask(self, request: Request, now: float) -> tuple[list[int], int, int] | None:
        used = self.used.setdefault(("" if self.shared else request.user, int((now - MONDAY) // DAY)), [0, 0])
        tokens, cost = self.reserve(request)
        if (
            used[0] + tokens > self.tokens
            or used[1] + cost > self.cost
            or used[0] >= self.tokens
            or used[1] >= self.cost
        ):
            return None
        used[0] += tokens
        used[1] += cost
        return used, tokens, cost

    def over(self, lease: tuple[list[int], int, int], request: Request) -> None:
        used, tokens, cost = lease
        used[0] += request.tokens - tokens
        used[1] += request.cost - cost


def at_most(request: Request) -> tuple[int, int]:
    """Input, and `max_tokens` of output, at the price of a token that is in no cache."""
    price_in, price_out = MODELS[request.model]
    return request.tokens_in + MAX_TOKENS, int(request.tokens_in * price_in + MAX_TOKENS * price_out)


# --- the month -------------------------------------------------------------------------------------------------------


@dataclass
class Outcome:
    """`had_room`: requests that would have fitted, with all that was under way. `windows`: a user's days with use."""

    asked: int = 0
    had_room: int = 0
    refused: int = 0
    wrongly: int = 0
    windows: int = 0
    exhausted: int = 0
    overrun: list[float] = field(default_factory=list)
    """By how many of its largest requests each window was overrun."""


@dataclass(slots=True)
class Day:
    """What really happens on a user's day: with requests under way counted as what they will take."""

    tokens: int = 0
    cost: int = 0
    most_tokens: int = 1
    most_cost: int = 1
    refused: bool = False


def month(
    decide: Policeman, seed: int, *, users: int, days: int, tokens: int, cost: int, shared: bool = False
) -> Outcome:
    """`tokens` and `cost` a day, for each or (`shared`) for all together.

    The same traffic for whoever decides. A conversation that is refused goes on half an hour later, three times."""
    rng = random.Random(seed)
    queue: list[tuple[float, int, str, Any]] = []
    number = 0

    def put(at: float, what: str, about: Any) -> None:
        nonlocal number
        number += 1
        heapq.heappush(queue, (at, number, what, about))

    for user in range(users):
        keenness = rng.lognormvariate(0, 0.5)
        for day in range(days):
            if day % 7 < 5 and rng.random() < 0.9:
                for begins, talk in working_day(
                    random.Random(rng.random()), f"user-{user}", keenness, MONDAY + day * DAY
                ):
                    pause, request = next(talk)
                    put(begins + pause, "ask", (talk, request, 0))
    outcome, truth = Outcome(), dict[tuple[str, int], Day]()
    while queue:
        now, _, what, about = heapq.heappop(queue)
        if what == "over":
            talk, request, lease = about
            decide.over(lease, request)
            following = next(talk, None)
            if following is not None:
                put(now + following[0], "ask", (talk, following[1], 0))
            continue
        talk, request, tries = about
        day_of = truth.setdefault(("" if shared else request.user, int((now - MONDAY) // DAY)), Day())
        room = day_of.tokens + request.tokens <= tokens and day_of.cost + request.cost <= cost
        lease = decide.ask(request, now)
        outcome.asked += 1
        outcome.had_room += room
        if lease is None:
            outcome.refused += 1
            outcome.wrongly += room
            day_of.refused = True
            if tries < 3:
                put(now + 1800, "ask", (talk, request, tries + 1))
            continue
        day_of.tokens += request.tokens
        day_of.cost += request.cost
        day_of.most_tokens = max(day_of.most_tokens, request.tokens)
        day_of.most_cost = max(day_of.most_cost, request.cost)
        put(now + request.seconds, "over", (talk, request, lease))
    outcome.windows = len(truth)
    outcome.exhausted = sum(day.refused for day in truth.values())
    outcome.overrun = [
        max((day.tokens - tokens) / day.most_tokens, (day.cost - cost) / day.most_cost, 0.0) for day in truth.values()
    ]
    return outcome


CONTENDERS: dict[str, Callable[[int, int, bool], Policeman]] = {
    "aimux": lambda tokens, cost, shared: Ours(tokens, cost, shared=shared),
    "reserve `max_tokens`": lambda tokens, cost, shared: Simple(tokens, cost, at_most, shared),
    "charge afterwards": lambda tokens, cost, shared: Simple(tokens, cost, lambda _request: (0, 0), shared),
}


def row(name: str, outcome: Outcome) -> str:
    over = [part for part in outcome.overrun if part > 0]
    return (
        f"| {name} | {outcome.asked:,} | {outcome.exhausted:,} of {outcome.windows:,} | {outcome.wrongly:,} "
        f"| {100 * outcome.wrongly / outcome.had_room:.3f} % | {len(over):,} | {max(over, default=0):.2f} "
        f"| {sum(part > 1 for part in over):,} |"
    )


def cost_of_a_lease() -> str:
    """Microseconds for a reservation, and for it and its settlement, by the number of limits that hold."""
    names = (
        *("concurrent_requests", "requests_per_minute", "tokens_per_day"),
        *("cost_per_month", "tokens_per_week", "cost_per_day"),
    )
    told = []
    for count in (1, 4, 6):
        limits = Limits(Policy(tuple(Rule(EVERYBODY, name, 10**15) for name in names[:count])), UTC)
        alone, both = _time(limits, settle=False), _time(limits, settle=True)
        told.append(f"{count}: {alone:.1f} and {both:.1f}")
    return "; ".join(told)


def _time(limits: Limits, *, settle: bool) -> float:
    who = Who("alice", "laptop", (TEAM,))

    def one() -> None:
        lease = limits.reserve(limits.plan(limits.terms(who), "claude", "opus", MONDAY), 60_000, MONDAY)
        assert isinstance(lease, Lease)
        if settle:
            limits.settle(lease, 15_000, 400, 90_000_000)

    return min(timeit.repeat(one, number=200, repeat=200)) / 200 * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description="A simulated month under limits.")
    parser.add_argument("--users", type=int, default=60)
    parser.add_argument("--days", type=int, default=28)
    parser.add_argument("--seed", type=int, default=14)
    parser.add_argument("--tokens", type=int, default=12_000_000, help="tokens_per_day of every user")
    parser.add_argument("--cost", type=float, default=15.0, help="cost_per_day of every user, in dollars")
    parser.add_argument("--write", action="store_true", help="keep the table in bench/README.md")
    options = parser.parse_args()
    cost = int(options.cost * 1e9)
    lines = [
        f"{options.users} people, {options.days} days, {options.tokens:,} tokens and {options.cost:g} $ a day for "
        f"each; then {options.users // 3} times that for all together. Seed {options.seed}.",
        "",
        "| | requests | windows in which somebody was refused | refused with room | of requests with room | windows "
        "overrun | the worst, in requests | by more than one request |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for shared in (False, True):
        times = options.users // 3 if shared else 1
        for name, make in CONTENDERS.items():
            outcome = month(
                make(options.tokens * times, cost * times, shared),
                options.seed,
                users=options.users,
                days=options.days,
                tokens=options.tokens * times,
                cost=cost * times,
                shared=shared,
            )
            lines.append(row(f"{name}, {'a budget for all' if shared else 'a budget for each'}", outcome))
    lines += ["", f"Microseconds for a lease, and for it and its settlement, with so many limits: {cost_of_a_lease()}."]
    text = "\n".join(lines)
    print(text)
    if options.write:
        path = Path(__file__).parent / "README.md"
        before, _, rest = path.read_text().partition(BEGIN)
        path.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
