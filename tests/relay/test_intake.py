"""Pieces of what a WebSocket's peer sends: the same bytes, cut so that none is much work."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimux.relay.intake import FRAMES, PIECE, Intake, frame_size
from tests.relay.sockets import BINARY, CONT, PING, TEXT, raw

sizes = st.lists(st.sampled_from([0, 1, 125, 126, 3000, PIECE, 65535, 65536]), min_size=1, max_size=12)


@given(sizes, st.booleans(), st.integers(0, 1 << 30))
def test_what_comes_out_is_what_went_in(lengths: list[int], masked: bool, seed: int) -> None:
    frames = [raw(BINARY, bytes(length), masked=masked) for length in lengths]
    data, cut = b"".join(frames), random.Random(seed)
    intake, out = Intake(), bytearray()
    while data:
        size = cut.choice([1, 2, 3, 100, 5000, 70_000, 10**7])
        packet, data = data[:size], data[size:]
        if intake.at_once(packet):
            out += packet
            continue
        intake.put(packet)
        while intake.ready:
            piece = intake.take()
            assert piece
            out += piece
    assert bytes(out) == b"".join(frames)


@pytest.mark.parametrize("length", [0, 1, 10, 120])
def test_a_piece_has_few_small_frames(length: int) -> None:
    frame = raw(BINARY, bytes(length))
    intake = Intake()
    assert not intake.at_once(frame * 10_000)
    intake.put(frame * 10_000)
    while intake.ready:
        assert 0 < len(intake.take()) <= FRAMES * len(frame)


def test_a_large_frame_comes_alone_and_in_whatever_parts_there_are() -> None:
    small, large = raw(BINARY, b"small"), raw(BINARY, bytes(10 * PIECE))
    intake = Intake()
    intake.put(small + large[:-1])
    assert [intake.take(), intake.take()] == [small, large[:-1]]
    assert not intake.ready
    intake.put(large[-1:])
    assert intake.take(quick=True) == b"", "with its end all of it is read"
    assert intake.take() == large[-1:]
    assert intake.at_once(small), "and then the next one begins"


SLOW = {
    "compressed": raw(BINARY, bytes(1000), rsv=4),
    "large": raw(BINARY, bytes(100_000)),
    "goes on with one that is compressed": raw(BINARY, b"", fin=False, rsv=4) + raw(CONT, bytes(1000)),
}


@pytest.mark.parametrize("data", SLOW.values(), ids=SLOW)
def test_what_may_be_much_work_waits_for_its_turn(data: bytes) -> None:
    intake = Intake()
    assert not intake.at_once(data)
    intake.put(data)
    quick = intake.take(quick=True)
    assert len(quick) < 10
    assert intake.ready
    assert quick + intake.take() == data
    for size in (500, len(data) - 1):
        intake = Intake()
        intake.put(data[:size])
        assert intake.take(quick=True) == data[:size], "until its end has come"
        intake.put(data[size:])
        assert intake.take(quick=True) == b""
        assert intake.take() == data[size:]


def test_what_is_not_is_read_at_once() -> None:
    for data in (raw(BINARY, bytes(1000)), raw(PING, b"!"), raw(TEXT, b"x" * 100, rsv=4)):
        assert Intake().at_once(data)
        intake = Intake()
        intake.put(data * 3)
        assert intake.take(quick=True) == data * 3


def test_nothing_is_taken_of_half_a_head() -> None:
    frame = raw(BINARY, bytes(70_000))
    for size in range(1, 10):
        intake = Intake()
        assert frame_size(frame[:size], 0) == 0
        assert not intake.at_once(frame[:size])
        intake.put(frame[:size])
        assert not intake.ready
        intake.put(frame[size:])
        assert intake.take() == frame
