"""The HTTP client for control traffic: renewal, login, account tests."""

from __future__ import annotations

import asyncio
from importlib import import_module
from typing import TYPE_CHECKING

from yarl import URL

from aimux.plugin.http import HttpAnswer, HttpUnavailable
from aimux.relay.proxy import UnusableProxy, proxy_options

if TYPE_CHECKING:
    from collections.abc import Mapping

    import aiohttp

MAX_BODY = 1024 * 1024


class ControlHttp:
    """One session for all providers, opened at first use; honours HTTPS_PROXY and NO_PROXY.

    A credential goes to the host that it was sent to and nowhere else: no redirect is followed, no cookie kept. What is
    raised names the host and the phase, never a path, query, header or body.
    """

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def request(
        self,
        method: str,
        url: str,
        *,
        json: object = None,
        form: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 30.0,  # noqa: ASYNC109 - the protocol's, see aimux.plugin.http
    ) -> HttpAnswer:
        if self._session is None:
            await asyncio.to_thread(import_module, "aimux.relay.session")
        import aiohttp

        from aimux.relay.session import open_session, what_failed

        if self._session is None:
            self._session = open_session()
        try:
            target = URL(url)
        except ValueError:
            raise HttpUnavailable("a URL from the settings is not valid") from None
        try:
            way = proxy_options(target)
        except UnusableProxy as error:
            raise HttpUnavailable(str(error)) from None
        try:
            async with self._session.request(
                method,
                target,
                json=json,
                data=form,
                headers=headers,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=timeout),
                **way,
            ) as answer:
                body = bytearray()
                async for chunk in answer.content.iter_chunked(65536):
                    body += chunk
                    if len(body) > MAX_BODY:
                        raise HttpUnavailable(f"{target.host} answered with more than {MAX_BODY} bytes")
                return HttpAnswer(answer.status, answer.headers, bytes(body))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise HttpUnavailable(f"{target.host or 'a URL without a host'} {what_failed(error, timeout)}") from None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None
