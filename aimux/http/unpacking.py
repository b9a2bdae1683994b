"""What compressed bytes may unpack to.

Conversations are packed to a fifth or a tenth of their size, repetitive logs to a fiftieth. What becomes much larger
was made for that: 15 kB can be 16 MB.
"""

from __future__ import annotations

RATIO = 64
FREE = 1024 * 1024
"""Anything may unpack to this many bytes."""


def most_of(size: int) -> int:
    """Bytes that so many compressed ones may unpack to."""
    return max(FREE, RATIO * size)
