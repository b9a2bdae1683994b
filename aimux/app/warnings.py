"""Warnings of a start or a reload: about its surroundings, and about a configuration that is legal but probably not
meant."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from aimux.accounts.unknown import unknown_accounts
from aimux.front.bounds import connection_limit
from aimux.people.configured import from_config
from aimux.people.directory import Directory
from aimux.people.unknown import unknown_people
from aimux.relay.proxy import unusable_proxies

if TYPE_CHECKING:
    from pathlib import Path

    from aimux.app.pools import Pools
    from aimux.config import Config
    from aimux.people.directory import Stored
    from aimux.plugin.loader import Plugins

log = logging.getLogger("aimux")

FEW_CONNECTIONS = 100


def warn_of_surroundings(config: Config, plugins: Plugins) -> None:
    """The state folder's owner, file descriptors, proxies, and plugins that could not be loaded."""
    _warn_of_owner(config.state_dir)
    if (limit := connection_limit()) < FEW_CONNECTIONS:
        log.warning("file descriptors suffice for %d client connections: raise LimitNOFILE= or `ulimit -n`", limit)
    for problem in unusable_proxies():
        log.error("%s", problem)
    for plugin in plugins.failed:
        log.error("plugin %s (%s %s) is left out: %s", plugin.name, plugin.distribution, plugin.version, plugin.error)


def warn_of_unknown(config: Config, pools: Pools, stored: Stored) -> None:
    """Accounts, users and groups that the configuration names and nobody has. `stored`: people in the database."""
    for account in unknown_accounts(config, {name: pool.accounts for name, pool in pools.items()}):
        log.warning("%s", account)
    told = {one.where for one in config.warnings}
    for person in unknown_people(config, Directory(from_config(config), stored)):
        if person.where not in told:
            log.warning("%s", person)


def _warn_of_owner(state_dir: Path) -> None:
    """Warn if root writes what the folder's owner could not read."""
    try:
        owner = state_dir.stat().st_uid
    except OSError:
        return
    if owner and not os.geteuid():
        log.warning(
            "%s belongs to user id %d, who can't read what aimux writes there as root: run aimux as that user",
            state_dir,
            owner,
        )
