"""The access log against whatever a client puts into a request."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimux.logs import AccessLog
from aimux.metering.record import RequestRecord
from aimux.plugin.usage import Usage

FIELD = re.compile(r'(\w+)=("(?:[^"\\]|\\.)*"|\S*)(?: |$)')


def make(**changes: Any) -> RequestRecord:
    fields: dict[str, Any] = {
        "request_id": "req_1",
        "time": 1_800_000_000.25,
        "method": "POST",
        "path": "/claude/v1/messages",
        "user": "alice",
        "provider": "claude",
        "account": "default",
        "status": 200,
        "bytes_in": 4096,
        "bytes_out": 1024,
        "ttfb": 0.3,
        "duration": 4.2,
        "model": "claude-sonnet",
        "attempts": 1,
    }
    return RequestRecord("own", **fields | changes)


def written(record: RequestRecord, *, as_json: bool) -> str:
    lines: list[bytes] = []
    log = AccessLog(lines.append)
    log.json = as_json
    log.record(record)
    (line,) = lines
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    return line.decode().rstrip("\n")


def fields_of(line: str) -> dict[str, str]:
    rest = line.split("ACCESS  ", 1)[1]
    found = {}
    position = 0
    while position < len(rest):
        match = FIELD.match(rest, position)
        assert match, rest[position:]
        assert match[1] not in found
        found[match[1]] = json.loads(match[2]) if match[2].startswith('"') else match[2]
        position = match.end()
    return found


def test_a_line_of_text_has_all_there_is_to_know() -> None:
    line = written(make(usage=Usage("claude-sonnet-4", 10, 20, 30, 40)), as_json=False)
    assert line == (
        "2027-01-15T08:00:00.250Z ACCESS  user=alice provider=claude account=default method=POST "
        "path=/claude/v1/messages status=200 in=4096 out=1024 ttfb=0.300 duration=4.200 model=claude-sonnet-4 "
        "tokens=10+30+40/20 attempts=1 id=req_1 error=-"
    )


def test_what_is_not_known_is_a_dash() -> None:
    fields = fields_of(written(make(user="", account="", ttfb=None, model="", error="client_gone"), as_json=False))
    assert [fields[name] for name in ("user", "account", "ttfb", "model", "tokens", "error")] == [
        *"-----",
        "client_gone",
    ]


def test_json_has_the_same() -> None:
    assert json.loads(written(make(ttfb=None, usage=Usage("", 1, 2, 3, 4)), as_json=True)) == {
        "time": "2027-01-15T08:00:00.250Z",
        "level": "info",
        "logger": "access",
        "user": "alice",
        "provider": "claude",
        "account": "default",
        "method": "POST",
        "path": "/claude/v1/messages",
        "status": 200,
        "bytes_in": 4096,
        "bytes_out": 1024,
        "ttfb": None,
        "duration": 4.2,
        "model": "claude-sonnet",
        "input_tokens": 1,
        "cache_read_tokens": 3,
        "cache_write_tokens": 4,
        "output_tokens": 2,
        "attempts": 1,
        "request_id": "req_1",
        "error": "",
    }


@given(path=st.text(min_size=1), model=st.text(), request_id=st.text(min_size=1), user=st.text())
def test_no_value_can_forge_a_line_or_a_field(path: str, model: str, request_id: str, user: str) -> None:
    record = make(path=path, model=model, request_id=request_id, user=user)
    fields = fields_of(written(record, as_json=False))
    assert list(fields)[:3] == ["user", "provider", "account"]
    assert len(fields) == 15
    assert fields["status"] == "200"
    parsed = json.loads(written(record, as_json=True))
    assert parsed["status"] == 200
    if not any(len(value) > 8 for value in (path, model, request_id, user)):  # too short to look like a secret
        assert (parsed["path"], parsed["model"], parsed["request_id"]) == (path, model, request_id)
        assert (fields["path"], fields["model"], fields["id"]) == (path, model or "-", request_id)


@pytest.mark.parametrize("as_json", [False, True])
def test_control_characters_are_escaped(as_json: bool) -> None:
    line = written(
        make(request_id="a\r\n2027 ACCESS user=root\x1b[2J\x7f\u2028", model="x status=500"), as_json=as_json
    )
    assert line.isprintable()
    assert "\\u001b[2J\\u007f\\u2028" in line


@pytest.mark.parametrize("as_json", [False, True])
def test_a_secret_in_a_path_does_not_come_out(as_json: bool) -> None:
    line = written(make(path="/claude/v1/sk-ant-oat01-AAAABBBBCCCCDDDD"), as_json=as_json)
    assert "AAAA" not in line
    assert "/claude/v1/sk-ant-o…" in json.loads('"' + line.replace('"', '\\"') + '"')


def test_nothing_is_written_while_switched_off() -> None:
    lines: list[bytes] = []
    log = AccessLog(lines.append)
    log.enabled = False
    log.record(make())
    assert lines == []


def test_the_lines_of_one_round_of_the_loop_are_one_write() -> None:
    written: list[bytes] = []
    later: list[Callable[[], None]] = []
    log = AccessLog(written.append)
    log.soon = later.append
    for number in range(3):
        log.record(RequestRecord(f"req_{number}", 0.0, "GET", "/"))
    assert written == []
    assert len(later) == 1
    later.pop()()
    assert [line.count(b"\n") for line in written] == [3]
    log.flush()
    assert len(written) == 1
    log.record(RequestRecord("req_3", 0.0, "GET", "/"))
    assert len(later) == 1
