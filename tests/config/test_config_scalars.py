from __future__ import annotations

import math
import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic_core import PydanticCustomError

from aimux.config.scalars import Listen, format_duration, format_size, parse_duration, parse_network, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("60s", 60),
        ("10m", 600),
        ("1h30m", 5400),
        ("500ms", 0.5),
        ("1d", 86400),
        ("1m30s", 90),
        ("1.5m", 90),
        (" 2h ", 7200),
        ("90", 90),
        ("0.25", 0.25),
        (90, 90),
        (0.5, 0.5),
        ("0s", 0),
        ("30m1h", 5400),
    ],
)
def test_durations(text: object, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    ["", "s", "-1s", "1x", "1 m", "1h1h", "60S", "1e3s", "inf", "nan", "١s", "1h-30m", "5us", None, True, [], math.inf],
)
def test_what_is_no_duration(text: object) -> None:
    with pytest.raises(PydanticCustomError, match="is not a duration"):
        parse_duration(text)


@given(st.integers(1, 10**11).map(lambda milliseconds: milliseconds / 1000))
@example(1.001)
@example(0.1 + 0.2)
def test_a_duration_reads_back_as_the_same_float(seconds: float) -> None:
    milliseconds = round(seconds * 1000) / 1000
    assert parse_duration(format_duration(milliseconds)) == milliseconds


@given(st.floats(1e-6, 1e6))
def test_any_duration_survives_to_the_nanosecond(seconds: float) -> None:
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, rel=1e-9, abs=1e-9)


@given(st.text(st.sampled_from(string.digits + ".msh d-+e"), max_size=12))
def test_a_duration_is_a_finite_number_or_an_error(text: str) -> None:
    try:
        seconds = parse_duration(text)
    except PydanticCustomError:
        return
    assert math.isfinite(seconds)
    assert seconds >= 0


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("64MiB", 64 * 2**20),
        ("64mib", 64 * 2**20),
        ("64M", 64 * 2**20),
        ("64MB", 64_000_000),
        ("1.5KiB", 1536),
        ("4.1MB", 4_100_000),
        ("2 GiB", 2 * 2**30),
        ("100", 100),
        ("100B", 100),
        (100, 100),
    ],
)
def test_sizes(text: object, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MiB", "-1", "1.5", "1XiB", "64 m b", "0.3KiB", None, True, 1.5, "1e6"])
def test_what_is_no_size(text: object) -> None:
    with pytest.raises(PydanticCustomError):
        parse_size(text)


@given(st.integers(0, 10**11))
def test_a_size_reads_back(size: int) -> None:
    assert parse_size(format_size(size)) == size


@pytest.mark.parametrize(
    ("text", "listen"),
    [
        (":8080", Listen("", 8080)),
        ("*:8080", Listen("", 8080)),
        ("127.0.0.1:8080", Listen("127.0.0.1", 8080)),
        ("localhost:0", Listen("localhost", 0)),
        ("[::1]:8080", Listen("::1", 8080)),
        ("[fe80::1%eth0]:443", Listen("fe80::1%eth0", 443)),
        ("unix:/run/aimux.sock", Listen(unix_path="/run/aimux.sock")),
    ],
)
def test_listen(text: str, listen: Listen) -> None:
    assert Listen.parse(text) == listen
    assert Listen.parse(str(listen)) == listen


@pytest.mark.parametrize(
    "text",
    [
        "",
        "8080",
        8080,
        "127.0.0.1",
        "::1:8080",
        "[::1]",
        "[::g]:1",
        "127.0.0.256:80",
        "1.2.3:80",
        ":65536",
        ":-1",
        ":٨٠",
        "a b:80",
        "http://localhost:80",
        "-a:80",
        "unix:run/x",
        "unix:/",
        "unix:/" + "x" * 107,
        None,
    ],
)
def test_what_is_no_address(text: object) -> None:
    with pytest.raises(PydanticCustomError) as caught:
        Listen.parse(text)
    assert caught.value.context is not None
    assert caught.value.context["remedy"]


_listens = st.one_of(
    st.builds(Listen, st.ip_addresses(v=4).map(str), st.integers(0, 65535)),
    st.builds(Listen, st.ip_addresses(v=6).map(str), st.integers(0, 65535)),
    st.builds(Listen, st.just(""), st.integers(0, 65535)),
    st.builds(
        Listen, st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?\.example", fullmatch=True), st.integers(0, 65535)
    ),
    st.from_regex(r"(/[a-z0-9._ -]{1,20}){1,4}[a-z]", fullmatch=True).map(lambda path: Listen(unix_path=path)),
)


@given(_listens)
def test_listen_gives_back_what_it_read(listen: Listen) -> None:
    assert Listen.parse(str(listen)) == listen


@pytest.mark.parametrize(
    ("text", "local"),
    [
        ("127.0.0.1:1", True),
        ("127.1.2.3:1", True),
        ("[::1]:1", True),
        ("localhost:1", True),
        ("unix:/x", True),
        (":1", False),
        ("0.0.0.0:1", False),
        ("[::]:1", False),
        ("10.0.0.1:1", False),
        ("aimux.example:1", False),
    ],
)
def test_what_only_this_machine_can_reach(text: str, local: bool) -> None:
    assert Listen.parse(text).local is local


def test_networks() -> None:
    assert str(parse_network("10.0.0.0/8")) == "10.0.0.0/8"
    assert str(parse_network("192.168.1.5")) == "192.168.1.5/32"
    assert str(parse_network("fd00::/8")) == "fd00::/8"
    assert parse_network(" unix ") == "unix"
    for wrong in ("10.0.0.1/8", "loopback", "unix:/run/aimux.sock", "", "10.0.0.0/33", 10, None):
        with pytest.raises(PydanticCustomError):
            parse_network(wrong)
