from __future__ import annotations

import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from aimux.config import document as module
from aimux.config.document import MAX_ALIASED, MAX_DEPTH, read_document


@pytest.fixture(params=["CSafeLoader", "SafeLoader"])
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyYAML with libyaml and without: both are out there."""
    monkeypatch.setattr(module, "_Loader", getattr(yaml, request.param))


either_parser = pytest.mark.usefixtures("parser")


@either_parser
def test_every_value_knows_its_line() -> None:
    document = read_document("a: 1\nb:\n  c: x\n  d:\n    - y\n    - {e: z}\n")
    assert document.data == {"a": 1, "b": {"c": "x", "d": ["y", {"e": "z"}]}}
    assert not document.faults
    lines = {
        ("a",): 1,
        ("b",): 2,
        ("b", "c"): 3,
        ("b", "d"): 4,
        ("b", "d", 0): 5,
        ("b", "d", 1): 6,
        ("b", "d", 1, "e"): 6,
    }
    assert {path: line for path, line in document.lines.items() if path} == lines


@either_parser
@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("12:30", "12:30"),
        ("2026-01-01", "2026-01-01"),
        ("1_000", "1_000"),
        (":8080", ":8080"),
        ("true", True),
        ("FALSE", False),
        ("~", None),
        ("", None),
        ("null", None),
        ("0x1f", 31),
        ("0o17", 15),
        ("017", 17),
        ("-5", -5),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        ("'1'", "1"),
        ('"true"', "true"),
        ("!!str 12", "12"),
        ("!!int '12'", 12),
        ("|-\n  x\n  y", "x\ny"),
    ],
)
def test_scalars_follow_the_core_schema(text: str, value: object) -> None:
    document = read_document(f"key: {text}\n")
    assert not document.faults
    assert document.data == {"key": value}
    assert type(document.data["key"]) is type(value)


def test_a_number_of_any_length_is_read() -> None:
    assert read_document(f"key: {'9' * 5000}").data["key"] == float("inf")


@either_parser
def test_duplicate_keys_are_all_reported() -> None:
    document = read_document("a: 1\nb: {c: 1, c: 2}\na: 2\n")
    assert [(f.path, f.line, f.message) for f in document.faults] == [
        (("b", "c"), 2, "is given twice, first on line 2"),
        (("a",), 3, "is given twice, first on line 1"),
    ]


@either_parser
def test_anchors_and_merges() -> None:
    document = read_document("x: &x {a: 1, b: 2}\ny: *x\nz:\n  <<: *x\n  b: 3\nw:\n  <<: [*x, {a: 9, c: 4}]\n")
    assert not document.faults
    x = {"a": 1, "b": 2}
    assert document.data == {"x": x, "y": x, "z": {"a": 1, "b": 3}, "w": {"a": 1, "b": 2, "c": 4}}


@either_parser
def test_an_alias_bomb_is_refused() -> None:
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    [fault] = read_document("\n".join(levels)).faults
    assert str(MAX_ALIASED) in fault.message
    assert fault.line is not None
    assert fault.line <= 5


@either_parser
@pytest.mark.parametrize("text", ["[" * 100_000, "{a: " * 100_000, "- " * 5_000 + "x", "a: " + "[" * (MAX_DEPTH + 1)])
def test_deep_nesting_is_refused(text: str) -> None:
    [fault] = read_document(text).faults
    assert "deep" in fault.message or "YAML" in fault.message


def test_a_recursive_alias_is_refused() -> None:
    [fault] = read_document("a: &a [*a]").faults
    assert "anchor" in fault.message


@either_parser
@pytest.mark.parametrize(
    "text",
    [
        "token: *sk-very-secret",
        "token: @sk-very-secret",
        "token: `sk-very-secret",
        "token: %sk-very-secret",
        "token: !sk-very-secret x",
        "token: !sk!very-secret x",
        "token: {sk-very-secret",
        'token: "sk-very-secret',
        'token: "\\sk-very-secret"',
        "token: sk-very-secret: x",
        "\ttoken: sk-very-secret",
        "token: sk-very-secret\n\tx: 1",
        "token: [sk-very-secret]]",
        "- sk-very-secret",
        "sk-very-secret",
        "? [sk-very-secret]\n: 1",
        "token: sk-very-secret\n--- 1\n",
        "token: sk-very-secret\x01",
    ],
)
def test_a_syntax_error_names_its_line_and_no_content(text: str) -> None:
    faults = read_document(text).faults
    assert faults
    for fault in faults:
        assert "secret" not in fault.message + fault.remedy
        assert fault.line or "character" in fault.message


def test_json_is_read_with_tabs_and_lines() -> None:
    text = json.dumps({"listen": ":1", "users": [{"name": "ä😀", "n": 1.5}]}, indent="\t", ensure_ascii=False)
    document = read_document(text)
    assert not document.faults
    assert document.data == json.loads(text)
    assert document.lines["users", 0, "name"] == 5


_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**9), 10**9)
    | st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text("abcdef", min_size=1), _json, max_size=4))
def test_whatever_json_says_is_read_as_it_is(data: dict[str, object]) -> None:
    document = read_document(json.dumps(data, ensure_ascii=False))
    assert not document.faults
    assert document.data == data


@given(st.text(max_size=60) | st.text(st.sampled_from("ab:- \n\t[]{}&*!|>'\"%@`#,?<~1.0"), max_size=40))
def test_no_text_makes_it_raise(text: str) -> None:
    document = read_document(text)
    assert isinstance(document.data, dict)
    assert all(fault.message for fault in document.faults)
