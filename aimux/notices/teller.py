"""Sends notices to whoever the configuration names, in the background, again until they have arrived."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import time
from collections import OrderedDict, deque
from datetime import UTC, datetime
from importlib import import_module
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from yarl import URL

from aimux.background import end
from aimux.relay.proxy import UnusableProxy, proxy_options

if TYPE_CHECKING:
    from collections.abc import Coroutine

    import aiohttp
    from pydantic import SecretStr

    from aimux.config.notices import Notices, Webhook
    from aimux.notices.nodes import Nodes
    from aimux.notices.notice import Notice

log = logging.getLogger(__name__)

KEPT = 200
"""Notices that are kept to be shown."""
REMEMBERED = 10_000
"""Notices that are known to have been sent."""
WAITING = 500
"""Deliveries under way at once: beyond them a notice is only shown."""
PAUSES = (1.0, 4.0, 16.0, 64.0, 256.0, *[900.0] * 95)
"""Seconds before each further attempt: a receiver may be away for a day."""
LATE = 60.0
"""Seconds after which a text for people says when it was."""
SECONDS = 10.0
"""For one attempt."""


class Teller:
    """`tell` returns at once. `recent` are the last notices, newest last."""

    def __init__(self, settings: Notices, nodes: Nodes | None = None) -> None:
        """`nodes`: the others that may see the same things, if there can be any."""
        self.settings = settings
        self.recent: deque[Notice] = deque(maxlen=KEPT)
        self._nodes = nodes
        self._told: OrderedDict[str, None] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()
        self._asking: dict[str, asyncio.Task[None]] = {}
        """Notices that another node may send, by key."""
        self._session: aiohttp.ClientSession | None = None

    def tell(self, notice: Notice) -> None:
        """Send it, unless it was sent before."""
        if notice.key in self._told:
            return
        self._told[notice.key] = None
        if len(self._told) > REMEMBERED:
            self._drop(self._told.popitem(last=False)[0])
        self.recent.append(notice)
        log.warning("notice: %s", notice.message)
        if self._nodes is None:
            self._send(notice)
        elif self.settings.webhooks or self.settings.apprise:
            self._ask(self._nodes, notice)

    def forget(self, notice: Notice) -> None:
        """What it was about is over: the next time it is sent again."""
        self._told.pop(notice.key, None)
        self._drop(notice.key)

    def _drop(self, key: str) -> None:
        if self._nodes is not None:
            self._nodes.forget(key)
            if (asking := self._asking.pop(key, None)) is not None:
                asking.cancel()

    def _ask(self, nodes: Nodes, notice: Notice) -> None:
        """Send it, unless another node does."""

        async def send_once() -> None:
            if await nodes.mine(notice.key):
                if tasks := self._send(notice):
                    await asyncio.wait(tasks)
                nodes.sent(notice.key)

        self._asking[notice.key] = task = asyncio.get_running_loop().create_task(send_once())
        task.add_done_callback(_report)

    def _send(self, notice: Notice) -> list[asyncio.Task[None]]:
        works = [self._post(webhook, notice) for webhook in self.settings.webhooks]
        works += [
            self._apprise(f"notices.apprise[{number}]", address, notice)
            for number, address in enumerate(self.settings.apprise)
        ]
        return [task for work in works if (task := self._start(work)) is not None]

    async def close(self) -> None:
        """End the deliveries. Notices that have not arrived by now are given up: what still holds is told at the next
        start."""
        await end(*self._asking.values())
        if self._tasks:
            log.warning("notices that have not arrived are given up: %d", len(self._tasks))
        await end(*self._tasks)
        if self._nodes is not None:
            await self._nodes.close()
        if self._session is not None:
            await self._session.close()

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None] | None:
        """None if there are too many."""
        if len(self._tasks) >= WAITING:
            log.error("a notice was not sent: %d others are still waiting", len(self._tasks))
            work.close()
            return None
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(_report)
        return task

    # --- webhooks ----------------------------------------------------------------------------------------------------

    async def _post(self, webhook: Webhook, notice: Notice) -> None:
        body = json.dumps(told(notice)).encode()
        url = webhook.url.get_secret_value()
        where = urlsplit(url).netloc.rpartition("@")[2]  # the rest of it may be a secret
        for count, pause in enumerate((*PAUSES, None)):
            why, again = await self._attempt(url, webhook, body)
            if why == "":
                return
            if pause is None or not again:
                log.error("a notice could not be sent to %s: %s", where, why)
                return
            if not count:
                log.warning("a notice waits for %s: %s", where, why)
            await asyncio.sleep(pause)
            if webhook not in self.settings.webhooks:
                return  # a reload has taken it out, or given it another secret

    async def _attempt(self, url: str, webhook: Webhook, body: bytes) -> tuple[str, bool]:
        """Why it has not arrived, "" if it has; and whether another attempt may help."""
        if self._session is None:
            await asyncio.to_thread(import_module, "aimux.relay.session")
        import aiohttp

        from aimux.relay.session import open_session, what_failed

        if self._session is None:
            self._session = open_session()
        timeout = aiohttp.ClientTimeout(total=SECONDS)
        headers = {"content-type": "application/json", "user-agent": "aimux"}
        if webhook.secret is not None:
            headers["x-aimux-signature"] = signature(webhook.secret.get_secret_value(), body, int(time.time()))
        try:
            way = proxy_options(URL(url))
            async with self._session.post(
                url, data=body, headers=headers, allow_redirects=False, timeout=timeout, **way
            ) as answer:
                if answer.status // 100 == 2:
                    return "", False
                if answer.status // 100 == 3:
                    return f"it redirects (status {answer.status}), which is not followed: give the last address", False
                # Too many requests, or a receiver's own fault, passes; a fault in what we send does not.
                passes = answer.status in {408, 425, 429} or answer.status >= 500
                return f"it answers with status {answer.status}", passes
        except UnusableProxy as error:
            return str(error), False
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            return f"it {what_failed(error, SECONDS)}", True

    # --- mail and chats ----------------------------------------------------------------------------------------------

    async def _apprise(self, place: str, address: SecretStr, notice: Notice) -> None:
        """One address: together, each would get the notice again for as long as one of them can't be reached."""
        try:
            # The import takes a second or more, for a hundred services: no request waits for that.
            target = await asyncio.to_thread(_target, address.get_secret_value())
        except ImportError:
            log.error("notices.apprise is set, and apprise is not installed: pip install apprise")
            return
        if target is None:
            log.error("%s is no address that apprise understands: correct it (`aimux doctor` checks them)", place)
            return
        for count, pause in enumerate((*PAUSES, None)):
            late = time.time() - notice.time > LATE
            when = f" ({datetime.fromtimestamp(notice.time, UTC):%Y-%m-%d %H:%M} UTC)" if late else ""
            if await target.async_notify(title="aimux", body=notice.message + when):
                return
            if pause is None:
                log.error("a notice could not be sent to %s: apprise reaches nobody there", place)
                return
            if not count:
                log.warning("a notice waits for %s: apprise reaches nobody there", place)
            await asyncio.sleep(pause)
            if address not in self.settings.apprise:
                return


def _report(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        # Its text may hold an address, which is a secret.
        log.error("a notice was not sent: %s", type(error).__name__)


def _target(address: str) -> Any:
    """One receiver, None if apprise does not know such an address. Raises ImportError."""
    import apprise  # an extra, which most do without

    target = apprise.Apprise()
    return target if target.add(address) else None


def told(notice: Notice) -> dict[str, Any]:
    """The form that webhooks and the API have."""
    return {
        "event": notice.event,
        "about": notice.about,
        "message": notice.message,
        "time": datetime.fromtimestamp(notice.time, UTC).isoformat(timespec="seconds"),
        "details": dict(notice.details),
    }


def signature(secret: str, body: bytes, now: int) -> str:
    """`t=TIME,v1=HEX`: the HMAC-SHA256 of the time, a dot and the body, so that an old one can't be sent again."""
    return f"t={now},v1={hmac.new(secret.encode(), b'%d.' % now + body, 'sha256').hexdigest()}"
