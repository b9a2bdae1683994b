"""Which of the targets that a request asks for its caller may use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aimux.plugin.body import MAX_MODEL
from aimux.plugin.errors import ErrorKind, GatewayError

if TYPE_CHECKING:
    from collections.abc import Collection

    from aimux.gateway.caller import Caller
    from aimux.gateway.handshakes import Handshake
    from aimux.gateway.models import Target
    from aimux.plugin.body import Body

_SUBSTITUTES = ("fallbacks", "models")
"""Anthropic's, and OpenRouter's and its like."""


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


def refuse_substitutes(caller: Caller, provider: str, body: Body, cut: Collection[str]) -> None:
    """Raises GatewayError where a body names further models, to be taken in place of the first, and the caller may not
    use one of them. `cut`: members of which only the beginning is there."""
    if caller.may_use(provider, ""):
        return
    raw = body.raw
    if not body.encoding and b"\\u00" not in raw and not any(b'"%b"' % name.encode() in raw for name in _SUBSTITUTES):
        return
    document = body.json()
    for name in _SUBSTITUTES:
        if not isinstance(listed := document.get(name), list):
            continue
        if name in cut:
            raise _may_not(f"so long a list of {name}, as your access is bound to some models")
        for one in listed:
            model = one.get("model") if isinstance(one, dict) else one
            if not isinstance(model, str) or len(model) > MAX_MODEL:
                raise _may_not(f"such a list of {name}")
            if not caller.may_use(provider, model):
                raise _may_not(f"the model {model!r} in {name}")


def _may_not(what: str) -> GatewayError:
    # 400 and not 403: Codex asks again at the latter, and Claude Code's protocol for gateways wants the former.
    return GatewayError(
        ErrorKind.FORBIDDEN, f"You may not use {what}; ask whoever runs aimux.", retry=False, status=400
    )
