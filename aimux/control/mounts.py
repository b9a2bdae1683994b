"""The mounts as a resource of the application's router: the gateway relays requests there, as in the lane."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiohttp import web
from yarl import URL

from aimux.control.middlewares.bodies import not_yet
from aimux.control.relaying import relay
from aimux.control.state import CONTROL, RequestKey, control_of
from aimux.plugin.errors import GatewayError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aiohttp.typedefs import Handler

TARGET = RequestKey("target", str)
"""On requests below a mount: the target of the request line, without the prefix of the whole application."""


class Mounts(web.AbstractResource):
    """Everything in the gateway's table of mounts, which a reload replaces."""

    def __init__(self, app: web.Application) -> None:
        super().__init__(name="mounts")
        self._app = app
        self._prefix = ""
        self._route = web.ResourceRoute("*", _relay, self, expect_handler=not_yet)

    @property
    def canonical(self) -> str:
        return f"{self._prefix}/"

    def url_for(self, **kwargs: str) -> URL:
        """The application's root; `kwargs` are none."""
        return URL(self.canonical)

    def add_prefix(self, prefix: str) -> None:
        self._prefix = prefix + self._prefix

    def get_info(self) -> Any:
        return {"path": self.canonical}

    def raw_match(self, path: str) -> bool:
        return path == self.canonical

    async def resolve(self, request: web.Request) -> tuple[web.UrlMappingMatchInfo | None, set[str]]:
        target = request.raw_path
        if not target.startswith(self._prefix):
            return None, set()
        target = target.removeprefix(self._prefix)
        try:
            if self._app[CONTROL].gateway.setup.mounts.find(target) is None:
                return None, set()
        except GatewayError:
            pass  # the gateway answers what is wrong with it
        request[TARGET] = target
        return web.UrlMappingMatchInfo({}, self._route), set()

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[web.AbstractRoute]:
        return iter([self._route])


@web.middleware
async def first(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The outermost middleware: none of the others applies below a mount."""
    return await (request.match_info.handler if TARGET in request else handler)(request)


async def _relay(request: web.Request) -> web.StreamResponse:
    return await relay(control_of(request).gateway, request, request[TARGET])
