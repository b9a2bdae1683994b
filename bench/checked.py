"""Whether a contender answers rightly, before anybody asks how fast."""

from __future__ import annotations

import http.client

from bench import traffic


def wrong(port: int, prefix: str, *, swaps: bool) -> str:
    """What is wrong with its answers, "" for nothing. `swaps`: it replaces the user's token by the account's."""
    status, head, body = _ask(port, prefix, "check")
    if status != 200 or len(body) != traffic.SMALL_OUT:
        return f"a small request is answered with {status} and {len(body)} bytes"
    credential = head.get(traffic.CREDENTIAL, "")
    if swaps != (credential == traffic.SWAPPED):
        return f"the upstream got {credential or 'no credential'}"
    if swaps:
        status, _, _ = _ask(port, prefix, "small", token="nobody's")
        if not 400 <= status < 500:
            return f"an unknown token is answered with {status}"
    status, _, body = _ask(port, prefix, "turn")
    if status != 200 or body != traffic.stream_payload(traffic.EVENTS):
        return f"a stream is answered with {status} and {body.count(b'event: ')} of {traffic.EVENTS} events"
    return ""


def _ask(port: int, prefix: str, kind: str, token: str = traffic.USER_TOKEN) -> tuple[int, dict[str, str], bytes]:
    head, _, body = traffic.request(kind, prefix).partition(b"\r\n\r\n")
    line, *fields = head.decode().split("\r\n")
    headers = dict(field.split(": ", 1) for field in fields) | {"authorization": f"Bearer {token}"}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("POST", line.split()[1], body, headers)
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()
