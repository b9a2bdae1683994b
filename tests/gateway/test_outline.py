"""The outline of a large body says of its top what parsing all of it would say."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimux.gateway.outline import KEPT, MAX_STEPS, MEMBERS, SLICE, Outline

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)
objects = st.dictionaries(
    st.sampled_from(["model", "input", "a", 'q"\\', "é"]) | st.text(max_size=5), values, max_size=8
)


def outline(data: bytes, size: int = SLICE) -> Outline:
    made = Outline()
    for begin in range(0, len(data), size):
        made.feed(data[begin : begin + size])
    return made


@given(objects, st.integers(1, 40), st.booleans(), st.sampled_from([None, 2]))
def test_wherever_it_is_cut(body: dict[str, Any], size: int, ascii_only: bool, indent: int | None) -> None:
    data = json.dumps(body, ensure_ascii=ascii_only, indent=indent).encode("utf-8", "surrogatepass")
    made = outline(data, size)
    if not any("\ud800" <= character <= "\udfff" for character in data.decode("utf-8", "surrogatepass")):
        assert made.members == {key: value for key, value in json.loads(data).items() if value is not None}
    assert made.done
    assert [json.loads(data[begin:end]) for begin, end in made.spans] == ([body["model"]] if "model" in body else [])


def test_a_repeated_key_and_one_in_disguise_are_seen() -> None:
    made = outline(b'{"model":"a","x":{"model":"no"},"mod\\u0065l":"b" , "model" : "c"}')
    assert made.members["model"] == "c"
    assert len(made.spans) == 3


@pytest.mark.parametrize("ascii_only", [True, False])
@pytest.mark.parametrize("shift", range(8))
def test_a_long_first_message_is_kept_as_far_as_there_is_room(ascii_only: bool, shift: int) -> None:
    """Wherever in a character or an escape that ends, and however much stood before it."""
    source = {"type": "base64", "data": "." * shift + '"\\é\U0001f600' * KEPT}
    body = {"model": "m", "system": "s" * KEPT, "messages": [{"role": "user", "content": [{"source": source}]}]}
    made = outline(json.dumps(body, ensure_ascii=ascii_only).encode())
    [message] = made.members["messages"]
    [part] = message["content"]
    kept = part["source"]["data"]
    assert len(kept) > 8_000
    assert source["data"].startswith(kept[:-1])  # the last one may be a part of a character


@pytest.mark.parametrize(
    "item",
    [
        {"file_id": "f" * 1000},  # whatever of it was kept would be another id
        {"text": ["x"] * 4000},
        {"text": "\ud83d"},
    ],
)
def test_of_a_message_that_is_not_cut_within_a_long_text_nothing_is_kept(item: dict[str, Any]) -> None:
    whole = {"role": "user", "content": [{"n": [0] * (KEPT // 3 - 200)}, item]}
    data = json.dumps({"input": [whole, "x" * KEPT], "model": "m"}).encode()
    made = outline(data)
    assert made.members == {"model": "m", "input": []} or made.members["input"] == [whole]


def test_of_what_is_long_the_beginning_is_kept() -> None:
    first = {"role": "user", "content": "first"}
    body = {
        "input": [first, {"role": "user", "content": "x" * KEPT}, *[{"n": 1}] * 9999],
        "text": "y" * 3 * KEPT,
        "object": {"z": "z" * 3 * KEPT},
        "model": "m",
        "metadata": {"user_id": "u"},
    }
    for size in (SLICE, 1000, 10**9):
        made = outline(json.dumps(body).encode(), size)
        kept, cut = made.members["input"]
        assert kept == first
        assert cut["role"] == "user"
        assert len(cut["content"]) > KEPT // 2
        assert made.done
        assert made.members["model"] == "m"
        assert made.members["metadata"] == {"user_id": "u"}
        assert "object" not in made.members
        assert len(json.dumps(made.members)) < 2 * KEPT


@pytest.mark.parametrize("data", [b"[1]", b"nonsense", b'{"a" 1}', b'{"a":1]', b'{"a":1,2}'])
def test_what_is_no_object_is_not_taken_for_one(data: bytes) -> None:
    made = outline(data)
    assert not made.done
    assert made.members in ({}, {"a": 1})


@pytest.mark.parametrize("piece", [b"[", b'{"a":', b"[[[0]]],"])
def test_what_is_made_to_be_hard_to_read_is_given_up(piece: bytes) -> None:
    made = outline(b'{"model":"m","b":[' + piece * (MAX_STEPS + 1))
    assert made.hard
    assert made.members["model"] == "m"


def test_so_is_one_with_thousands_of_members() -> None:
    made = outline(b"{" + b",".join(b'"%d":0' % number for number in range(5000)))
    assert made.hard
    assert len(made.members) == MEMBERS + 1


def test_long_lists_of_small_things_cost_one_regular_expression() -> None:
    made = outline(b'{"b":[' + b'[1,"a"],' * 1_000_000 + b'0],"model":"m"}')
    assert made.members["model"] == "m"
