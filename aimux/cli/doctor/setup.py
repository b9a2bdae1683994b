"""Plugins and configuration."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from typing import TYPE_CHECKING

from aimux.cli.doctor.finding import Finding, Status
from aimux.cli.problems import foreign_hint
from aimux.plugin.http import HttpUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from aimux.config import Config, ConfigError, Problem
    from aimux.plugin.http import Http
    from aimux.plugin.loader import Plugins


def of_plugins(plugins: Plugins) -> list[Finding]:
    """Provider plugins that can't be loaded."""
    if not plugins.plugins:
        return [Finding("error", "plugins", "no provider plugin is installed", "install aimux anew")]
    return [
        Finding(
            "error",
            f"plugin {plugin.name}",
            f"{plugin.distribution} {plugin.version} can't be loaded: {plugin.error}",
            f"upgrade or uninstall {plugin.distribution}",
        )
        for plugin in plugins.failed
    ]


def of_config_error(error: ConfigError) -> list[Finding]:
    """Every problem that `aimux check-config` has."""
    found = _problems("error", error.problems)
    if hint := foreign_hint(error.problems):
        found.append(Finding("error", "configuration", hint))
    return found


def of_config(config: Config, path: Path | None) -> list[Finding]:
    """What is legal in the configuration and probably not meant."""
    what = f"{path} is in order" if path else "there is no file: everything has its default"
    return [Finding("ok", "configuration", what), *_problems("warning", config.warnings)]


def of_signer(config: Config) -> list[Finding]:
    """The file of keys that signed tokens are checked with: without it aimux does not start."""
    jwt = config.auth.jwt
    if jwt is None or jwt.key_file is None:
        return []
    from aimux.people.keys import NoKeys, read_keys  # brings cryptography

    try:
        read_keys(jwt.key_file)
    except NoKeys as error:
        return [Finding("error", "auth", f"auth.jwt.key_file: {error}", "give a JWKS, or a public key as PEM")]
    return []


async def of_signers_address(config: Config, http: Http) -> list[Finding]:
    """The address of those keys. aimux starts without an answer, and nobody new gets in by such a token."""
    if config.auth.jwt is None or (url := config.auth.jwt.jwks_url) is None:
        return []
    from aimux.people.keys import NoKeys, fetched_keys  # brings cryptography

    try:
        keys = fetched_keys(await http.request("GET", url, headers={"accept": "application/json"}, timeout=5.0))
    except (HttpUnavailable, NoKeys) as error:
        remedy = "open the address here (curl): it has to answer with the signer's JWKS"
        return [Finding("error", "auth", f"auth.jwt.jwks_url: {url}: {error}", remedy)]
    return [Finding("ok", "auth", f"{url} has {len(keys)} key{'s' if len(keys) != 1 else ''}")]


def of_notices(config: Config) -> list[Finding]:
    """Addresses that apprise does not understand; that it is not installed, the configuration's warnings say."""
    if not config.notices.apprise or find_spec("apprise") is None:
        return []
    import apprise  # a second or more

    logging.getLogger("apprise").disabled = True  # it says the same in its own words
    remedy = "write it as https://github.com/caronc/apprise/wiki has it"
    return [
        Finding("error", "notices", f"notices.apprise[{index}]: is no address that apprise understands", remedy)
        for index, url in enumerate(config.notices.apprise)
        if not apprise.Apprise().add(url.get_secret_value())
    ]


def _problems(status: Status, problems: Iterable[Problem]) -> list[Finding]:
    found = []
    for problem in problems:
        place = problem.source + (f":{problem.line}" if problem.line else "")
        message = ": ".join(part for part in (place, problem.where, problem.message) if part)
        found.append(Finding(status, "configuration", message, problem.remedy))
    return found
