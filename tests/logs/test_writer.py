"""Lines to pipes that stall, close or fill up."""

from __future__ import annotations

import fcntl
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from aimux.logs import writer as writer_module
from aimux.logs.writer import LineWriter

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LINE = b"x" * 99 + b"\n"


def lost(count: int) -> bytes:
    return b"lost %d\n" % count


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    yield reader, writer
    for fd in (reader, writer):
        try:
            os.close(fd)
        except OSError:
            pass


def read(fd: int, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += os.read(fd, 65536)
    return data


def read_to_end(fd: int) -> bytes:
    return b"".join(iter(lambda: os.read(fd, 65536), b""))


def test_a_line_is_written_at_once(pipe: tuple[int, int]) -> None:
    reader, fd = pipe
    LineWriter(fd, lost=lost).write(b"one\n")
    os.set_blocking(reader, False)
    assert os.read(reader, 100) == b"one\n"


def test_a_stalled_reader_neither_blocks_nor_loses_or_reorders(pipe: tuple[int, int]) -> None:
    reader, fd = pipe
    writer = LineWriter(fd, lost=lost)
    lines = [b"%05d " % number + LINE for number in range(1000)]
    for line in lines:
        writer.write(line)  # would hang here, with a pipe of 4096 bytes
    assert read(reader, sum(map(len, lines))) == b"".join(lines)
    writer.flush(5)
    writer.write(b"after\n")
    assert read(reader, 6) == b"after\n"


def test_a_stop_waits_for_who_reads_slowly(pipe: tuple[int, int]) -> None:
    reader, fd = pipe
    writer = LineWriter(fd, lost=lost)
    for _ in range(500):
        writer.write(LINE)
    with ThreadPoolExecutor(1) as pool:
        arriving = pool.submit(read_to_end, reader)
        writer.flush(5)
        os.close(fd)
        assert arriving.result() == LINE * 500


def test_a_line_longer_than_the_pipe_arrives_whole(pipe: tuple[int, int]) -> None:
    reader, fd = pipe
    LineWriter(fd, lost=lost).write(LINE * 300)
    assert read(reader, len(LINE) * 300) == LINE * 300


def test_what_does_not_fit_is_counted_and_told(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "MAX_WAITING", 10_000)
    reader, fd = pipe
    writer = LineWriter(fd, lost=lost)
    for _ in range(1000):
        writer.write(LINE)
    with ThreadPoolExecutor(1) as pool:
        arriving = pool.submit(read_to_end, reader)
        writer.flush(5)
        writer.write(b"after\n")
        writer.flush(5)
        os.close(fd)
        lines = arriving.result().splitlines(keepends=True)
    kept = lines.count(LINE)
    assert 0 < kept < 200
    assert lines == [LINE] * kept + [lost(1000 - kept), b"after\n"]


def test_without_a_thread_to_be_had_the_lines_wait_for_the_next(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a container's processes are at their limit, or while the interpreter ends."""
    reader, fd = pipe
    writer = LineWriter(fd, lost=lost)

    def refused(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    lines = [b"%03d " % number + LINE for number in range(100)]
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refused)
        for line in lines:
            writer.write(line)
        writer.flush(5)
    writer.write(b"after\n")
    size = sum(map(len, lines)) + len(b"after\n")
    assert read(reader, size) == b"".join(lines) + b"after\n"


def test_a_closed_pipe_raises_nothing(pipe: tuple[int, int]) -> None:
    reader, fd = pipe
    writer = LineWriter(fd, lost=lost)
    os.close(reader)
    writer.write(LINE)
    writer.write(LINE)


def test_a_full_disk_loses_lines_until_there_is_room(tmp_path: Path) -> None:
    fd = os.open("/dev/full", os.O_WRONLY)
    writer = LineWriter(fd, lost=lost)
    writer.write(b"one\n")
    writer.write(b"two\n")
    file = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
    os.dup2(file, fd)
    writer.write(b"three\n")
    writer.write(b"four\n")
    os.close(file)
    os.close(fd)
    assert (tmp_path / "log").read_bytes() == b"lost 2\nthree\nfour\n"


def test_a_descriptor_that_somebody_made_non_blocking(pipe: tuple[int, int]) -> None:
    reader, fd = pipe
    os.set_blocking(fd, False)
    writer = LineWriter(fd, lost=lost)
    for _ in range(500):
        writer.write(LINE)
    assert read(reader, len(LINE) * 500) == LINE * 500
    writer.flush(5)
