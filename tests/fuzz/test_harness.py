"""A long run is the same from the same seed, and keeps what it finds."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import strategies as st

from . import harness


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A corpus with one good input, in a long run of one round."""
    monkeypatch.setattr(harness, "CORPUS", tmp_path)
    monkeypatch.setattr(harness, "LONG", (0.0, 7))
    (tmp_path / "inputs").mkdir()
    (tmp_path / "inputs" / "good").write_bytes(b"good")
    return tmp_path / "inputs"


def fails_on_x(data: bytes) -> None:
    assert b"x" not in data


def test_what_is_found_is_kept_as_small_as_can_be(corpus: Path) -> None:
    inputs = harness.mutated(harness.seeds("inputs"), [b"x"])
    with pytest.raises(AssertionError) as caught:
        harness.search("inputs", fails_on_x, inputs)
    (note,) = (note for note in caught.value.__notes__ if "SEED" in note)
    (kept,) = corpus.glob("found-*")
    assert str(kept) in note
    assert "SEED=7" in note
    assert kept.read_bytes().count(b"x") == 1
    assert len(kept.read_bytes()) <= len(b"goodx")
    assert kept.read_bytes() in harness.seeds("inputs"), "so that it is tried from now on"


@pytest.mark.parametrize("source", ["corpus", "fuzz"])
def test_what_was_found_once_is_tried_in_every_run(corpus: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    (corpus / "found-0").write_bytes(b"x")
    monkeypatch.setattr(harness, "LONG", None)
    with pytest.raises(AssertionError):
        harness.fuzz("inputs")(fails_on_x)(source=source)


def test_a_seed_gives_the_same_inputs_and_another_one_others(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def tried(seed: int) -> list[bytes]:
        seen: list[bytes] = []
        monkeypatch.setattr(harness, "LONG", (0.0, seed))
        harness.search("inputs", seen.append, st.binary(max_size=50))
        return seen

    assert len(tried(1)) > 500
    assert tried(1) == tried(1)
    assert tried(1) != tried(2)
