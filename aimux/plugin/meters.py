"""Meters read usage from copies of an answer's bytes. What they raise ends the metering, never the stream."""

from __future__ import annotations

from typing import Any, ClassVar

from aimux.plugin.body import MAX_MODEL
from aimux.plugin.reading import MODEL, is_dense, json_object, object_behind
from aimux.plugin.types import BATCH, REGIONAL, LimitWindow, Over, Verdict
from aimux.plugin.usage import Usage

MAX_LINE = 8 * 1024 * 1024
"""Of a longer line of a stream only the ends are kept (`response.completed` repeats the whole answer, images too), of
a batch's results nothing."""
EDGE = 64 * 1024
"""Bytes at either end of what is too long to be parsed, or has too many values, that are looked at."""
MAX_JSON = 32 * 1024 * 1024
MOST_MODELS = 100
"""Models that one batch's results are added up by."""


class Meter:
    """Fed with the decoded payload in pieces; `usage` is true at any moment.

    `complete` says whether the protocol's own last event was seen. If it stays False at a clean end of the bytes, the
    answer was cut short upstream, and the client is told so, unless it is `answered`: all was said that an answer says,
    and some servers leave it at that. `failed`: that event said that the answer is not whole,
    without saying what it took. `limits`: windows that its events reported; `verdict`: what an error among a socket's
    messages means for the account (COOL_DOWN, PARK, REFRESH or MISSING). `stored`: ids of what this account stores from
    now on (a file, a stored response), so that requests that name them go there. `begun`: the one of these that goes on
    when this answer is over (a batch, an answer in the background), and whose usage this answer does not report;
    `over`: what such things took. It counts for their maker, once, however often it is reported.
    """

    sees_end: ClassVar[bool] = True
    """Whether `complete` comes from the protocol: then nothing is missing, however the bytes end after it."""
    consumes: bool = True
    """False: it exists only for `stored` and `over`, and such answers cost nothing."""
    reads_request: ClassVar[bool] = False
    """Whether `asked` is to get the request's body, decoded, before the answer."""

    complete: bool = False
    answered: bool = False
    failed: bool = False
    limits: tuple[LimitWindow, ...] = ()
    verdict: Verdict | None = None
    stored: tuple[str, ...] = ()
    begun: str = ""
    over: tuple[Over, ...] = ()
    before: Usage | None = None
    """On a WebSocket: what the turn took from which this one goes on, so that all of that is part of its input."""

    def __init__(self) -> None:
        self.usage = Usage()

    @property
    def sent(self) -> int:
        """About how many characters of content there were so far, to estimate usage that is not reported."""
        return 0

    @property
    def torn(self) -> bool:
        """Whether the payload so far ends inside an event's line, so that whatever followed would be read as its
        rest."""
        return False

    def asked(self, message: bytes) -> None:
        """What the client sent, before the answer: on a WebSocket, and where `reads_request` is set."""

    def feed(self, data: bytes) -> None:
        """Read one piece of the payload."""

    def end(self) -> None:
        """The payload is over. Called once."""


class JSONMeter(Meter):
    """For an answer that is one JSON object: override `read`. Its framing, not its content, says whether it is
    whole."""

    sees_end = False
    complete = True

    def __init__(self) -> None:
        self.usage = Usage()  # saves a call: most requests have such a meter
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> None:
        self._size += len(data)
        if self._size <= MAX_JSON:
            self._parts.append(data)

    @property
    def sent(self) -> int:
        return 0 if self.failed else self._size

    def end(self) -> None:
        if self._size <= MAX_JSON:
            whole = b"".join(self._parts)
            if (answer := json_object(whole)) is not None:
                self.read(answer)
            elif is_dense(whole):
                self.read_overlong(whole[:EDGE], whole[-EDGE:])
        self._parts.clear()

    def read(self, answer: dict[str, Any]) -> None:
        """Take `usage` from the parsed answer. Set `failed` if it is an error, which some servers send with the status
        200: then nothing beyond its reported usage is estimated."""

    def read_overlong(self, start: bytes, end: bytes) -> None:
        """For an answer with too many values to be parsed at once (the probabilities of each token, say): EDGE bytes of
        either end. By default `read` gets the `usage` and the `model` that are there."""
        answer: dict[str, Any] = {}
        if (usage := object_behind(b"usage", end) or object_behind(b"usage", start)) is not None:
            answer["usage"] = usage
        if model := MODEL.search(start) or MODEL.search(end):
            answer["model"] = model[1].decode()
        self.read(answer)


class StoredAnswer(JSONMeter):
    """For an answer about something that the upstream keeps: `id`, and the values of `keys`."""

    consumes = False
    keys: ClassVar[tuple[str, ...]] = ()

    def read(self, answer: dict[str, Any]) -> None:
        found = (answer.get(key) for key in ("id", *self.keys))
        self.stored = tuple(one for one in found if isinstance(one, str) and one)

    def makers(self, item: dict[str, Any]) -> tuple[str, ...]:
        """Ids of what may have made an item of a list by itself, as a schedule does: the item is its owner's."""
        return ()


class ResultsMeter(Meter):
    """For a batch's results, one JSON object a line, however many there are: override `read`.

    What its requests took is added up by model and length: the tokens of a long request may cost more. A line beyond
    MAX_LINE does not count, nor does the hundred-and-first model.
    """

    sees_end = False
    complete = True
    consumes = False
    long: ClassVar[tuple[int, ...]] = (100_000, 200_000)
    """Tokens of input above which some of the vendor's models cost more."""

    def __init__(self, batch: str) -> None:
        """`batch`: its id."""
        super().__init__()
        self._batch = batch
        self._sums: dict[tuple[str, str], list[Usage]] = {}
        self._line: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> None:
        first, *others = data.split(b"\n")
        self._keep(first)
        for line in others:
            self._end_line()
            self._keep(line)
        self._tell(whole=False)

    def end(self) -> None:
        self._end_line()
        self._tell(whole=True)

    def read(self, result: dict[str, Any]) -> Usage | None:
        """What one request took; None: nothing, or it failed."""
        raise NotImplementedError

    def _tell(self, *, whole: bool) -> None:
        self.over = (Over(self._batch, tuple(one for sums in self._sums.values() for one in sums), whole),)

    def _keep(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size <= MAX_LINE:
            self._line.append(piece)

    def _end_line(self) -> None:
        line, size = b"".join(self._line), self._size
        self._line.clear()
        self._size = 0
        if size > MAX_LINE or not line.strip() or (result := json_object(line)) is None:
            return
        if (usage := self.read(result)) is not None:
            beside = usage.beside
            usage.put_beside(())
            for one in (usage, *beside):
                self._add((one.model or usage.model)[:MAX_MODEL], one)

    def _add(self, model: str, usage: Usage) -> None:
        length = sum(usage.total_input > most for most in self.long)
        tier = BATCH + REGIONAL if usage.tier.endswith(REGIONAL) else BATCH
        sums = self._sums.get((model, tier))
        if sums is None:
            if len(self._sums) >= MOST_MODELS:
                return
            sums = self._sums[model, tier] = [Usage(model, requests=0) for _ in (0, *self.long)]
        known = sums[length]
        known.add(usage)
        known.model, known.tier, known.requests = model, tier, known.requests + 1
