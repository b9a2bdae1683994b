"""Wire formats that several providers' upstreams speak: meters, errors and conversation keys, ready to be used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aimux.plugin.errors import GatewayError
    from aimux.plugin.meters import Meter
    from aimux.plugin.provider import ErrorAnswer
    from aimux.plugin.types import Body, Headers, RequestHead, Verdict


class Format(Protocol):
    """What each module here offers: functions that do what a Provider's methods of the same name have to do."""

    def error(self, error: GatewayError) -> ErrorAnswer: ...
    def stream_error(self, error: GatewayError, request: RequestHead) -> bytes: ...
    def opening(self, payload: bytes) -> Verdict | None: ...
    def meter(self, request: RequestHead, status: int, headers: Headers) -> Meter | None: ...
    def list_models(self, request: RequestHead, answer: bytes, names: Sequence[str]) -> bytes | None: ...
    def refers_to(self, request: RequestHead, body: Body) -> tuple[str, ...]: ...
    def conversation_key(self, request: RequestHead, body: Body) -> str | None: ...
