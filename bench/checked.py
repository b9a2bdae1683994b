"""Whether a contender answers rightly, before anybody asks how fast."""

from __future__ import annotations

import http.client
from typing import TYPE_CHECKING

from bench import traffic

if TYPE_CHECKING:
    from bench.contenders import Served


def wrong(served: Served, *, swaps: bool) -> str:
    """What is wrong with its answers, "" for nothing. `swaps`: it replaces the user's token by the account's."""
    status, head, body = _ask(served, "check", served.token)
    if status != 200 or len(body) != traffic.SMALL_OUT:
        return f"a small request is answered with {status} and {len(body)} bytes"
    credential = head.get(traffic.CREDENTIAL, "")
    if swaps != (credential == traffic.SWAPPED):
        return f"the upstream got {credential or 'no credential'}"
    if swaps:
        status, _, _ = _ask(served, "small", "nobody's")
        if not 400 <= status < 500:
            return f"an unknown token is answered with {status}"
    status, _, body = _ask(served, "turn", served.token)
    if status != 200 or body != traffic.stream_payload(traffic.EVENTS):
        return f"a stream is answered with {status} and {body.count(b'event: ')} of {traffic.EVENTS} events"
    return ""


def _ask(served: Served, kind: str, token: str) -> tuple[int, dict[str, str], bytes]:
    head, _, body = traffic.request(kind, served.prefix, token=token).partition(b"\r\n\r\n")
    line, *fields = head.decode().split("\r\n")
    headers = dict(field.split(": ", 1) for field in fields)
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=60)
    try:
        connection.request("POST", line.split()[1], body, headers)
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()
