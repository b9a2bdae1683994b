"""Every error is answered with problem details (RFC 9457)."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

from aiohttp import web

from aimux.control.api.problems import CONTENT_TYPE, Refused
from aimux.control.middlewares.records import ERROR
from aimux.control.middlewares.request_ids import REQUEST_ID
from aimux.control.state import RequestKey, control_of
from aimux.gateway.answers import error_answer
from aimux.gateway.wrong_mount import wrong_mount

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler

log = logging.getLogger("aimux.control")


_ANSWERING = RequestKey("answering", bool)
"""The answer has begun, so nothing else can be answered."""
_VENDORS = {"x-should-retry": "false"}


@web.middleware
async def with_problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except Refused as error:
        refused = error
    except web.HTTPException as error:
        if error.status < 400:
            raise
        if error.status == 404 and (answer := _astray(request)) is not None:
            return answer
        refused = _of_aiohttp(request, error)
    except Exception as error:
        refused = own_fault(request, error)
    if _ANSWERING in request:
        raise refused
    return problem_response(request, refused)


def own_fault(request: web.Request, error: Exception) -> Refused:
    """What to answer to a fault that nobody foresaw, which goes to the log. Raises it where an answer has begun."""
    if _ANSWERING in request:
        raise error  # the client has half an answer: aiohttp logs this and breaks the connection
    log.error("%s: a fault in aimux itself", request[REQUEST_ID], exc_info=error)
    return Refused(500, "internal", f"aimux failed; its log has the details under {request[REQUEST_ID]}.")


def problem_response(request: web.Request, refused: Refused) -> web.Response:
    """The answer; its word goes into the request's record."""
    problem = refused.problem
    word = problem.type.rpartition(":")[2].replace("-", "_")
    request[ERROR] = word
    body = problem.model_dump(mode="json", exclude_none=True)
    if _VENDORS.items() <= refused.headers.items():
        body["error"] = {"type": word, "message": problem.detail}
    headers = {"content-type": CONTENT_TYPE, **refused.headers}
    return web.Response(body=json.dumps(body).encode(), status=problem.status, headers=headers)


async def begun(request: web.Request, _response: web.StreamResponse) -> None:
    """For `on_response_prepare`."""
    request[_ANSWERING] = True


def _astray(request: web.Request) -> web.Response | None:
    """For a client whose base URL lacks the mount: what it has to be, in the client's own format.

    A page that may call the mounts may read it: else its browser speaks of CORS, which is not what is wrong.
    """
    setup = control_of(request).gateway.setup
    error = wrong_mount(setup, request.raw_path.partition("?")[0], request.headers, at=None, secure=request.secure)
    if error is None:
        return None
    answer = setup.cors.preflight(request.method, request.headers)
    if answer is None:
        request[ERROR] = error.kind.name.lower()
        error.request_id = request[REQUEST_ID]
        answer = error_answer(error, error.provider, request[REQUEST_ID])
    headers = {**answer.headers, **setup.cors.answer_headers(request.headers)}
    return web.Response(body=answer.body, status=answer.status, headers=headers)


def _of_aiohttp(request: web.Request, error: web.HTTPException) -> Refused:
    match error:
        case web.HTTPNotFound():
            # The vendors' SDKs get here by a base URL without its mount: they look for `error` in the body.
            mounts = control_of(request).gateway.setup.mounts.mounts
            listed = ", ".join(mount.prefix or "/" for mount in mounts) or "none"
            told = f"Nothing is served at this path; the base URL of a client has a mount in it. Mounts: {listed}."
            return Refused(404, "not-found", told, headers=_VENDORS)
        case web.HTTPMethodNotAllowed():
            methods = ", ".join(sorted(error.allowed_methods))
            return Refused(405, "method", f"This path answers {methods}.", headers={"allow": methods})
        case _:
            word = error.reason.lower().replace(" ", "-")
            return Refused(error.status, word, error.text or error.reason)
