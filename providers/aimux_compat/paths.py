"""Which path of which gateway is answered by what. The answers' modules are imported when they are served."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from aimux.plugin import Routes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from aiohttp import web

    from aimux.plugin import Api

ROUTER, PROXY, MUX = "link-assistant-router", "claude-proxy", "claude-code-mux"


def paths() -> Iterator[Routes]:
    """Each path by itself, so that neighbouring paths stay free."""
    yield Routes("/api/tokens", _served("link_assistant_router:tokens"), compatibility=ROUTER, health="ok")
    yield Routes("/oauth/authorize", _served("claude_proxy:authorize"), compatibility=PROXY)
    yield Routes("/oauth/exchange", _served("claude_proxy:exchange"), compatibility=PROXY)
    yield Routes("/oauth/callback", _served("claude_proxy:callback"), open=True, compatibility=PROXY)
    yield Routes("/api/accounts", _served("claude_proxy:accounts"), compatibility=PROXY)
    yield Routes("/api/oauth/authorize", _served("claude_code_mux:authorize"), compatibility=MUX)
    yield Routes("/api/oauth/exchange", _served("claude_code_mux:exchange"), compatibility=MUX)
    yield Routes("/api/oauth/callback", _served("claude_code_mux:callback"), open=True, compatibility=MUX)
    yield Routes("/api/oauth/tokens", _served("claude_code_mux:tokens"), compatibility=MUX)


def _served(target: str) -> Callable[[Api], web.Application]:
    module, _, name = target.partition(":")

    def application(api: Api) -> web.Application:
        from aiohttp import web

        app = web.Application()
        app.add_routes(getattr(import_module(f"aimux_compat.{module}"), name)(api))
        return app

    return application
