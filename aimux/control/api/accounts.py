"""Operations on accounts."""

# ruff: noqa: TC001 - the table reads the annotations

from __future__ import annotations

import asyncio
import logging
import math
import time
from typing import TYPE_CHECKING

from aimux.accounts.importing import Login, NotTaken, recognize, taken_apart
from aimux.accounts.twins import twins
from aimux.control.api.models import (
    Account,
    AccountChange,
    AccountPage,
    AccountQuery,
    AccountUsers,
    Import,
    Imported,
    Instance,
    Name,
    NewAccount,
    NotImported,
    Rename,
    Tested,
)
from aimux.control.api.operations import Table
from aimux.control.api.parts import Parts
from aimux.control.api.probe import check, probe
from aimux.control.api.problems import Fault, Refused
from aimux.control.api.saving import Wanted, refuse_configured, save
from aimux.control.api.views import shown
from aimux.control.principal import Principal, Role
from aimux.people.reach import serves, users_of
from aimux.people.users import check_groups
from aimux.plugin import Action, CredentialError
from aimux.storage import StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aimux.accounts import Account as LiveAccount
    from aimux.accounts import AccountPool

log = logging.getLogger("aimux.admin")
operation = Table()


@operation("GET", "/accounts", "List the accounts", errors=(404,), role=Role.VIEWER)
async def list_accounts(parts: Parts, query: AccountQuery) -> AccountPage:
    """As the files are now, by provider and name."""
    pools = parts.pools.values() if query.provider is None else [parts.pool(query.provider)]
    await asyncio.gather(*map(parts.look, pools))
    found = []
    for pool in pools:
        links = await parts.vault.links(pool.provider.instance, pool.provider.credential_file)
        same = twins(pool.accounts)
        found += [
            ((account.provider, name), account, links.get(name), same.get(name, []), pool.configured(name))
            for name, account in pool.accounts.items()
        ]
    found.sort(key=lambda entry: entry[0])
    if query.after is not None:
        provider, _, name = query.after.partition("/")
        found = [entry for entry in found if entry[0] > (provider, name)]
    page, rest = found[: query.limit], found[query.limit :]
    people = parts.people.directory
    items = [
        shown(account, link, same, serves(people, account.settings), settings_configured=configured)
        for _, account, link, same, configured in page
    ]
    return AccountPage(items=items, next="/".join(page[-1][0]) if rest else None)


@operation("POST", "/accounts", "Add an account", status=201, errors=(404, 409, 422))
async def add_account(parts: Parts, body: NewAccount, caller: Principal) -> Account:
    """From a credential file of any format that the provider knows, an API key, or a setup token."""
    pool = parts.pool(body.provider)
    if body.file is not None:
        raw = _of_one(body.file.get_secret_value().encode(), pool)
    elif body.api_key is not None:
        raw = pool.provider.api_key_file(body.api_key.get_secret_value().strip())
    else:
        assert body.setup_token is not None  # the model has seen to it
        raw = pool.provider.setup_token_file(body.setup_token.get_secret_value())
    account = await _add(parts, pool, raw, Wanted(body.name, body.replace), caller, ask_first=body.check)
    return await parts.show(pool, account)


@operation(
    "POST", "/accounts/import", "Add the logins that another program keeps in a file", status=201, errors=(404, 422)
)
async def import_accounts(parts: Parts, body: Import, caller: Principal) -> Imported:
    """Each login as an account with a name that aimux chooses. Refused 422 if none can be taken.

    A login that there is an account with already is left: the file's may be older. Of two programs that renew the same
    login, one loses it: stop using them where they come from.
    """
    added: list[tuple[AccountPool, LiveAccount]] = []
    left: list[NotImported] = []
    for where, login in _logins(body.file.get_secret_value().encode(), parts, body.provider):
        try:
            if isinstance(login, NotTaken):
                raise login
            pool = parts.pool(login.provider.instance)
            wanted = Wanted(None, replace=False)
            added.append((pool, await _add(parts, pool, login.raw, wanted, caller, ask_first=body.check)))
        except NotTaken as error:
            advice = ": name its provider" if error.unclear else ""
            left.append(NotImported(where=where, reason=f"It {error}{advice}."))
        except CredentialError as error:
            left.append(NotImported(where=where, reason=f"It {error}."))
        except Refused as refused:
            left.append(NotImported(where=where, reason=refused.problem.detail))
    if not added:
        faults = [Fault(where=one.where or "body.file", message=one.reason) for one in left]
        raise Refused(422, "no-login", "No login in this file can be taken.", errors=faults)
    return Imported(items=[await parts.show(*one) for one in added], left=left)


def _logins(raw: bytes, parts: Parts, only: str | None) -> Iterator[tuple[str, Login | NotTaken]]:
    """The logins of a file, with their places in it; at least one."""
    pools = parts.pools if only is None else {only: parts.pool(only)}
    providers = {name: pool.provider for name, pool in pools.items()}
    try:
        yield "", recognize(raw, providers)
    except NotTaken as error:
        found = [*taken_apart(raw, providers)]
        yield from found or [("", error)]


def _of_one(raw: bytes, pool: AccountPool) -> bytes:
    """A file that this provider can read: what it gets may be one in which another program keeps its login."""
    provider = {pool.provider.instance: pool.provider}
    try:
        return recognize(raw, provider).raw
    except NotTaken:
        found = [login.raw for _, login in taken_apart(raw, provider) if isinstance(login, Login)]
    if len(found) > 1:
        detail = f"This file has {len(found)} logins of {pool.provider.instance}."
        raise Refused(422, "several-logins", detail, remedy="import it: each becomes an account")
    return found[0] if found else raw


async def _add(
    parts: Parts, pool: AccountPool, raw: bytes, wanted: Wanted, caller: Principal, *, ask_first: bool
) -> LiveAccount:
    if ask_first:
        await check(pool, raw, parts.relay)
    account = await save(parts.vault, pool, raw, wanted)
    log.info("admin: %s/%s was added", account.provider, account.name)
    full = f"account:{account.provider}/{account.name}"
    await parts.note(caller, "account.add", full, after={"kind": account.kind, "replace": wanted.replace})
    return account


@operation("GET", "/accounts/{provider}/{name}", "Show an account", role=Role.VIEWER)
async def show_account(parts: Parts, provider: Instance, name: Name) -> Account:
    return await parts.show(*await parts.account(provider, name, changes=False))


@operation("GET", "/accounts/{provider}/{name}/users", "List who can reach an account", role=Role.VIEWER)
async def list_account_users(parts: Parts, provider: Instance, name: Name) -> AccountUsers:
    """By groups, reservations and scopes, whatever its state."""
    _, account = await parts.account(provider, name, changes=False)
    return AccountUsers(items=users_of(parts.people.directory, provider, account.settings))


@operation("PATCH", "/accounts/{provider}/{name}", "Change an account's weight, priority and groups", errors=(409,))
async def change_account(
    parts: Parts, provider: Instance, name: Name, body: AccountChange, caller: Principal
) -> Account:
    """At once here, and within two seconds on every node. Refused if the configuration has settings for it."""
    pool, account = await parts.account(provider, name)
    full = f"{provider}/{name}"
    if pool.configured(name):
        where = f"providers.{provider}.accounts.{name}"
        detail = f"The configuration says what weight, priority and groups {full} has."
        raise Refused(409, "configured", detail, remedy=f"change {where} there, and reload", account=full)
    refuse_configured(account)
    changes = body.model_dump(exclude_unset=True)
    if "groups" in changes:
        changes["groups"] = tuple(dict.fromkeys(changes["groups"]))
        added = [group for group in changes["groups"] if group not in account.settings.groups]
        check_groups(added, parts.people.directory.known_groups())
    before = {field: getattr(account.settings, field) for field in changes}
    pool.assign(name, account.settings.model_copy(update=changes))
    log.info("admin: %s was changed", full)
    await parts.note(caller, "account.change", f"account:{full}", before=before, after=changes)
    await parts.kept()
    return await parts.show(pool, account)


@operation("POST", "/accounts/{provider}/{name}/enable", "Let an account serve again")
async def enable_account(parts: Parts, provider: Instance, name: Name, caller: Principal) -> Account:
    """Whether a person or an upstream's answer took it out. A cooldown ends, too: the next request finds out. Where its
    file holds no login any more, the one that is kept beside it is put back."""
    pool, account = await parts.account(provider, name)
    unreadable = account.parked is not None and account.parked.fingerprint is None
    if unreadable and account.renewer is not None and await account.renewer.put_back():
        log.info("admin: the login that was kept beside %s/%s is in its place again", provider, name)
        await pool.load()
    account.enable()
    log.info("admin: %s/%s was enabled", provider, name)
    await parts.note(caller, "account.enable", f"account:{provider}/{name}")
    await parts.kept()
    return await parts.show(pool, account)


@operation("POST", "/accounts/{provider}/{name}/disable", "Take an account out of service")
async def disable_account(parts: Parts, provider: Instance, name: Name, caller: Principal) -> Account:
    """It is still renewed, and open requests end as usual."""
    pool, account = await parts.account(provider, name)
    account.disable()
    log.info("admin: %s/%s was disabled", provider, name)
    await parts.note(caller, "account.disable", f"account:{provider}/{name}")
    await parts.kept()
    return await parts.show(pool, account)


@operation("POST", "/accounts/{provider}/{name}/rename", "Rename an account", errors=(409,))
async def rename_account(parts: Parts, provider: Instance, name: Name, body: Rename, caller: Principal) -> Account:
    """Its state, open requests, conversations and what users have stored stay. Refused while the configuration names it
    and not the new name.

    Otherwise it would lose its groups, and with them the limits on who may use it.
    """
    pool, account = await parts.account(provider, name)
    if pool.configured(name) and not pool.configured(body.name):
        raise Refused(
            409,
            "configured",
            f"The configuration has settings for {provider}/{name}.",
            remedy=f"put them under providers.{provider}.accounts.{body.name} as well, and reload",
            account=f"{provider}/{name}",
        )
    refuse_configured(account)
    if body.name != name and body.name in pool.accounts:
        there = f"{provider}/{body.name}"
        raise Refused(409, "conflict", f"There is an account {there} already.", remedy="choose another name")
    await pool.rename(name, body.name)
    if trouble := await parts.keep():
        # Its state is kept by name: after a restart the new one would be enabled, and serve everybody.
        await pool.rename(body.name, name)
        raise StorageError(f"{provider}/{name} keeps its name: {trouble}", remedy="see to that, and try again")
    await parts.deposits.rename(provider, name, body.name)
    log.info("admin: %s/%s is %s/%s now", provider, name, provider, body.name)
    await parts.note(caller, "account.rename", f"account:{provider}/{name}", after={"name": body.name})
    return await parts.show(pool, account)


@operation("DELETE", "/accounts/{provider}/{name}", "Remove an account", status=204, errors=(409,))
async def remove_account(parts: Parts, provider: Instance, name: Name, caller: Principal) -> None:
    """Deletes its credential. If it is shared with another program, that program keeps it."""
    pool, account = await parts.account(provider, name)
    refuse_configured(account)
    await pool.remove(name)
    log.info("admin: %s/%s was removed", provider, name)
    await parts.note(caller, "account.remove", f"account:{provider}/{name}")


@operation("POST", "/accounts/{provider}/{name}/refresh", "Renew an account's credential now", errors=(409, 502))
async def refresh_account(parts: Parts, provider: Instance, name: Name, caller: Principal) -> Account:
    """However long it still lasts."""
    pool, account = await parts.account(provider, name)
    if account.renewer is None or account.credential is None or not account.credential.renewable:
        raise Refused(
            409,
            "not-renewable",
            f"There is nothing to renew in {provider}/{name}: {_why_fixed(account.kind)}.",
            account=f"{provider}/{name}",
        )
    await account.renewer.keep(math.inf)
    log.info("admin: %s/%s was renewed", provider, name)
    await parts.note(caller, "account.refresh", f"account:{provider}/{name}")
    return await parts.show(pool, account)


def _why_fixed(kind: str) -> str:
    if kind == "api_key":
        return "it is an API key"
    return "it has no refresh token" if kind else "its credential can't be read"


@operation("POST", "/accounts/{provider}/{name}/test", "Make the cheapest real call with an account")
async def test_account(parts: Parts, provider: Instance, name: Name) -> Tested:
    """Also with an account that is parked or disabled; it stays so. Limits in the upstream's answer are noted."""
    pool, account = await parts.account(provider, name)
    started = time.monotonic()
    status, verdict = await probe(pool, account, parts.relay)
    return Tested(
        ok=status is not None and status < 400 and verdict.action is Action.RELAY,
        status=status,
        reason=verdict.reason,
        remedy=account.addressed(verdict.remedy),
        seconds=round(time.monotonic() - started, 3),
        account=await parts.show(pool, account),
    )
