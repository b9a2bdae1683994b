"""The pages as an aiohttp application, below /dashboard."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from aiohttp import web

from aimux.control.api.problems import Refused
from aimux.control.dashboard import accounts, groups, join, me, now, people, plan, requests, settings, sign_in, usage
from aimux.control.dashboard.page import (
    CALLER,
    PAGES,
    SESSION,
    address_of,
    dashboard_of,
    form,
    go,
    is_away,
    render,
    session_of,
    told,
    within,
    without_database,
)
from aimux.control.dashboard.rendering import files, ready
from aimux.control.middlewares.problems import own_fault
from aimux.control.principal import require
from aimux.storage import StorageError

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
OPEN = ("/sign-in", "/join", "/static/")
"""Paths for callers who are not signed in."""


def dashboard_application() -> web.Application:
    """For `add_subapp(DASHBOARD, …)`. The application above it has a `CONTROL`."""
    app = web.Application(middlewares=[_as_pages, _signed_in, _with_csrf])
    for room in (now, accounts, people, groups, usage, plan, requests, settings, me, sign_in, join):
        app.add_routes(room.routes)
    app.router.add_get("/static/{name}", _static)
    app.on_response_prepare.append(_policy)
    return app


async def _policy(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers["content-security-policy"] = POLICY
    # With none at all a form's `Origin` is `null`, and without TLS nothing else says that it is ours.
    response.headers["referrer-policy"] = "same-origin"


@web.middleware
async def _as_pages(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refusals are shown on a page."""
    await ready()
    try:
        return await handler(request)
    except Refused as refused:
        return _no_database(request) if is_away(refused) else _refusal(request, refused)
    except StorageError:
        return _no_database(request)
    except web.HTTPNotFound:
        return render(request, "problem.html", 404, title="No such page", problem=None, text="There is no such page.")
    except web.HTTPMethodNotAllowed as error:  # an address that a refused form had led to, loaded anew
        text = "A form was sent to this address, and it shows nothing by itself."
        answer = render(request, "problem.html", 405, title="No such page", problem=None, text=text)
        answer.headers["allow"] = error.headers["allow"]
        return answer
    except web.HTTPException:
        raise
    except Exception as error:
        return _refusal(request, own_fault(request, error))


def _refusal(request: web.Request, refused: Refused) -> web.Response:
    problem = refused.problem
    return render(request, "problem.html", problem.status, title=problem.title, problem=problem, text=told(refused))


def _no_database(request: web.Request) -> web.Response:
    what = "This page needs the database" if request.method == "GET" else "Nothing was changed"
    return render(request, "problem.html", 503, title=what, problem=None, text=without_database(request))


@web.middleware
async def _signed_in(request: web.Request, handler: Handler) -> web.StreamResponse:
    path = within(request.path)
    if path.startswith("/static/"):
        return await handler(request)
    try:
        found = await dashboard_of(request).sessions.find(request, address_of(request))
    except StorageError:
        if not path.startswith(OPEN):
            text = (
                "The database, in which your session is, is out of order. Sign in again, with your token or the admin"
                " key: this aimux remembers that until the database works again."
            )
            return render(request, "problem.html", 503, title="Who are you?", problem=None, text=text)
        found = None
    if found is not None:
        request[SESSION], request[CALLER] = found
        page = path.strip("/").partition("/")[0]
        for entry in PAGES:
            if entry.path == ("" if page == "now" else page):
                if not page and not found[1].role.includes(entry.role):
                    return go(request, "me")  # users who only see their own data begin there
                require(found[1], entry.role)
    elif not path.startswith(OPEN):
        if request.method == "GET":
            wanted = within(request.path_qs).lstrip("/")
            return go(request, f"sign-in?{urlencode({'to': wanted})}" if wanted else "sign-in")
        raise Refused(401, "signed-out", "You are not signed in any more; nothing was changed.", remedy="sign in again")
    return await handler(request)


@web.middleware
async def _with_csrf(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every form of a signed-in user carries the session's own word."""
    if (
        request.method == "POST"
        and SESSION in request
        and not session_of(request).carries((await form(request)).get("csrf", ""))
    ):
        raise Refused(
            403,
            "csrf",
            "This form is too old, or came from elsewhere; nothing was changed.",
            remedy="load the page again",
        )
    return await handler(request)


async def _static(request: web.Request) -> web.StreamResponse:
    file = (await asyncio.to_thread(files)).get(request.match_info["name"])
    if file is None:
        raise web.HTTPNotFound
    # Pages ask with the content's hash after the name: the address changes whenever the file has changed.
    headers = {"cache-control": "public, max-age=3600" if request.query_string else "no-cache", "etag": file.etag}
    if request.headers.get("if-none-match") == file.etag:
        return web.Response(status=304, headers=headers)
    response = web.Response(body=file.content, content_type=file.kind, charset="utf-8", headers=headers)
    response.enable_compression()
    return response
