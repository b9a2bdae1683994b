"""What a request consumed: part of the plugin API (`aimux.plugin`), compiled where aimux is."""

from __future__ import annotations

from dataclasses import dataclass

from aimux.compiling import mypyc_attr

COUNTS = (
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "cache_write_1h_tokens",
    "reasoning_tokens",
    "server_tools",
    "seconds",
    "characters",
)
"""What of a usage is a number: of tokens, or of what is sold otherwise."""


@mypyc_attr(allow_interpreted_subclasses=True)
@dataclass(slots=True, init=False)
class Usage:
    """What one request consumed. `input_tokens` excludes cached ones, whatever the upstream's own convention."""

    model: str
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    cache_write_1h_tokens: int
    """The part of `cache_write_tokens` that was written for the longer time (an hour, or twelve): it costs more."""
    reasoning_tokens: int
    """The part of `output_tokens` that was spent on reasoning."""
    server_tools: int
    """Requests to the upstream's own tools, such as searches."""
    tier: str
    """The service tier that the upstream says it served with, in its own word ("" if it says nothing)."""
    estimated: bool
    """The upstream did not report all of it: a part is an estimate."""
    beside: tuple[Usage, ...]
    """The part of all this that was sampled apart from the answer and is priced by itself, perhaps as another
    model's."""
    requests: int
    """How many requests took it together: if tokens of long requests cost more, their average length counts."""
    seconds: int
    """Of sound or film that are sold by their length."""
    characters: int
    """Of a text that is sold by them, to be spoken."""
    unknown: bool
    """It took something else as well, of which nobody knows how much, or what it costs: it has no price."""

    # A dataclass's `__init__` would be interpreted even in a compiled module: 2,000 instructions more.
    def __init__(
        self,
        model: str = "",
        input_tokens: int = 0,
        output_tokens: int = 0,
        cache_read_tokens: int = 0,
        cache_write_tokens: int = 0,
        cache_write_1h_tokens: int = 0,
        reasoning_tokens: int = 0,
        server_tools: int = 0,
        tier: str = "",
        estimated: bool = False,
        beside: tuple[Usage, ...] = (),
        requests: int = 1,
        seconds: int = 0,
        characters: int = 0,
        unknown: bool = False,
    ) -> None:
        self.model = model
        self.input_tokens = input_tokens
        self.output_tokens = output_tokens
        self.cache_read_tokens = cache_read_tokens
        self.cache_write_tokens = cache_write_tokens
        self.cache_write_1h_tokens = cache_write_1h_tokens
        self.reasoning_tokens = reasoning_tokens
        self.server_tools = server_tools
        self.tier = tier
        self.estimated = estimated
        self.beside = beside
        self.requests = requests
        self.seconds = seconds
        self.characters = characters
        self.unknown = unknown

    @property
    def anything(self) -> bool:
        """Whether it is more than nothing."""
        return bool(
            self.total_input
            or self.output_tokens
            or self.server_tools
            or self.seconds
            or self.characters
            or self.unknown
        )

    @property
    def total_input(self) -> int:
        return self.input_tokens + self.cache_read_tokens + self.cache_write_tokens

    def add(self, other: Usage) -> None:
        """Add another turn; the model is the last one's."""
        self.model = other.model or self.model
        self.input_tokens += other.input_tokens
        self.output_tokens += other.output_tokens
        self.cache_read_tokens += other.cache_read_tokens
        self.cache_write_tokens += other.cache_write_tokens
        self.cache_write_1h_tokens += other.cache_write_1h_tokens
        self.reasoning_tokens += other.reasoning_tokens
        self.server_tools += other.server_tools
        self.seconds += other.seconds
        self.characters += other.characters
        self.tier = other.tier or self.tier
        self.estimated = self.estimated or other.estimated
        self.unknown = self.unknown or other.unknown
        self.beside += other.beside

    def put_beside(self, sampled: tuple[Usage, ...]) -> None:
        """Count these instead of the former ones."""
        for sign, counted in ((-1, self.beside), (1, sampled)):
            for one in counted:
                self.input_tokens += sign * one.input_tokens
                self.output_tokens += sign * one.output_tokens
                self.cache_read_tokens += sign * one.cache_read_tokens
                self.cache_write_tokens += sign * one.cache_write_tokens
                self.cache_write_1h_tokens += sign * one.cache_write_1h_tokens
                self.server_tools += sign * one.server_tools
        self.beside = sampled
