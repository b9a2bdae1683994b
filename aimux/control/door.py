"""The admin API on the wire: who may use it, how much they may send, and what goes back."""

from __future__ import annotations

import hmac
import math
import time
from hashlib import sha256
from typing import TYPE_CHECKING

from aimux.control.api.api import MAX_BODY, Api, problem
from aimux.control.api.openapi import BASE
from aimux.control.api.problems import Refused
from aimux.gateway.auth import FailureLimit
from aimux.plugin.errors import ErrorKind, GatewayError

if TYPE_CHECKING:
    from aimux.control.api.desk import Desk
    from aimux.control.key import Key
    from aimux.front.answer import Answer
    from aimux.front.request import Request
    from aimux.gateway import Authentication


class Admin:
    """Serves `/api/v1`. Only a bearer key opens it, which no browser sends by itself: there is nothing to forge.

    `key` may be replaced at any time; None: there is none, and nobody is let in.
    """

    def __init__(self, desk: Desk, key: Key | None) -> None:
        self.key = key
        self.api = Api(desk)
        self._failures = FailureLimit()

    async def serve(self, request: Request, authentication: Authentication) -> Answer | None:
        """The answer, or None for a path outside of `/api/v1`. `authentication` knows where callers come from."""
        path, _, query = request.head.target.partition("?")
        if path != BASE and not path.startswith(BASE + "/"):
            return None
        try:
            return await self._serve(request, path.removeprefix(BASE), query, authentication)
        except Refused as refused:
            return problem(refused)

    async def close(self) -> None:
        await self.api.close()

    async def _serve(self, request: Request, path: str, query: str, callers: Authentication) -> Answer:
        address, own = _ends(request)
        key = self.key
        if key is None:
            detail = "This aimux has no admin key, and none could be made in its state folder."
            raise Refused(403, "no-key", detail, remedy="set admin.token, or make state_dir writable")
        # From one of the machine's addresses to itself is local too, whichever `listen` names.
        if key.local and not callers.is_local(request.head.headers, "" if address == own else address):
            detail = "Without an admin token in the configuration, the admin API serves its own machine only."
            raise Refused(403, "forbidden", detail, remedy="set admin.token")
        try:
            found = self.api.find(request.head.method, path)
        except Refused:
            self._authenticate(request, key, callers.address(request.head.headers, address))
            if path == "/openapi.json" and request.head.method == "GET":
                return self.api.document()
            raise
        operation, parameters = found
        if not operation.open:
            self._authenticate(request, key, callers.address(request.head.headers, address))
        raw = await _read(request) if operation.body is not None else b""
        return await request.turn.apart(self.api.run(operation, parameters, query, raw))

    def _authenticate(self, request: Request, key: Key, address: str) -> None:
        scheme, _, token = request.head.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            digest = sha256(token.strip().encode("utf-8", "surrogateescape")).digest()
            if hmac.compare_digest(digest, key.sha256):
                return
        wait = self._failures.failed(address, time.monotonic())
        if wait is not None:
            seconds = math.ceil(wait)
            detail = "Too many requests without the admin key came from your address."
            raise Refused(429, "slow-down", detail, remedy=f"wait {seconds} s", headers={"retry-after": str(seconds)})
        raise Refused(
            401,
            "unauthorized",
            "The admin API needs its key: send `Authorization: Bearer <key>`.",
            remedy="it is in admin.key in the state folder" if key.local else "it is admin.token of the configuration",
            headers={"www-authenticate": 'Bearer realm="aimux admin"'},
        )


def _ends(request: Request) -> tuple[str, str]:
    """The caller's address and our own; "" for a unix socket's."""
    own = request.connection.transport.get_extra_info("sockname")
    return request.connection.peer, str(own[0]) if isinstance(own, tuple) else ""


async def _read(request: Request) -> bytes:
    """A JSON body of at most 1 MiB. Refused 413, 415."""
    try:
        raw = await request.read(MAX_BODY)
    except GatewayError as error:
        if error.kind is ErrorKind.TOO_LARGE:
            raise Refused(413, "too-large", f"The body is larger than {MAX_BODY} bytes.") from None
        raise
    headers = request.head.headers
    content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if raw and (content_type != "application/json" or "content-encoding" in headers):
        raise Refused(415, "not-json", "The body has to be JSON, uncompressed: `Content-Type: application/json`.")
    return raw
