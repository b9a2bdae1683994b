"""What requests usually turn out to take: learned from those that were settled with what an upstream told."""

from __future__ import annotations

import math

MAX_HABITS = 20_000
FIRST_TOKENS_PER_BYTE = 0.25
"""About four characters a token, until the model's own figure is known."""
MOST_TOKENS_PER_BYTE = 1.0
FIRST_ANSWER = 500.0
"""Tokens of an answer of a model that nobody has asked before."""
FIRST_COST = 5_000.0
"""Billionths of a dollar a token: 5 $ a million, never nothing."""
ENOUGH = 20
SHARE = 0.1
"""Of the newest request in an average; the first ten count alike."""
EACH = 4
"""Once ENOUGH were seen, one request in so many is looked at: what people do changes slowly."""


class Habit:
    """Averages over a user's requests to a model: what comes in for what is sent, what goes out, what a token costs.

    What comes in is a line through what was seen, and not a ratio: a turn of a WebSocket sends two kilobytes and takes
    up the whole conversation before it.
    """

    __slots__ = (
        "_both",
        "_everybody",
        "_size",
        "_square",
        "_tokens",
        "answer",
        "base",
        "cost",
        "kilobyte",
        "once",
        "per_byte",
        "price",
        "seen",
    )

    def __init__(self, everybody: Habit | None = None) -> None:
        """`everybody`: what to assume until something is known, as it was last foreseen."""
        self._everybody = everybody
        self.seen = 0
        self._size = self._tokens = self._square = self._both = 0.0
        self.base: float = everybody.base if everybody else 0.0
        self.per_byte: float = everybody.per_byte if everybody else FIRST_TOKENS_PER_BYTE
        self.answer: float = everybody.answer if everybody else FIRST_ANSWER
        self.cost: float = everybody.cost if everybody else FIRST_COST
        self.once = self.kilobyte = self.price = 0
        """What a request with `size` bytes of text will take: `once + (size * kilobyte >> 10)` tokens, in and out, each
        of which costs `price`. As long as `once` is 0, `foresee` has to be called."""

    def expect_input(self, size: int) -> int:
        """Tokens that a request with `size` bytes of text will bring in."""
        if not self.once:
            self.foresee()
        return int(self.base + size * self.per_byte)

    def foresee(self) -> None:
        """Draw the line through what was learned, and make whole numbers of it: more is asked than learned. Of tokens
        and cost both are something, so that it shows that a request is under way."""
        base, per_byte = self.base, self.per_byte
        if self.seen:
            size, tokens, square = self._size, self._tokens, self._square
            spread = square - size * size
            if spread > 0.01 * square:  # requests of one size tell nothing about another
                per_byte = min(MOST_TOKENS_PER_BYTE, max(0.0, (self._both - size * tokens) / spread))
            base = tokens - per_byte * size
            if base < 0.0:
                base, per_byte = 0.0, tokens / size
            self.base, self.per_byte = base, per_byte
        self.once = int(base + self.answer) or 1
        self.kilobyte = int(per_byte * 1024.0)
        self.price = math.ceil(self.cost) or 1

    def learn(self, size: int, tokens_in: int, tokens_out: int, cost: int) -> None:
        """Take in one request's real usage."""
        self.seen = seen = self.seen + 1
        # Python works with two fractions in a third of the time that a whole number and one take.
        share = SHARE if seen > 10 else 1.0 / seen
        sent, took, gave = float(size), float(tokens_in), float(tokens_out)
        self.answer += share * (gave - self.answer)
        if cost and (tokens := took + gave):
            self.cost += share * (cost / tokens - self.cost)
        self._size += share * (sent - self._size)
        self._tokens += share * (took - self._tokens)
        self._square += share * (sent * sent - self._square)
        self._both += share * (sent * took - self._both)
        self.once = 0
        # What newcomers are thought to do is told by those who are new.
        if seen <= ENOUGH and self._everybody is not None:
            self._everybody.learn(size, tokens_in, tokens_out, cost)


class Habits:
    """By user and model, and by model for users who have not asked it yet."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], Habit] = {}

    def __len__(self) -> int:
        return len(self._known)

    def of(self, user: str, model: str) -> Habit:
        found = self._known.get((user, model))
        return self._new(user, model) if found is None else found

    def _new(self, user: str, model: str) -> Habit:
        everybody = self.of("", model) if user else None
        if everybody is not None and not everybody.once:
            everybody.foresee()
        # The name of a model is the client's choice, and none may fill the memory: the oldest goes.
        while len(self._known) >= MAX_HABITS:
            del self._known[next(iter(self._known))]
        habit = self._known[user, model] = Habit(everybody)
        return habit
