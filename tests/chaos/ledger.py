"""What every request was to become, what it became, and whose words it brought. The ledger decides, nobody else."""

from __future__ import annotations

import math
import re
import secrets
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

TAG = re.compile(r"tag-\d{6}-[0-9a-f]{8}")
KEPT = 16
"""The end of a secret that is looked for: the first characters may be told."""


@dataclass(slots=True)
class Entry:
    """One request. `end` is how it ended:

    `whole`; `failed`: a status or an event said so; `broken`: the connection broke and the answer is not whole;
    `closed`: aimux ended a socket with a close frame that asks to come back; `left`: the client went away itself.
    """

    tag: str
    provider: str
    kind: str
    began: float
    ended: float = math.inf
    end: str = ""
    status: int = 0
    detail: str = ""


@dataclass(slots=True)
class Excuse:
    """Why so many requests, of one provider or of any, may have ended in that way between two moments."""

    end: str
    why: str
    provider: str | None
    since: float
    until: float
    count: int


@dataclass(slots=True)
class Ledger:
    """`spool` keeps all that clients received, to be searched for secrets at the end."""

    spool: Path
    entries: list[Entry] = field(default_factory=list)
    excuses: list[Excuse] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    """What the scheduler did."""
    violations: list[str] = field(default_factory=list)
    open: dict[str, Entry] = field(default_factory=dict)

    @contextmanager
    def request(self, provider: str, kind: str) -> Iterator[Entry]:
        """A request under way; `entry.end` has to be set within."""
        tag = f"tag-{len(self.entries):06d}-{secrets.token_hex(4)}"
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
        """Bytes for this request's client: they go to the spool."""
        with self.spool.open("ab") as spool:
            spool.write(data)
            spool.write(b"\n")

    def said(self, entry: Entry, text: str, *, whole: bool) -> None:
        """The text that an answer brought: it repeats the request's tag, and nobody else's."""
        found = set(TAG.findall(text))
        if found - {entry.tag}:
            self.violations.append(f"{entry.kind} {entry.tag} was told {sorted(found - {entry.tag})}")
        if whole and entry.tag not in found:
            self.violations.append(f"{entry.kind} {entry.tag} was not told its own words: {text[:200]!r}")

    def excuse(
        self, end: str, why: str, *, provider: str | None = None, count: int = 1, since: float = 0, seconds: float = 2.0
    ) -> None:
        """From `since` seconds ago, for `seconds` from now on, `count` requests may end so."""
        now = time.monotonic()
        self.excuses.append(Excuse(end, why, provider, now - since, now + seconds, count))

    def unexcused(self) -> list[Entry]:
        """Requests that ended badly without a reason. Each excuse serves as often as it says."""
        left = [Excuse(e.end, e.why, e.provider, e.since, e.until, e.count) for e in self.excuses]
        left.sort(key=lambda excuse: excuse.until)
        bad = []
        for entry in sorted(self.entries, key=lambda entry: entry.ended):
            if entry.end in {"whole", "left", "as asked"}:
                continue
            for excuse in left:
                if (
                    excuse.count
                    and excuse.end == entry.end
                    and excuse.provider in {None, entry.provider}
                    and entry.began <= excuse.until
                    and entry.ended >= excuse.since
                ):
                    excuse.count -= 1
                    break
            else:
                bad.append(entry)
        return bad

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
    """Where a secret, or more than its beginning, stands in what was written or sent."""
    found = []
    for secret in sorted(secrets_in_play):
        tail = secret[-KEPT:].encode()
        for name, output in outputs.items():
            at = output.find(tail)
            if at >= 0:
                around = output[max(0, at - 60) : at].decode("utf-8", "replace")
                found.append(f"{name} holds {secret[:8]}… behind {around!r}")
    return found
