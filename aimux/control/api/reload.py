"""The operation on the configuration of the running server."""

# ruff: noqa: TC001 - the table reads the annotations

from __future__ import annotations

from pydantic import Field

from aimux.config import ConfigError
from aimux.control.api.body import Body
from aimux.control.api.operations import Table
from aimux.control.api.parts import Parts
from aimux.control.api.problems import Fault, Refused
from aimux.control.principal import Principal

operation = Table()


class Reloaded(Body):
    """The configuration that was taken."""

    warnings: list[str] = Field(description="What is legal there and probably not meant.")
    after_restart: list[str] = Field(description="Settings that changed, and take a restart.")


@operation("POST", "/reload", "Reload the configuration", errors=(409, 422))
async def reload_configuration(parts: Parts, caller: Principal) -> Reloaded:
    """A bad configuration changes nothing, and each of its problems is listed."""
    if parts.reload is None:
        raise Refused(409, "no-server", "There is no running server here to reload.")
    try:
        result = await parts.reload()
    except ConfigError as error:
        faults = [Fault(where=problem.where, message=str(problem)) for problem in error.problems]
        detail = "The new configuration is refused, the old one stays."
        raise Refused(422, "configuration", detail, errors=faults) from None
    await parts.note(caller, "config.reload", "config")
    return Reloaded(warnings=result.warnings, after_restart=result.after_restart)
