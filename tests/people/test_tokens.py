"""The form of a token."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimux.people.tokens import SHOWN, digest, form, make_id, make_token

SCANNED = re.compile(r"aimux_[0-9A-Za-z]{49}")


def test_scanners_find_it_and_no_two_are_the_same() -> None:
    made = {make_token() for _ in range(200)}
    assert len(made) == 200
    assert all(SCANNED.fullmatch(token) and form(token) == "whole" for token in made)


@given(st.integers(0, 54), st.sampled_from("0aZ_-é "), st.integers(0, 2))
def test_a_typing_error_is_known_as_one(position: int, typed: str, kind: int) -> None:
    token = make_token()
    wrong = [
        token[:position] + typed + token[position + 1 :],
        token[:position] + token[position + 1 :],
        token[:position] + typed + token[position:],
    ][kind]
    if wrong != token:
        assert form(wrong) == ("mistyped" if wrong.startswith("aimux_") else "foreign")


def test_what_was_never_meant_to_be_one() -> None:
    assert form("sk-ant-api03-0123456789") == "foreign"
    assert form("") == "foreign"


def test_what_is_kept_shows_no_more_than_it_may() -> None:
    token = make_token()
    assert len(digest(token)) == 32
    assert len(token[:SHOWN]) <= 8
    assert digest("é\udcff")  # whatever a header can hold has one


@pytest.mark.parametrize("kind", ["tok", "inv"])
def test_ids_are_short_and_plain(kind: str) -> None:
    assert re.fullmatch(rf"{kind}_[0-9A-Za-z]{{12}}", make_id(kind))
