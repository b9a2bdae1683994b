"""What the fuzz tests share: how long they run, where their inputs come from, and where a failing one is kept.

A target is a function of bytes that raises AssertionError (or anything) if it finds fault with what our code makes of
them. `pytest` tries the corpus and a few hundred fixed inputs; `make fuzz` tries many more, different ones each time.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

Target = Callable[[bytes], None]

CORPUS = Path(__file__).parent / "corpus"
EXAMPLES = int(os.environ.get("AIMUX_FUZZ", "0"))
"""Inputs for each target; 0: few, and always the same."""

sized = settings(
    max_examples=EXAMPLES or 200,
    derandomize=not EXAMPLES,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=bool(EXAMPLES),
)


def seeds(name: str) -> list[bytes]:
    """The target's corpus: good inputs to start from, and bad ones that once found something."""
    return [path.read_bytes() for path in sorted((CORPUS / name).iterdir())]


@st.composite
def mutated(draw: st.DrawFn, inputs: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    """One of `inputs` after a few cuts, repetitions, flipped bytes and insertions of `words`."""
    data = bytearray(draw(st.sampled_from(inputs)))
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, len(data)))
        end = min(len(data), at + draw(st.integers(0, 16)))
        match draw(st.integers(0, 5)):
            case 0:
                del data[at:end]
            case 1:
                data[at:at] = data[at:end] * draw(st.integers(1, 3))
            case 2 if at < len(data):
                data[at] ^= 1 << draw(st.integers(0, 7))
            case 3:
                data[at:end] = draw(st.binary(max_size=8))
            case 4 if words:
                data[at:end] = draw(st.sampled_from(words))
            case _:
                data[at:at] = draw(st.sampled_from(words)) if words else b"\0"
    return bytes(data)


def fuzz(name: str, *words: bytes, examples: int = 1) -> Callable[[Target], Callable[..., None]]:
    """Make a test of a target whose corpus is the folder `name`. `examples`: a share, for a target that is slow."""

    def decorate(target: Target) -> Callable[..., None]:
        corpus = seeds(name)
        inputs = st.one_of(mutated(corpus, words), mutated(corpus, words), st.binary(max_size=200))
        fewer = settings(sized, max_examples=max(1, sized.max_examples // examples))

        @pytest.mark.parametrize("source", ["corpus", "fuzz"])
        @functools.wraps(target, assigned=("__name__", "__qualname__", "__doc__", "__module__"), updated=())
        def test(source: str) -> None:
            if source == "corpus":
                for data in corpus:
                    target(data)
            else:
                fewer(given(data=inputs)(keeping(name, target)))()

        del test.__wrapped__  # type: ignore[attr-defined]  # pytest would look for the target's parameters
        return test

    return decorate


def keeping(name: str, target: Target) -> Target:
    """Keep what a long run finds; hypothesis tries smaller and smaller inputs, so that the last one is the smallest."""

    def checked(data: bytes) -> None:
        try:
            target(data)
        except Exception:
            if EXAMPLES:
                (CORPUS / name / "found").write_bytes(data)
            raise

    return checked


def splits(data: bytes) -> list[list[bytes]]:
    """The same bytes whole, byte by byte, and in pieces that depend on their content."""
    pieces, at, step = [], 0, 1
    while at < len(data):
        step = data[at] % 7 + step % 3 + 1
        pieces.append(data[at : at + step])
        at += step
    return [[data], [data[i : i + 1] for i in range(len(data))], pieces]
