"""What passes between a vendor's API and the server: a call and its answer, both without any I/O."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from aimux.plugin.body import Body

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from multidict import CIMultiDictProxy

    from aimux.simulator.accounts import Account
    from aimux.simulator.scenarios import Scenario

Pairs = list[tuple[str, str]]


@dataclass(slots=True)
class Call:
    """One request to a vendor. `path` is below the vendor's base and has no query; `origin` is the simulator's URL."""

    method: str
    path: str
    query: str
    headers: CIMultiDictProxy[str] = field(repr=False)
    origin: str
    number: int
    now: float
    scenario: Scenario
    account: Account | None = None
    scope: str = ""
    body: bytes = field(default=b"", repr=False)
    _json: dict[str, Any] | None = field(default=None, repr=False)

    @property
    def json(self) -> dict[str, Any]:
        """The body as a JSON object, decompressed if need be; `{}` where it isn't one."""
        if self._json is None:
            self._json = Body(self.body, self.headers.get("content-encoding", "")).json()
        return self._json

    @property
    def form(self) -> dict[str, str]:
        """The body as a form."""
        return dict(parse_qsl(self.body.decode("utf-8", "replace"), keep_blank_values=True))

    @property
    def params(self) -> dict[str, str]:
        """The query's parameters."""
        return dict(parse_qsl(self.query, keep_blank_values=True))

    @property
    def owner(self) -> Account:
        """The account, for what runs after the credential was checked."""
        assert self.account is not None
        return self.account

    def content_type(self) -> str:
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


@dataclass(slots=True)
class SimulatedAnswer:
    """Status, headers without framing, and the body in the chunks that will be sent.

    `usage` is the vendor's usage object that the body tells, for tests that compare it with what was metered.
    """

    status: int
    headers: Pairs = field(default_factory=list)
    chunks: list[bytes] = field(default_factory=list)
    streamed: bool = False
    usage: dict[str, Any] | None = None

    @property
    def reason(self) -> str:
        try:
            return HTTPStatus(self.status).phrase
        except ValueError:
            return "Overloaded" if self.status == 529 else "Status"


def dumps(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def json_answer(status: int, value: object, headers: Iterable[tuple[str, str]] = ()) -> SimulatedAnswer:
    return SimulatedAnswer(status, [("content-type", "application/json"), *headers], [dumps(value)])


def html_answer(status: int, title: str, body: str) -> SimulatedAnswer:
    page = f"<!doctype html><html><head><title>{title}</title></head><body><h1>{title}</h1>{body}</body></html>"
    return SimulatedAnswer(status, [("content-type", "text/html; charset=utf-8")], [page.encode()])


def edge_answer(status: int) -> SimulatedAnswer:
    """The page of the CDN in front of a vendor that is down: no JSON in it."""
    return html_answer(status, f"{status} {HTTPStatus(status).phrase}", "<hr><center>cloudflare</center>")


def stream_answer(
    chunks: list[bytes], headers: Iterable[tuple[str, str]], usage: dict[str, Any] | None
) -> SimulatedAnswer:
    start = [("content-type", "text/event-stream; charset=utf-8"), ("cache-control", "no-cache")]
    return SimulatedAnswer(200, [*start, *headers], chunks, streamed=True, usage=usage)


def sse(event: Mapping[str, Any]) -> bytes:
    """One server-sent event with its type in an `event:` line, as both vendors send them."""
    return b"event: " + str(event["type"]).encode() + b"\ndata: " + dumps(event) + b"\n\n"
