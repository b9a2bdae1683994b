"""Which of the targets that a request asks for its caller may use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aimux.gateway.named_models import models_in_target
from aimux.plugin.body import MAX_MODEL
from aimux.plugin.errors import ErrorKind, GatewayError

if TYPE_CHECKING:
    from aimux.gateway.caller import Caller
    from aimux.gateway.handshakes import Handshake
    from aimux.gateway.models import Target
    from aimux.gateway.named_models import NamedModels


def allowed_targets(
    caller: Caller, targets: tuple[Target, ...], provider: str, model: str | None, upgrade: Handshake | None
) -> tuple[Target, ...]:
    """The targets that the caller may use. Raises GatewayError if there are none.

    `provider` is the mount's instance; `model` is what the request asks for: "" where its body names none, None where
    it has no body.
    """
    if upgrade is not None and not caller.may_use(provider, ""):
        # Its models come in messages; over HTTP each request names its own, and clients fall back to that.
        raise GatewayError(
            ErrorKind.UPGRADE_REQUIRED, "Your access is bound to certain models: use HTTP without an upgrade."
        )
    if not caller.may_use(provider, model):
        raise _may_not(
            f"the model {model!r}" if model else "requests that name no model, as your access is bound to some"
        )
    usable = tuple(target for target in targets if caller.may_use(target.route.provider.instance, None))
    if not usable:
        raise GatewayError(
            ErrorKind.FORBIDDEN,
            f"You may not use what serves the model {model!r} here; ask whoever runs aimux.",
            retry=False,
        )
    return usable


def refuse_addressed(caller: Caller, provider: str, target: str) -> None:
    """Raises GatewayError where the address of a request with a body names a model that the caller may not use."""
    for model in models_in_target(target):
        if not caller.may_use(provider, model):
            raise _may_not(f"the model {model[:MAX_MODEL]!r} in the request's address")


def refuse_named(names: NamedModels) -> None:
    """Raises GatewayError where a body names a further model, and the caller may not use it."""
    if names.refused:
        raise _may_not(names.refused)


def _may_not(what: str) -> GatewayError:
    # 400 and not 403: Codex asks again at the latter, and Claude Code's protocol for gateways wants the former.
    return GatewayError(
        ErrorKind.FORBIDDEN, f"You may not use {what}; ask whoever runs aimux.", retry=False, status=400
    )
