"""Where an answer sends a client to the upstream, with the token that it has for aimux, it sends it to aimux."""

from __future__ import annotations

import gzip
import json

import pytest

from .answers import body_of, head_of, json_of, status_of
from .conftest import BOTH_WAYS, Start, Upstream, request

THERE = "https://vendor.example/v1/jobs/job_1/results"
HERE = "/v1/jobs/job_1/results"
JOB = {"id": "job_1", "said": "see https://vendor.example/v1/other", "results": THERE}


def answers(upstream: Upstream, body: bytes, *fields: str, status: int = 200) -> None:
    lines = [f"HTTP/1.1 {status} X", f"content-length: {len(body)}", "x-limit-5h: 0.5", *fields, "", ""]
    upstream.answer = "\r\n".join(lines).encode() + body


@BOTH_WAYS
@pytest.mark.parametrize("coding", ["", "gzip"])
async def test_it_becomes_a_path(start: Start, upstream: Upstream, coding: str) -> None:
    aimux = await start()
    raw = json.dumps(JOB).encode()
    fields = ["date: Mon, 01 Jan 2024 00:00:00 GMT", *(["content-encoding: gzip"] if coding else [])]
    answers(upstream, gzip.compress(raw, 0) if coding else raw, "content-type: application/json", *fields)
    sent = await aimux.send(request("/plain/v1/jobs/job_1", method="GET", body=b""))
    assert status_of(sent) == 200
    assert json_of(sent) == {**JOB, "results": HERE}
    head = head_of(sent).lower()
    assert b"content-encoding" not in head
    assert b"x-limit-5h: 0.5" in head
    assert head.count(b"\ndate:") == 1
    assert aimux.app.gateway.storage.deposits.find("plain", ["job_1"]) is not None


@BOTH_WAYS
async def test_in_a_list_too(start: Start, upstream: Upstream) -> None:
    aimux = await start(shared_storage=True)
    for shared in (True, False):
        if not shared:
            answers(upstream, json.dumps({"id": "job_1"}).encode(), "content-type: application/json")
            await aimux.app.stop()
            aimux = await start()
            await aimux.send(request("/plain/v1/jobs"))
        answers(upstream, json.dumps({"data": [JOB], "has_more": False}).encode(), "content-type: application/json")
        sent = await aimux.send(request("/plain/v1/jobs", method="GET", body=b""))
        assert [job["results"] for job in json_of(sent)["data"]] == [HERE]


@pytest.mark.parametrize(
    ("target", "status", "body"),
    [
        pytest.param("/plain/v1/chat", 200, json.dumps(JOB).encode(), id="another request"),
        pytest.param("/plain/v1/jobs/job_1", 404, json.dumps(JOB).encode(), id="an error"),
        pytest.param("/plain/v1/jobs/job_1", 200, b'{"id":  "job_1", "results": null}', id="nothing in it"),
    ],
)
async def test_everything_else_passes_as_it_came(
    start: Start, upstream: Upstream, target: str, status: int, body: bytes
) -> None:
    aimux = await start()
    answers(upstream, body, "content-type: application/json; charset=utf-8", status=status)
    sent = await aimux.send(request(target, method="GET", body=b""))
    assert (status_of(sent), body_of(sent)) == (status, body)
    assert b"content-type: application/json; charset=utf-8" in head_of(sent)
