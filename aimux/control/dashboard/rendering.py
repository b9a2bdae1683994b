"""Templates, and how the pages write numbers, money and times."""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

from aimux.control.api.problems import sentence

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jinja2 import Environment

HERE = Path(__file__).parent

_UNITS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))
_STEPS = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"))
_MOMENT = Markup(" data-moment")
_REORDERS = re.compile("[\u200e\u200f\u202a-\u202e\u2066-\u2069]")


async def ready() -> None:
    """Load everything that pages are made of into memory, so that rendering never waits for a disk."""
    if not environment.cache_info().currsize:
        await asyncio.to_thread(environment)


@lru_cache(maxsize=1)
def environment() -> Environment:
    """Made before the first page: importing Jinja takes 40 ms, which a start would notice."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=in_order,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
        cache_size=-1,
    )
    made.filters |= {
        "ago": ago,
        "amount": amount,
        "exact": exact,
        "moment": moment,
        "money": money,
        "percent": percent,
        "seconds": duration,
        "sentence": sentence,
        "until": until,
        "whose": whose,
        "zoned": zoned,
    }
    made.globals["static"] = {name: f"{name}?{file.etag.strip(chr(34))}" for name, file in files().items()}
    for name in made.list_templates():
        made.get_template(name)
    return made


def in_order(value: Any) -> Any:
    """What a page shows of a value: a text's marks of direction are written out. Clients choose the names of models,
    and could have one look like another."""
    if type(value) is not str or value.isascii():
        return value
    return _REORDERS.sub(lambda mark: f"\\u{ord(mark[0]):04x}", value)


@dataclass(frozen=True, slots=True)
class File:
    """A file that browsers load."""

    content: bytes
    kind: str
    etag: str


@lru_cache(maxsize=1)
def files() -> dict[str, File]:
    """By name; 20 kB in all."""
    kinds = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
    found = {}
    for path in (HERE / "static").iterdir():
        content = path.read_bytes()
        found[path.name] = File(content, kinds[path.suffix], f'"{sha256(content).hexdigest()[:20]}"')
    return found


def exact(value: float | None) -> str:
    """A count with all its digits; an en dash if it is unknown."""
    return "–" if value is None else f"{value:,.0f}"


def short(value: float) -> str:
    """Three digits and a unit: 1.23 M."""
    for unit, letter in _UNITS:
        if abs(value) >= unit * 0.9995:
            shown = value / unit
            return f"{shown:.{2 if shown < 9.995 else 1 if shown < 99.95 else 0}f} {letter}"
    return f"{value:,.0f}"


def amount(value: float | None) -> Markup:
    """A count that may be long: shortened, and exact on hover."""
    if value is None:
        return Markup("–")
    told = short(value)
    if told == exact(value):
        return escape(told)
    return Markup('<span class="n" title="{}">{}</span>').format(exact(value), told)


def money(value: float | None) -> Markup:
    """US dollars: with cents if there are any, exact on hover."""
    if value is None:
        return Markup("–")
    sign, size = "−" if value < 0 else "", abs(value)
    told = f"{sign}${size:,.2f}" if size >= 0.005 or not value else f"{sign}<$0.01"
    return Markup('<span class="n" title="{}${}">{}</span>').format(sign, f"{size:,.6f}".rstrip("0").rstrip("."), told)


def percent(part: float | None) -> str:
    """A fraction from 0 on as a percentage; never 100 % if it is less."""
    if part is None:
        return "–"
    if part >= 9.995:  # of a limit that was lowered, say: a column has room for three digits
        return ">999 %"
    return f"{int(part * 100) if 0.99 < part < 1 else round(part * 100)} %"


def duration(seconds: float | None) -> str:
    """As people say it: 480 ms, 2.3 s, 4 min, 5 h 20 min, 3 d 4 h."""
    if seconds is None:
        return "–"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    for index, (step, letter) in enumerate(_STEPS):
        if seconds >= step:
            whole, rest = divmod(seconds, step)
            if index + 1 < len(_STEPS) and whole < 10:
                smaller, name = _STEPS[index + 1]
                if part := int(rest // smaller):
                    return f"{whole:.0f} {letter} {part} {name}"
            return f"{whole:.0f} {letter}"
    raise AssertionError


def parsed(value: Any) -> datetime | None:
    """A time as the API gives it: RFC 3339, or unix seconds."""
    if value is None or value == "":
        return None
    if isinstance(value, int | float):
        return datetime.fromtimestamp(value, UTC)
    return datetime.fromisoformat(value)


def moment(value: Any) -> Markup:
    """An absolute time, in UTC, which a script puts into the reader's own zone."""
    when = parsed(value)
    return Markup("–") if when is None else _time(when, f"{when.astimezone(UTC):%Y-%m-%d %H:%M} UTC", _MOMENT)


def zoned(value: Any) -> Markup:
    """An absolute time in the zone that it came with, which is named."""
    when = parsed(value)
    return Markup("–") if when is None else _time(when, f"{when:%Y-%m-%d %H:%M %Z}")


def ago(value: Any) -> Markup:
    """A time that has passed."""
    when = parsed(value)
    if when is None:
        return Markup("never")
    passed = time.time() - when.timestamp()
    return _time(when, "just now" if passed < 5 else f"{_told(passed)} ago")


def until(value: Any) -> Markup:
    """A time to come."""
    when = parsed(value)
    if when is None:
        return Markup("–")
    left = when.timestamp() - time.time()
    return _time(when, "now" if left < 1 else f"in {_told(left)}")


def whose(limit: Mapping[str, str]) -> str:
    """Whose a limit is, and where its amount or its prohibition comes from."""
    kind, _, name = limit["set_by"].partition(":")
    match kind:
        case "default":
            return "set for everybody"
        case "member":
            return f"set for each member of {name}"
        case "group" if "used" in limit:
            return f"shared by the members of {name}"
        case _:
            return f"set for the {kind} {name}"


def _told(seconds: float) -> str:
    """In whole seconds, one at least."""
    whole = max(1, int(seconds))
    return f"{whole} s" if whole < 60 else duration(whole)


def _time(when: datetime, told: str, mark: str = "") -> Markup:
    utc = when.astimezone(UTC)
    return Markup('<time datetime="{}" title="{}"{}>{}</time>').format(
        f"{utc:%Y-%m-%dT%H:%M:%SZ}", f"{utc:%Y-%m-%d %H:%M:%S} UTC", mark, escape(told)
    )
