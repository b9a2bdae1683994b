"""`aimux doctor --live`: a running gateway as its clients meet it, with whatever stands in between.

Each mount gets one small streamed request (some 100 tokens); everything else costs nothing.
"""

from __future__ import annotations

import io
import json
import os
import ssl
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import aiohttp
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from aimux.cli.doctor.finding import Finding, Status
from aimux.cli.doctor.formats import FORMATS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from aimux.cli.doctor.formats import Format
    from aimux.cli.reach import Reach

PATIENCE = aiohttp.ClientTimeout(total=90, sock_connect=10)
LARGE = 2 * 1024 * 1024
"""Bytes of a request that a proxy's usual limit of one megabyte would stop; Claude Code's grow to several."""
MANY_EVENTS = 8
BURST = 0.05
"""If many events come within this share of the time, something kept them back."""
REVEALING = ("set-cookie", "anthropic-organization-id", "openai-organization", "chatgpt-account-id")

_TOKEN = "use a token of one of the users (`aimux users`); a proxy in between must pass its header"  # noqa: S105 - advice
_ACCOUNTS = "see `aimux accounts`, and `aimux login`"
_REMEDIES = {401: _TOKEN, 429: _TOKEN, 400: _ACCOUNTS, 503: _ACCOUNTS}


@dataclass(slots=True)
class Reply:
    """`arrivals`: seconds since the request, one for each piece of the body."""

    status: int
    headers: CIMultiDictProxy[str]
    body: bytes
    arrivals: list[float] = field(default_factory=list)


async def examine_live(reach: Reach, token: str) -> list[Finding]:
    """What clients of this gateway experience. `token` "": they have none."""
    context = ssl.create_default_context()
    if reach.certificate is not None and reach.certificate.exists():
        context.load_verify_locations(reach.certificate)
    connector = aiohttp.TCPConnector(ssl=context)
    async with aiohttp.ClientSession(connector=connector, timeout=PATIENCE, trust_env=True) as session:
        if (trouble := await _trouble(session, reach)) is not None:
            return [trouble]
        found = [Finding("ok", reach.address, "answers")]
        absent = 0
        for prefix, provider in reach.mounts.items():
            about = FORMATS.get(provider.wire_format)
            if about is None:
                found.append(Finding("ok", prefix or "/", "is left out: its format is not known here"))
                continue
            mount = Mount(session, reach.address + prefix, prefix or "/", about, token)
            if not reach.own and await mount.absent():
                found.append(Finding("ok", prefix, "is not served there"))
                absent += 1
            else:
                found += [finding async for finding in mount.examine()]
        if absent == len(reach.mounts):
            remedy = "is there something behind the address in --url? Mounts of other names are known with --config"
            found.append(Finding("error", reach.address, f"serves none of {', '.join(reach.mounts)}", remedy))
    return found


async def _trouble(session: aiohttp.ClientSession, reach: Reach) -> Finding | None:
    """Why nothing can be asked at all."""
    try:
        async with session.get(f"{reach.address}/health") as answer:
            if answer.status == 400 and reach.address.startswith("http:") and "https" in await answer.text():
                return Finding("error", reach.address, "speaks TLS there", "Then it is https://")
            return None
    except (aiohttp.ClientError, TimeoutError) as error:
        return Finding("error", reach.address, *_unreachable(error))


def _unreachable(error: Exception) -> tuple[str, str]:
    """What is wrong, and what to do."""
    match error:
        case aiohttp.ClientConnectorCertificateError():
            return (
                f"its certificate is not accepted: {error.certificate_error}",
                "give the gateway one for this name that clients trust; to trust its own, name the file in "
                "SSL_CERT_FILE for this command, and see `aimux connect --config` for each client's way",
            )
        case aiohttp.ClientConnectorSSLError():
            return "does not speak TLS there", "try it with http://"
        case aiohttp.ServerDisconnectedError():
            return "hangs up without an answer", "does it speak TLS there? Then it is https://"
    number = getattr(error, "errno", None) or 0
    reason = os.strerror(number) if number > 0 else getattr(error, "strerror", None) or str(error) or "no answer"
    return f"can't be reached: {reason}", "is it running, and is that its address?"


@dataclass
class Mount:
    """One mount and what is asked of it. `token` "": nobody needs one, as far as is known."""

    session: aiohttp.ClientSession
    url: str
    prefix: str
    about: Format
    token: str = field(repr=False)

    async def absent(self) -> bool:
        """Whether aimux itself says that there is no such mount."""
        try:
            reply = await self._ask(self.about.models, next(iter(self._forms.values())))
        except (aiohttp.ClientError, TimeoutError):
            return False
        return reply.status == 404 and reply.headers.get("content-type", "").startswith("application/problem+json")

    async def examine(self) -> AsyncIterator[Finding]:
        """Yields each finding. Without an account that can be asked, the rest would only repeat that."""
        accepted = await self._accepted()
        yield accepted
        for refused in await self._refused():
            yield refused
        yield await self._confined()
        yield await self._large()
        if accepted.status == "error":
            return
        async for finding in self._streamed():
            yield finding
        if self.about.socket is not None:
            yield await self._socket()

    def _finding(self, status: Status, what: str, message: str, remedy: str = "") -> Finding:
        return Finding(status, f"{self.prefix} {what}", message, remedy if status != "ok" else "")

    async def _ask(
        self, target: str, headers: Mapping[str, str], method: str = "GET", body: bytes | None = None
    ) -> Reply:
        """Raises aiohttp.ClientError or TimeoutError."""
        started = time.monotonic()
        fields = CIMultiDict({**self.about.headers, **headers})
        if body is not None:
            fields["content-type"] = "application/json"
        data = None if body is None else io.BytesIO(body)
        url = URL(self.url + target, encoded=True)
        async with self.session.request(method, url, headers=fields, data=data, allow_redirects=False) as answer:
            parts, arrivals = [], []
            async for part, _ in answer.content.iter_chunks():
                parts.append(part)
                arrivals.append(time.monotonic() - started)
            return Reply(answer.status, answer.headers, b"".join(parts), arrivals)

    @property
    def _forms(self) -> dict[str, dict[str, str]]:
        if not self.token:
            return {"without a token": {}}
        bearer, key = {"authorization": f"Bearer {self.token}"}, {"x-api-key": self.token}
        return {"as bearer": bearer, "as x-api-key": key, "as both": bearer | key}

    async def _accepted(self) -> Finding:
        """Every form in which clients send a token."""
        for form, headers in self._forms.items():
            try:
                reply = await self._ask(self.about.models, headers)
            except (aiohttp.ClientError, TimeoutError) as error:
                return self._finding("error", "token", f"{form}: no answer ({_words(error)})", "see aimux's log")
            if reply.status != 200:
                said = self.about.message(reply.body) or _excerpt(reply.body)
                remedy = _REMEDIES.get(reply.status, "see aimux's log under the answer's x-request-id")
                return self._finding("error", "token", f"{form}: {reply.status}, {said}", remedy)
            self._model = self.about.model(reply.body)
        return self._finding("ok", "token", f"accepted {', '.join(self._forms)}")

    async def _refused(self) -> list[Finding]:
        """What clients without a token are told; they stop at once only if the answer says so."""
        strangers = {
            "no token": {},
            "a wrong token": {"authorization": "Bearer this-is-nobodys-token"},
            "a vendor's token": {"authorization": f"Bearer {self.about.foreign}"},
        }
        found = []
        for who, headers in strangers.items():
            what = f"with {who}"
            try:
                reply = await self._ask(self.about.models, headers)
            except (aiohttp.ClientError, TimeoutError) as error:
                found.append(self._finding("error", what, f"no answer ({_words(error)})", "see aimux's log"))
                continue
            if reply.status == 200:
                status: Status = "error" if self.token else "warning"
                remedy = "add `users:` to the configuration, unless everyone who reaches it may use the accounts"
                found.append(self._finding(status, what, "is served", remedy))
                continue
            said = self.about.message(reply.body)
            if reply.status not in {401, 403, 429} or said is None:
                message = f"{reply.status}, and not in the format of the vendor's clients: {_excerpt(reply.body)}"
                remedy = "something in front of aimux answers in its place: let its errors pass"
                found.append(self._finding("error", what, message, remedy))
            elif reply.headers.get("x-should-retry") != "false":
                remedy = "a proxy in between drops x-should-retry: let it pass, or clients retry for minutes"
                found.append(self._finding("warning", what, f"{reply.status} without `x-should-retry: false`", remedy))
            else:
                found.append(self._finding("ok", what, f"refused with {reply.status}, in words that clients show"))
        return found

    async def _confined(self) -> Finding:
        """A path that would lead out of the mount."""
        try:
            reply = await self._ask("/%2e%2e/%2e%2e/health", next(iter(self._forms.values())))
        except (aiohttp.ClientError, TimeoutError) as error:
            return self._finding("ok", "path with dots", f"is cut off ({_words(error)})")
        if reply.status == 200:
            remedy = "a proxy in between resolves dots before it chooses aimux: have it pass the path as it came"
            return self._finding("warning", "path with dots", "leads out of the mount", remedy)
        return self._finding("ok", "path with dots", f"is refused ({reply.status})")

    async def _large(self) -> Finding:
        """A request as large as clients' become; its token is wrong, so that it ends at the gateway."""
        headers = {"authorization": "Bearer this-is-nobodys-token"}
        try:
            reply = await self._ask(self.about.generate, headers, "POST", b" " * LARGE)
        except (aiohttp.ClientError, TimeoutError):
            # The answer can come before the body is through; then the connection may be gone before it is read.
            return self._finding("ok", "large request", "was answered before it was sent whole")
        if reply.status == 413 and self.about.message(reply.body) is None:
            remedy = "raise the limit of the proxy in between (nginx: client_max_body_size 64m)"
            return self._finding("error", "large request", "413 from something in front of aimux", remedy)
        return self._finding("ok", "large request", f"{LARGE // 1024 // 1024} MiB arrive")

    async def _streamed(self) -> AsyncIterator[Finding]:
        headers = next(iter(self._forms.values()))
        try:
            reply = await self._ask(self.about.generate, headers, "POST", self.about.request(self._model))
        except (aiohttp.ClientError, TimeoutError) as error:
            remedy = "see aimux's log; a proxy in between may cut what takes long (nginx: proxy_read_timeout 1h)"
            yield self._finding("error", "stream", f"broke off ({_words(error)})", remedy)
            return
        if reply.status != 200:
            said = self.about.message(reply.body) or _excerpt(reply.body)
            remedy = "see `aimux accounts`, and `aimux why` with the answer's x-request-id"
            yield self._finding("error", "stream", f"{self._model}: {reply.status}, {said}", remedy)
            return
        yield self._ending(reply)
        yield self._cadence(reply)
        told = sorted({name for name in map(str.lower, reply.headers) if name.startswith(self.about.limits)})
        if told:
            yield self._finding("ok", "limits", f"{len(told)} headers tell clients what is left")
        else:
            remedy = "a proxy in between drops them: let every header of an answer pass"
            yield self._finding("warning", "limits", "no header tells clients what is left", remedy)
        if shown := [name for name in REVEALING if name in reply.headers]:
            remedy = "something in front of aimux adds it; aimux itself lets none of them pass"
            yield self._finding("warning", "headers", f"{', '.join(shown)} reaches clients", remedy)

    def _ending(self, reply: Reply) -> Finding:
        kind = reply.headers.get("content-type", "")
        last = reply.body.rstrip().rpartition(b"\n\n")[2]
        if not kind.startswith("text/event-stream"):
            return self._finding("error", "stream", f"is {kind or 'of no type'}", "see what stands between")
        if not any(name.encode() in last for name in self.about.last):
            message = f"ends without its last event: {_excerpt(last)}"
            return self._finding("error", "stream", message, "see aimux's log for what the upstream did")
        return self._finding("ok", "stream", f"{self._model} answers, whole to its last event")

    def _cadence(self, reply: Reply) -> Finding:
        """Events should arrive as they are made. An instant answer says nothing about that."""
        events, first, end = reply.body.count(b"\n\n"), reply.arrivals[0], reply.arrivals[-1]
        message = f"{events} events over {end - first:.1f} s, the first after {first:.1f} s"
        if events >= MANY_EVENTS and end > 1.0 and end - first < BURST * end:
            remedy = "a proxy in between keeps answers back: switch its buffering off (nginx: proxy_buffering off)"
            return self._finding("warning", "cadence", f"{message}: they came at once", remedy)
        return self._finding("ok", "cadence", message)

    async def _socket(self) -> Finding:
        url = (self.url + str(self.about.socket)).replace("http", "ws", 1)
        headers = {**next(iter(self._forms.values())), "openai-beta": "responses_websockets=2026-02-06"}
        try:
            async with self.session.ws_connect(url, headers=headers, timeout=aiohttp.ClientWSTimeout(ws_close=5)):
                return self._finding("ok", "websocket", "opens")
        except aiohttp.WSServerHandshakeError as error:
            if error.status == 426:
                message = "426 (by `models`, or a proxy in between drops Upgrade): Codex goes on without it at once"
                return self._finding("ok", "websocket", message)
            remedy = "have the proxy in between pass Upgrade and Connection, or answer 426: Codex takes 6 s for others"
            return self._finding("warning", "websocket", f"the handshake gets {error.status}", remedy)
        except (aiohttp.ClientError, TimeoutError) as error:
            return self._finding("warning", "websocket", f"no answer ({_words(error)})", "see aimux's log")


def _words(error: BaseException) -> str:
    return "it takes too long" if isinstance(error, TimeoutError) else str(error)


def _excerpt(body: bytes) -> str:
    return json.dumps(body[:80].decode("utf-8", "replace"), ensure_ascii=False)
