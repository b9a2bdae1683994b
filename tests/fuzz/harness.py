"""What the fuzz tests share: how long they run, where their inputs come from, and where a failing one is kept.

A target is a function of bytes that raises AssertionError (or anything) if it finds fault with what our code makes of
them. `pytest` tries the corpus and a few hundred fixed inputs. `make fuzz` goes on for SECONDS with each target, from
another seed each time; what it finds goes into the corpus, and so is tried by every `pytest` from then on.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import os
import secrets
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

Target = Callable[[bytes], None]

CORPUS = Path(__file__).parent / "corpus"
FEW = 200
ROUND = 1000
"""Inputs of one seed: hypothesis remembers all of them, so that it gets slower and larger with their number."""


def long_run() -> tuple[float, int] | None:
    """Seconds for each target and the first seed, as `make fuzz` sets them; None where the run is a short one."""
    if not (given_seconds := os.environ.get("AIMUX_FUZZ")):
        return None
    return float(given_seconds), int(os.environ.get("AIMUX_FUZZ_SEED") or secrets.randbits(32))


LONG = long_run()

common = settings(database=None, suppress_health_check=list(HealthCheck))


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


def fuzz(name: str, *words: bytes, share: int = 1) -> Callable[[Target], Callable[..., None]]:
    """Make a test of a target whose corpus is the folder `name`. `share`: a slow target gets one input in so many."""

    def decorate(target: Target) -> Callable[..., None]:
        corpus = seeds(name)
        inputs = st.one_of(mutated(corpus, words), mutated(corpus, words), st.binary(max_size=200))

        @pytest.mark.parametrize("source", ["corpus", "fuzz"])
        @functools.wraps(target, assigned=("__name__", "__qualname__", "__doc__", "__module__"), updated=())
        def test(source: str) -> None:
            if source == "corpus":
                for data in corpus:
                    target(data)
            else:
                search(name, target, inputs, share=share)

        del test.__wrapped__  # pytest would look for the target's parameters
        return test

    return decorate


def search(name: str, target: Target, inputs: st.SearchStrategy[bytes], *, share: int = 1) -> None:
    """Try a few inputs, always the same; in a long run round after round of them, each with a seed of its own."""
    if LONG is None:
        settings(common, max_examples=FEW // share, derandomize=True)(given(data=inputs)(target))()
        return
    seconds, first = LONG
    end = time.monotonic() + seconds
    for number in itertools.count(first):
        one_round(name, target, inputs, number, ROUND // share)
        if time.monotonic() >= end:
            return


def one_round(name: str, target: Target, inputs: st.SearchStrategy[bytes], number: int, size: int) -> None:
    """Those of one seed. What fails is kept: hypothesis tries smaller and smaller inputs, and the smallest last."""
    failed = b""

    @seed(number)
    @settings(common, max_examples=size)
    @given(data=inputs)
    def check(data: bytes) -> None:
        nonlocal failed
        try:
            target(data)
        except Exception:
            failed = data
            raise

    try:
        check()
    except Exception as error:
        kept = CORPUS / name / f"found-{hashlib.sha256(failed).hexdigest()[:8]}"
        kept.write_bytes(failed)
        error.add_note(f"The input is in {kept}. This seed finds it again: make fuzz SEED={number}")
        raise


def splits(data: bytes) -> list[list[bytes]]:
    """The same bytes whole, byte by byte, and in pieces that depend on their content."""
    pieces, at, step = [], 0, 1
    while at < len(data):
        step = data[at] % 7 + step % 3 + 1
        pieces.append(data[at : at + step])
        at += step
    return [[data], [data[i : i + 1] for i in range(len(data))], pieces]
