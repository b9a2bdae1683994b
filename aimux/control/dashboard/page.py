"""What the handlers of all pages share: who asks, what the API says, and the answer."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlencode

from aiohttp import BodyPartReader, web
from markupsafe import Markup

from aimux import __version__
from aimux.control.api.problems import Refused, sentence
from aimux.control.api.within import call
from aimux.control.dashboard import charts
from aimux.control.dashboard.rendering import environment
from aimux.control.dashboard.sessions import Session, cookie, keep
from aimux.control.principal import Principal, Role
from aimux.control.state import RequestKey, control_of, ends
from aimux.gateway.client_address import prefix, scheme
from aimux.plugin.parts import DASHBOARD

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping

    from aimux.control.dashboard.sessions import Dashboard

MAX_FILE = 256 * 1024
MOST_PARTS = 50
"""Fields of a form with a file."""
NOTICE = "aimux-notice"
MOST_TOLD = 3000
"""Characters of that cookie: browsers keep none of more than 4096, attributes included."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A page in the navigation, for those whose role includes `role`."""

    path: str
    title: str
    role: Role


PAGES = (
    Entry("", "Now", Role.VIEWER),
    Entry("accounts", "Accounts", Role.VIEWER),
    Entry("people", "People", Role.VIEWER),
    Entry("usage", "Usage", Role.VIEWER),
    Entry("requests", "Requests", Role.VIEWER),
    Entry("settings", "Settings", Role.ADMIN),
    Entry("me", "Me", Role.MEMBER),
)

FORM: RequestKey[dict[str, str]] = RequestKey("form", dict)
SESSION: RequestKey[Session] = RequestKey("session", Session)
CALLER = RequestKey("caller", Principal)


def address_of(request: web.Request) -> str:
    """The browser's address, as trusted proxies report it."""
    return control_of(request).gateway.setup.authentication.proxies.address(request.headers, ends(request)[0])


def dashboard_of(request: web.Request) -> Dashboard:
    return control_of(request).dashboard


def prefix_of(request: web.Request) -> str:
    """What stands before aimux's own paths in the browser's address: what a proxy has taken off, as it says, and what
    another application has that aimux is a part of.
    """
    return prefix(request.headers) + request.path.partition(DASHBOARD)[0]


def scheme_of(request: web.Request) -> str:
    """What the browser speaks, as proxies say."""
    return scheme(request.headers, request.scheme)


def root_of(request: web.Request) -> str:
    """Where the pages begin in the browser's address."""
    return prefix_of(request) + DASHBOARD


def within(path: str) -> str:
    """What follows in a request's path, or target, where the pages begin."""
    return path.partition(DASHBOARD)[2]


def session_of(request: web.Request) -> Session:
    return request[SESSION]


async def ask(request: web.Request, method: str, path: str, body: Any = None, /, **query: Any) -> Any:
    """An operation of the API, as whoever is signed in. Parameters that are None or empty are left out. Refused."""
    given = {name: value for name, value in query.items() if value not in (None, "")}
    target = f"{path}?{urlencode(given, doseq=True)}" if given else path
    return await call(control_of(request).api, request[CALLER], method, target, body)


async def if_known(asked: Awaitable[Any]) -> Any:
    """What `ask` gives; None for what only the database knows, while it is away."""
    try:
        return await asked
    except Refused as refused:
        if not is_away(refused):
            raise
        return None


def is_away(refused: Refused) -> bool:
    """Whether the database is why: it can't be reached, or not be read or written."""
    return refused.problem.type == "urn:aimux:storage"


def away(request: web.Request) -> list[dict[str, str]]:
    """A notice for a page that opens without the database, while something is wrong with it."""
    if control_of(request).database.trouble is None:
        return []
    return [{"level": "warn", "text": without_database(request)}]


def without_database(request: web.Request) -> str:
    """What that means, and for those who see to it why: a stranger need not know where it is."""
    text = (
        "The database is out of order. Requests are served all the same, and what they use is counted later; nothing"
        " can be changed here until it works again."
    )
    caller, trouble = request.get(CALLER), control_of(request).database.trouble
    if trouble is None or caller is None or not caller.role.includes(Role.VIEWER):
        return text
    return f"{text} What is wrong: {trouble}."


async def every(request: web.Request, path: str, /, *, limit: int = 500, **query: Any) -> list[Any]:
    """All items of a list, however many pages it has; `limit` of them in each."""
    items: list[Any] = []
    after = None
    while True:
        page = await ask(request, "GET", path, after=after, limit=limit, **query)
        items += page["items"]
        after = page.get("next")
        if not after:
            return items


def segment(name: str) -> str:
    """A name as a part of a path."""
    return quote(name, safe="")


def render(request: web.Request, template: str, /, status: int = 200, **values: Any) -> web.Response:
    """A page. It shows the notice that the request before it left, once."""
    caller: Principal | None = request.get(CALLER)
    told = cookie(request, NOTICE)
    notices = [*values.pop("notices", [])]
    if told:
        level, _, text = unquote(told).partition(":")
        notices.append({"level": level if level in {"ok", "warn", "bad"} else "", "text": text})
    html = (
        environment()
        .get_template(template)
        .render(
            **common(request),
            pages=[page for page in PAGES if caller is not None and caller.role.includes(page.role)],
            here=within(request.path).strip("/").partition("/")[0],
            notices=notices,
            **values,
        )
    )
    response = web.Response(text=html, status=status, content_type="text/html")
    response.enable_compression()  # no other page can cause one to be sent: the cookie is SameSite=Strict
    if told:
        keep(request, response, NOTICE, "", 0)
    return response


def common(request: web.Request) -> Mapping[str, Any]:
    """What every template may use."""
    caller: Principal | None = request.get(CALLER)
    session = request.get(SESSION)
    token = Markup('<input type="hidden" name="csrf" value="{}">').format(session.csrf) if session else Markup("")
    return {
        "root": root_of(request),
        "version": __version__,
        "caller": caller,
        "admin": caller is not None and caller.role.includes(Role.ADMIN),
        "csrf": token,
        "bar": charts.bar,
    }


def part(request: web.Request, template: str, block: str, values: Mapping[str, Any]) -> str:
    """One block of a page, rendered as it is there: for live values."""
    found = environment().get_template(template)
    return "".join(found.blocks[block](found.new_context({**common(request), **values})))


def go(request: web.Request, path: str, told: str = "", level: str = "ok") -> web.Response:
    """To another page after a form was sent: going back or loading again sends nothing twice."""
    answer = web.Response(status=303, headers={"location": f"{root_of(request)}/{path}"})
    if told:
        while len(value := quote(f"{level}:{told}")) > MOST_TOLD:
            told = f"{told[: len(told) * 3 // 4]} …"
        keep(request, answer, NOTICE, value, 60)
    return answer


async def ask_and_go(
    request: web.Request, back: str, done: str, method: str, path: str, body: Any = None
) -> web.Response:
    """Do it, and go back with a message about the result."""
    try:
        await ask(request, method, path, body)
    except Refused as refused:
        return go(request, back, told(refused), "bad")
    return go(request, back, done)


def after_refusal(refused: Refused | None) -> dict[str, Any]:
    """What a page that may be shown after one has in addition."""
    if refused is None:
        return {}
    return {"status": refused.problem.status, "notices": [{"level": "bad", "text": told(refused)}]}


def told(refused: Refused) -> str:
    """A refusal as a sentence or two."""
    problem = refused.problem
    faults = "; ".join(
        f"{fault.where.removeprefix('body.').removeprefix('query.')}: {fault.message}" for fault in problem.errors or ()
    )
    text = problem.detail or problem.title
    if problem.errors and problem.errors[0].where in text:  # it is made of them
        text = f"{faults}."
    elif faults:
        text = f"{text.rstrip('.')}: {faults}."
    if problem.remedy and problem.remedy.startswith("aimux "):
        text += f" → {problem.remedy}"  # to be typed as it stands
    elif problem.remedy:
        text += f" {sentence(problem.remedy.rstrip('.'))}"
    return text


def shown(given: Mapping[str, str]) -> Mapping[str, Any]:
    """What a form showed when its page was made; nothing if it does not say."""
    try:
        values = json.loads(given.get("shown", ""))
    except (ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


async def edited(
    request: web.Request, path: str, given: Mapping[str, str], wanted: Mapping[str, Any]
) -> dict[str, Any]:
    """The fields of a form that were changed, for a PATCH of `path`. The rest, and the rest of a list, stays as
    somebody else may have set it since the form was shown. Refused."""
    before = shown(given)
    changes = {name: value for name, value in wanted.items() if name not in before or before[name] != value}
    lists = [name for name, value in changes.items() if isinstance(value, list) and isinstance(before.get(name), list)]
    if lists:
        now = await ask(request, "GET", path)
        for name in lists:
            kept = [one for one in now[name] if one in changes[name] or one not in before[name]]
            changes[name] = kept + [one for one in changes[name] if one not in before[name] and one not in kept]
    return changes


async def form(request: web.Request) -> Mapping[str, str]:
    """What a form sent, each field once; files as text. It may be asked for again. Refused 400, 413, 415."""
    given: Mapping[str, str] | None = request.get(FORM)
    if given is not None:
        return given
    try:
        if request.content_type != "multipart/form-data":
            given = {name: value for name, value in (await request.post()).items() if isinstance(value, str)}
        elif SESSION in request:
            given = await _parts(request)
        else:  # no page sends one, and each part of it costs half a millisecond
            raise Refused(415, "form", "A form with files is taken from whoever is signed in.", remedy="sign in first")
    except web.HTTPRequestEntityTooLarge:
        most = f"{request.client_max_size // 1024} KiB"
        raise Refused(413, "too-large", f"The form is larger than {most}; nothing was changed.") from None
    except (ValueError, LookupError):  # no boundary, say, or no such charset
        raise Refused(400, "form", "This is not what a form sends.", remedy="load the page again") from None
    request[FORM] = given
    return given


def groups_in(given: Mapping[str, str]) -> list[str]:
    """The groups that were ticked in a form. It has each field once, so every group is a field of its own."""
    return [name.removeprefix("group:") for name in given if name.startswith("group:")]


async def _parts(request: web.Request) -> dict[str, str]:
    values: dict[str, str] = {}
    reader, size = await request.multipart(), 0
    while (part := await reader.next()) is not None:
        if not isinstance(part, BodyPartReader) or part.name is None:
            raise ValueError("a part without a name")
        if len(values) >= MOST_PARTS:
            raise Refused(413, "too-large", "The form has more fields than any of these pages.")
        pieces = bytearray()
        while chunk := await part.read_chunk():
            pieces += chunk
            size += len(chunk)
            if size > MAX_FILE:
                raise Refused(413, "too-large", f"The file is larger than {MAX_FILE // 1024} KiB.")
        values[part.name] = pieces.decode("utf-8", "replace")
    return values
