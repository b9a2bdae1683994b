"""The same operations without a server: in this process, on the credentials and their state, wherever they are."""

from __future__ import annotations

import json
import logging
import os
import pwd
from contextlib import asynccontextmanager
from itertools import chain
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

import click
from pydantic import BaseModel

from aimux.accounts import AccountPool, ControlHttp, PoolOptions, VaultError, stores_in
from aimux.cli.calls import ApiRefused
from aimux.config import provider_instances, secrets_in
from aimux.control.api.api import OPERATIONS, Api
from aimux.control.api.operations import find
from aimux.control.api.parts import Parts
from aimux.control.api.problems import Refused
from aimux.control.principal import Principal, Role
from aimux.gateway.deposit_rows import DepositRows
from aimux.limits import Limits, Policy
from aimux.limits.keeper import LimitKeeper
from aimux.metering.journal import Journal
from aimux.metering.metering import Metering
from aimux.people import People, from_config
from aimux.people.upkeep import Uses
from aimux.redaction import holding
from aimux.relay.pool import Pool
from aimux.storage import Database, StorageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from aimux.cli.calls import Setting
    from aimux.config import Config


def owner() -> Principal:
    """The user who runs this, by the machine's name for them: whoever can read and write the files may do
    everything."""
    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        name = str(os.getuid())
    return Principal(f"cli:{name}", Role.ADMIN)


class Files:
    """The same operations in this process, on the credentials and their state, wherever they are."""

    live = False
    address = ""

    def __init__(self, parts: Parts) -> None:
        self._api = Api(parts)

    async def call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, str | int] | None = None,
    ) -> dict[str, Any]:
        operation, parameters = find(OPERATIONS, method, path)
        raw = json.dumps(body).encode() if body is not None else b""
        try:
            result = await self._api.run(operation, parameters, urlencode(query or {}), raw, owner())
        except Refused as refused:
            raise ApiRefused(refused.problem) from None
        return result.model_dump(mode="json") if isinstance(result, BaseModel) else {}

    async def close(self) -> None:
        """Wait for what was begun: a half-renewed login would be lost."""
        await self._api.close()


@asynccontextmanager
async def local_parts(setting: Setting) -> AsyncIterator[Parts]:
    """Parts over the files alone, for the user who owns them."""
    config = setting.whole
    _refuse_strangers(config.state_dir)
    logger = logging.getLogger("aimux.accounts")
    level = logger.level
    logger.setLevel(logging.ERROR)  # what it warns of is in the accounts' state
    http, relay = ControlHttp(), Pool(connect_timeout=config.connect_timeout)
    try:
        async with _people(config) as people:
            vault, state = await stores_in(config, people.database)
            options = PoolOptions(refresh_before_expiry=config.refresh_before_expiry, state=state)
            providers = provider_instances(config, setting.plugins.providers)
            pools = {name: AccountPool(provider, vault, http, options=options) for name, provider in providers.items()}
            for pool in pools.values():
                await pool.load()
            limits = LimitKeeper(people.database, Limits(Policy(), ZoneInfo(config.limits.time_zone)), config.limits)
            metering = Metering(people.database, config, providers)
            with holding(lambda: chain(secrets_in(config), *(pool.secrets() for pool in pools.values()))):
                uses, deposits = Uses(people.database), DepositRows(people.database, shared=False)
                yield Parts(pools, vault, http, relay, Journal(), people, limits, metering, uses, deposits)
    except (StorageError, VaultError) as error:
        raise click.ClickException(str(error)) from None
    finally:
        logger.setLevel(level)
        await relay.close()
        await http.close()


@asynccontextmanager
async def _people(config: Config) -> AsyncIterator[People]:
    database = await Database.open(config.database.address, config.state_dir)
    people = People(database, from_config(config))
    try:
        await people.start()
        yield people
    finally:
        await people.close()
        await database.close()


def _refuse_strangers(state_dir: Path) -> None:
    """Only the folder's owner may go on: the service's user could neither read nor lock files that root writes."""
    try:
        owner = state_dir.stat().st_uid
    except OSError:
        return
    if owner != os.geteuid():
        raise click.ClickException(f"{state_dir} belongs to another user: run this as that user (sudo -u '#{owner}' …)")
