"""Operations on the installation itself: its configuration, plugins and nodes; and links that sign a browser in."""

# ruff: noqa: TC001, TC003 - the table and pydantic read the annotations

from __future__ import annotations

import json
import platform
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import Field

from aimux import __version__
from aimux.config import masked
from aimux.control.api.body import Body
from aimux.control.api.models import Given
from aimux.control.api.operations import Table
from aimux.control.api.parts import Parts
from aimux.control.principal import ADMIN_KEY, Principal, refuse_signed
from aimux.people import links
from aimux.people.errors import no_user
from aimux.plugin.parts import DASHBOARD
from aimux.redaction import mask

operation = Table()


class Setting(Body):
    """One setting as it is in effect."""

    name: str = Field(description="With dots between its parts: `tls.enabled`.")
    value: str = Field(description="As JSON; a secret is `********`.")
    source: str = Field(description="`AIMUX_…`, `line N` of the file, or empty: the default.")


class Configuration(Body):
    """The configuration as it is in effect."""

    path: str | None = Field(description="Of the file; null: there is none.")
    problems: list[str] = Field(description="What does not stop the start, with its line.")
    items: list[Setting]


class Plugin(Body):
    """One plugin, loaded or not."""

    name: str
    distribution: str
    version: str
    providers: list[str]
    commands: list[str]
    routes: list[str] = Field(description="Prefixes.")
    error: str | None = Field(description="Why it is left out.")


class PluginList(Body):
    """All that were found."""

    items: list[Plugin]


class System(Body):
    """The node that answers, and which there are."""

    version: str
    python: str
    addresses: list[str]
    started: datetime
    database: str = Field(description="A path, or an address, fit to be shown.")
    certificate_ends: datetime | None
    node: str = Field(description="This one, as in `nodes`.")
    nodes: list[str] = Field(description="All that use this database now, as `HOST VERSION`.")


class NewLink(Given):
    """Whom the link signs in."""

    user: Annotated[str, Field(max_length=100)] | None = Field(
        default=None, description="Null: an administrator without a name."
    )


class SignInLink(Body):
    """A link that signs one browser in, once."""

    path: str = Field(description="To be put behind the address that was asked.")
    expires_in: float = Field(description="Seconds.")


@operation("GET", "/config", "Show the configuration in effect")
async def show_config(parts: Parts) -> Configuration:
    config = parts.running.config()
    origin = config.origin
    items = [
        Setting(name=".".join(map(str, path)), value=json.dumps(value, ensure_ascii=False), source=origin.of(path))
        for path, value in _flat(masked(config))
    ]
    file = str(origin.file) if origin.file is not None else None
    return Configuration(path=file, problems=[str(one) for one in config.warnings], items=items)


@operation("GET", "/plugins", "List the plugins")
async def list_plugins(parts: Parts) -> PluginList:
    return PluginList(
        items=[
            Plugin(
                name=plugin.name,
                distribution=plugin.distribution,
                version=plugin.version,
                providers=plugin.providers,
                commands=plugin.commands,
                routes=plugin.routes,
                error=mask(plugin.error) if plugin.error is not None else None,
            )
            for plugin in parts.running.plugins
        ]
    )


@operation("GET", "/system", "Show what runs, and where")
async def show_system(parts: Parts) -> System:
    running = parts.running
    ends = running.certificate_ends()
    return System(
        version=__version__,
        python=platform.python_version(),
        addresses=list(running.addresses()),
        started=datetime.fromtimestamp(running.started, UTC),
        database=parts.people.database.name,
        certificate_ends=datetime.fromtimestamp(ends, UTC) if ends is not None else None,
        node=f"{socket.gethostname()} {__version__}",
        nodes=await parts.people.database.nodes(),
    )


@operation("POST", "/sign-in-links", "Make a link that signs a browser in", status=201, errors=(404,))
async def make_link(parts: Parts, body: NewLink, caller: Principal) -> SignInLink:
    """Works once and for five minutes, at any node. The session ends with the token or key that asked for the link."""
    parts.running  # noqa: B018 - refused where none serves
    if body.user is not None and body.user not in parts.people.directory.users:
        raise no_user(body.user)
    refuse_signed(caller.token_id)
    user = body.user or (caller.user.name if caller.user is not None else "")
    # Its user acts under that name: the log has to say who had it made.
    await parts.note(caller, "sign-in-link.make", f"user:{user or ADMIN_KEY}")
    code = await links.make(parts.people.database, user, caller.token_id)
    return SignInLink(path=f"{DASHBOARD}/sign-in?code={code}", expires_in=links.LIFETIME)


def _flat(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Every value with its path."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    if not inner or not value:
        yield path, value
    for key, one in inner:
        yield from _flat(one, (*path, key))
