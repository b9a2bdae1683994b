"""Operations that bring a new login: with a browser, or with a device code."""

# ruff: noqa: TC001 - the table reads the annotations

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from aimux.accounts.login import LIFETIME, AuthorizationResponse, page, read_answer
from aimux.control.api.body import Body
from aimux.control.api.models import Account, FlowId, Given, Instance, Name
from aimux.control.api.operations import Page, Table
from aimux.control.api.parts import Parts
from aimux.control.api.problems import Refused
from aimux.control.api.saving import Wanted, reserve, save
from aimux.control.principal import Principal
from aimux.plugin import CredentialError, LoginError

if TYPE_CHECKING:
    from aimux.accounts import Account as LiveAccount
    from aimux.accounts.login import Finished

log = logging.getLogger("aimux.admin")
operation = Table()


class Authorize(Given):
    """Where the login goes once it is done."""

    account: Name | None = Field(default=None, description="Without it, aimux chooses one (`default` first).")
    replace: bool = Field(default=False, description="Whether an account of that name gives way.")


class Authorization(Body):
    """A login that is under way."""

    authorization_url: str = Field(description="Where a person signs in.")
    state: str = Field(description="For `exchange`; good once.")
    expires_in: float = Field(description="Seconds.")


class Exchange(Given):
    """What the person brought back."""

    code: str = Field(min_length=1, max_length=8192, description="The code, `CODE#STATE`, or the address it came in.")
    state: FlowId | None = Field(default=None, description="As `authorize` gave it; may be left out of `CODE#STATE`.")
    account: Name | None = Field(default=None, description="Where it goes, if that was not known to `authorize`.")
    replace: bool = Field(default=False, description="Whether an account of that name gives way.")


class CallbackQuery(Body):
    """What an authorization server adds to the redirect URI. It may add more."""

    state: FlowId
    code: str | None = Field(default=None, max_length=8192, description="The authorization code.")
    error: str | None = Field(default=None, max_length=200, description="Why there is no code.")


class Device(Body):
    """A device login that is under way."""

    id: str = Field(description="To poll with; good for one login.")
    verification_url: str = Field(description="What the person opens …")
    user_code: str = Field(description="… and types there.")
    interval: float = Field(description="Seconds between two polls.")
    expires_in: float = Field(description="Seconds.")


class DevicePoll(Given):
    """Which one."""

    id: FlowId


class DeviceState(Body):
    """How far a device login is."""

    status: Literal["pending", "done"]
    account: Account | None = Field(default=None, description="When it is done.")


@operation("POST", "/oauth/{provider}/authorize", "Begin a login with a browser", errors=(409,))
async def authorize(parts: Parts, provider: Instance, body: Authorize) -> Authorization:
    """The PKCE verifier stays here for ten minutes and one `exchange`."""
    pool = parts.pool(provider)
    wanted = await reserve(pool, body.account, replace=body.replace)
    started = parts.logins.begin(pool.provider, pool.provider.redirect_uri("paste", 0), wanted)
    return Authorization(authorization_url=started.authorization_url, state=started.state, expires_in=LIFETIME)


@operation("POST", "/oauth/{provider}/exchange", "End a login with the code that the person brought", errors=(409,))
async def exchange(parts: Parts, provider: Instance, body: Exchange, caller: Principal) -> Account:
    """This uses up the state, whatever the outcome."""
    pool = parts.pool(provider)
    given = read_answer(body.code)
    if body.state is not None:
        if given.state not in {"", body.state}:
            raise LoginError("the code belongs to another login: start again")
        given = AuthorizationResponse(given.code, body.state, given.error)
    wanted = None if body.account is None else await reserve(pool, body.account, replace=body.replace)
    finished = await parts.logins.finish(provider, given)
    if wanted is not None:
        finished = replace(finished, note=wanted)
    return await parts.show(pool, await _save(parts, finished, caller))


@operation("GET", "/oauth/{provider}/callback", "Where the browser returns to", errors=(400, 409), role=None)
async def callback(parts: Parts, provider: Instance, query: CallbackQuery) -> Page:
    """For an OAuth client whose redirect URI leads here. Needs no key, but a state that is under way."""
    parts.pool(provider)
    try:
        answer = AuthorizationResponse(query.code or "", query.state, query.error or ("" if query.code else "no_code"))
        account = await _save(parts, await parts.logins.finish(provider, answer), None)
    except (LoginError, CredentialError) as error:
        return Page(400, page("The login failed", f"{error}."))
    except Refused as refused:
        return Page(refused.problem.status, page("The login failed", refused.problem.detail))
    return Page(200, page("Done", f"{account.provider}/{account.name} is logged in. You can close this window."))


@operation("POST", "/oauth/{provider}/device", "Begin a login with a device code", errors=(409,))
async def device_begin(parts: Parts, provider: Instance, body: Authorize) -> Device:
    pool = parts.pool(provider)
    wanted = await reserve(pool, body.account, replace=body.replace)
    name, device = await parts.logins.device_begin(pool.provider, wanted)
    return Device(
        id=name,
        verification_url=device.verification_url,
        user_code=device.user_code,
        interval=device.interval,
        expires_in=device.expires_in,
    )


@operation("POST", "/oauth/{provider}/device/poll", "Ask whether the person has confirmed", errors=(409,))
async def device_poll(parts: Parts, provider: Instance, body: DevicePoll, caller: Principal) -> DeviceState:
    """Asked more often than `interval` allows, it answers `pending` without asking the vendor."""
    pool = parts.pool(provider)
    finished = await parts.logins.device_poll(provider, body.id)
    if finished is None:
        return DeviceState(status="pending")
    return DeviceState(status="done", account=await parts.show(pool, await _save(parts, finished, caller)))


async def _save(parts: Parts, finished: Finished[Wanted], caller: Principal | None) -> LiveAccount:
    account = await save(parts.vault, parts.pool(finished.provider.instance), finished.raw, finished.note)
    log.info("admin: %s/%s was logged in", account.provider, account.name)
    await parts.note(caller, "account.login", f"account:{account.provider}/{account.name}")
    return account
