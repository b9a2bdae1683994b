"""What every request was to become, what it became, and whose words it brought. The ledger decides, nobody else."""

from __future__ import annotations

import math
import random
import re
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TAG = re.compile(r"tag-\d{6}-[0-9a-f]{8}")
TOLD = 8
"""So many first characters of a secret may be shown."""
PIECE = 16
"""So many others in a row are a leak."""
RUN = re.compile(rb"[\w.+/=-]{%d,}" % PIECE)
"""Where there can be one: tokens and keys are made of these."""
FILLING = re.compile(rb"\.{99,}")
"""What a large answer is made of: hundreds of megabytes in a few minutes, and no secret."""

WELL = frozenset({"whole", "left", "as asked"})


@dataclass(slots=True)
class Entry:
    """One request. `end` is how it ended:

    `whole`; `failed`: a status or an event said so, and its answer is complete; `told`: an error event, and then the
    connection broke; `broken`: it broke without a word; `torn`: half a JSON document in whole framing; `closed`: aimux
    ended a socket with a close frame that asks to come back; `unanswered`: a kept connection was closed when this
    request came; `unconnected`: nobody was there; `left`: the client went away itself; `as asked`: it had asked for
    just that.
    """

    tag: str
    provider: str
    kind: str
    began: float
    ended: float = math.inf
    end: str = ""
    status: int = 0
    detail: str = ""


@dataclass(slots=True, eq=False)
class Excuse:
    """Why so many requests, of some sort or of any, may have ended in one of these ways between two moments."""

    ends: tuple[str, ...]
    why: str
    provider: str | None
    kind: str | None
    status: int | None
    since: float
    until: float
    count: int
    used: list[Entry] = field(default_factory=list)

    def fits(self, entry: Entry) -> bool:
        return (
            entry.end in self.ends
            and self.provider in {None, entry.provider}
            and self.kind in {None, entry.kind}
            and self.status in {None, entry.status}
            and entry.began <= self.until
            and entry.ended >= self.since
        )


@dataclass(slots=True)
class Ledger:
    """`spool` keeps all that clients received, to be searched for secrets at the end."""

    spool: Path
    dice: random.Random = field(default_factory=random.Random)
    entries: list[Entry] = field(default_factory=list)
    excuses: list[Excuse] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    """What the scheduler did."""
    history: list[tuple[float, float, str]] = field(default_factory=list)
    """The same with begin and end."""
    violations: list[str] = field(default_factory=list)
    open: dict[str, Entry] = field(default_factory=dict)

    @contextmanager
    def request(self, provider: str, kind: str) -> Iterator[Entry]:
        """A request under way; `entry.end` has to be set within."""
        tag = f"tag-{len(self.entries):06d}-{self.dice.getrandbits(32):08x}"
        entry = Entry(tag, provider, kind, time.monotonic())
        self.entries.append(entry)
        self.open[tag] = entry
        try:
            yield entry
        finally:
            entry.ended = time.monotonic()
            del self.open[tag]
            if not entry.end:
                self.violations.append(f"{kind} {tag} has no end")

    def received(self, entry: Entry, data: bytes) -> None:
        """Bytes for this request's client: none of them is about another request. They go to the spool."""
        others = set(TAG.findall(data.decode("latin-1"))) - {entry.tag}
        if others:
            self.violations.append(f"{entry.kind} {entry.tag} received bytes of {sorted(others)}")
        with self.spool.open("ab") as spool:
            spool.write(FILLING.sub(b"...", data))
            spool.write(b"\n")

    def excuse(
        self,
        *ends: str,
        why: str,
        provider: str | None = None,
        kind: str | None = None,
        status: int | None = None,
        count: int = 1,
        seconds: float = 0.0,
    ) -> Excuse:
        """`count` requests that are under way now, or begin within so many seconds, may end in one of these ways."""
        now = time.monotonic()
        excuse = Excuse(ends, why, provider, kind, status, now, now + seconds, count)
        self.excuses.append(excuse)
        return excuse

    @contextmanager
    def excusing(self, *ends: str, why: str, **of: Any) -> Iterator[None]:
        """The same for those that are under way at some time within the block."""
        excuse = self.excuse(*ends, why=why, seconds=math.inf, **of)
        try:
            yield
        finally:
            excuse.until = time.monotonic()

    def unexcused(self) -> list[Entry]:
        """Requests that ended badly without a reason. Each excuse serves as often as it says, wherever it fits best."""
        for excuse in self.excuses:
            excuse.used.clear()
        bad = [entry for entry in self.entries if entry.end not in WELL]
        return [entry for entry in bad if not self._place(entry, set())]

    def _place(self, entry: Entry, tried: set[Excuse]) -> bool:
        """Find an excuse for the entry, if need be one whose present user has another one (an augmenting path)."""
        fitting = [excuse for excuse in self.excuses if excuse not in tried and excuse.fits(entry)]
        for excuse in fitting:
            if len(excuse.used) < excuse.count:
                excuse.used.append(entry)
                return True
        for excuse in fitting:
            if excuse in tried:
                continue
            tried.add(excuse)
            for at, user in enumerate(excuse.used):
                if self._place(user, tried):
                    excuse.used[at] = entry
                    return True
        return False

    def figures(self) -> str:
        """A table of kinds and ends, and what was done to cause them."""
        by_kind: dict[str, Counter[str]] = {}
        for entry in self.entries:
            by_kind.setdefault(entry.kind, Counter())[entry.end] += 1
        lines = [f"{len(self.entries)} requests"]
        for kind, ends in sorted(by_kind.items()):
            lines.append(f"  {kind:<12} " + ", ".join(f"{count} {end}" for end, count in ends.most_common()))
        lines.append(f"{self.faults.total()} faults")
        lines += [f"  {count:>5} {name}" for name, count in self.faults.most_common()]
        return "\n".join(lines)


def leaks(outputs: dict[str, bytes], secrets_in_play: set[str]) -> list[str]:
    """Where more of a secret than its beginning stands in what was written or sent, and what stands before it."""
    pieces = {}
    for secret in secrets_in_play:
        raw = secret.encode()
        pieces.update({raw[at : at + PIECE]: secret[:TOLD] for at in range(TOLD, len(raw) - PIECE + 1)})
    found = {}
    for name, output in outputs.items():
        for run in set(RUN.findall(output)):  # once each, as most of it is said over and over
            for at in range(len(run) - PIECE + 1):
                if (piece := run[at : at + PIECE]) in pieces:
                    before = output[: output.find(piece)][-200:].decode("utf-8", "replace")
                    found[f"{name} holds a piece of {pieces[piece]}…"] = before
    return [f"{leak}, behind {before!r}" for leak, before in sorted(found.items())]
