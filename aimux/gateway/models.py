"""Model routing: which provider or account serves a model, and under which name it is asked for there."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from aimux.config import pattern_kind
from aimux.gateway.large_bodies import Large
from aimux.gateway.route import Route  # noqa: TC001 - compiled, a dataclass's annotations are looked up
from aimux.plugin.body import Body
from aimux.plugin.errors import ErrorKind, GatewayError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from aimux.config import ModelTarget

REMEMBERED = 1024


@dataclass(frozen=True, slots=True)
class Target:
    """One way to serve a request. `account` and `model` None: whichever, and the client's own."""

    route: Route
    account: str | None = None
    model: str | None = None


class ModelRoutes:
    """`models:` of the configuration. An exact name wins over the longest prefix, and that over expressions."""

    def __init__(self, models: Mapping[str, Sequence[ModelTarget]], routes: Mapping[str, Route]) -> None:
        """`models` as in the configuration, with each entry's targets in order of priority."""
        self._routes = routes
        self._exact = {name: targets for name, targets in models.items() if pattern_kind(name) == "exact"}
        prefixes = ((name[:-1], targets) for name, targets in models.items() if pattern_kind(name) == "prefix")
        self._prefixes = sorted(prefixes, key=lambda entry: -len(entry[0]))
        self._expressions = [
            (re.compile(name[1:-1]), targets) for name, targets in models.items() if pattern_kind(name) == "regex"
        ]
        self._default = models.get("default", ())
        self.empty = not models
        self.targets = lru_cache(maxsize=REMEMBERED)(self._targets)
        self._every = [target for targets in models.values() for target in targets]

    def _targets(self, model: str, mounted: str) -> tuple[Target, ...]:
        """What to try for this model at the mount of the provider `mounted`, in order; never empty.

        A target that speaks another wire format than the mount can't serve its clients and is passed over.
        """
        own = self._routes[mounted]
        if not self.empty:
            targets = tuple(
                Target(route, target.account_name, None if target.model == model else target.model)
                for target in self._match(model)
                if (route := self._routes[target.instance]) is own
                or (route.provider.wire_format and route.provider.wire_format == own.provider.wire_format)
            )
            if targets:
                return targets
        return (Target(own),)

    def decide(self, mounted: str) -> bool:
        """Whether anything here depends on the model of a request to this mount."""
        own = self._routes[mounted]
        form = own.provider.wire_format
        for target in self._every:
            route = self._routes[target.instance]
            if target.account_name or target.model if route is own else form and route.provider.wire_format == form:
                return True
        return False

    def _match(self, model: str) -> Sequence[ModelTarget]:
        if found := self._exact.get(model):
            return found
        for prefix, targets in self._prefixes:
            if model.startswith(prefix):
                return targets
        for expression, targets in self._expressions:
            if expression.fullmatch(model):
                return targets
        return self._default

    def names(self, mounted: str) -> dict[str, str]:
        """The exact names that are routed somewhere from this mount, for its list of models → the model that is asked
        for first."""
        own = Target(self._routes[mounted])
        found = {name: self._targets(name, mounted) for name in self._exact}
        return {name: targets[0].model or name for name, targets in found.items() if targets != (own,)}


def rewrite_model(body: Body, model: str) -> Body:
    """The same body asking for `model`. Every other byte stays; a compressed body is sent decompressed.

    A body that names no model is returned as it is. Only what this needs is checked: whatever else is wrong with the
    JSON is left for the upstream to report. Raises GatewayError where a model is named that can't be replaced: it would
    be asked for instead.
    """
    if isinstance(body, Large):
        written = (model if body.text_model else json.dumps(model)).encode()
        pieces, position = [], 0
        for start, end in body.spans:
            pieces += [body.raw[position:start], written]
            position = end
        return Body(b"".join([*pieces, body.raw[position:]])) if body.spans else body
    raw = body.decoded()
    text = raw.decode("utf-8", "surrogateescape") if raw is not None else ""
    spans = _model_spans(text)
    if not spans and body.routed_model:
        message = (
            f"{body.routed_model!r} stands for another model here, and can't be replaced in a body that is no JSON."
        )
        raise GatewayError(ErrorKind.BAD_REQUEST, message, retry=False)
    for start, end in reversed(spans):
        text = text[:start] + json.dumps(model) + text[end:]
    return Body(text.encode("utf-8", "surrogateescape")) if spans else body


_SPACE = re.compile(r"[ \t\n\r]*")
_decoder = json.JSONDecoder()


def _model_spans(text: str) -> list[tuple[int, int]]:
    """Where the values of the top-level object's `model` keys stand (a repeated key is legal JSON)."""
    spans = []

    def skip(position: int) -> int:
        match = _SPACE.match(text, position)
        assert match is not None
        return match.end()

    try:
        position = skip(0)
        if text[position] != "{":
            return []
        position = skip(position + 1)
        while text[position] != "}":
            key, position = _decoder.raw_decode(text, position)
            start = skip(skip(position) + 1)  # over the colon
            _, position = _decoder.raw_decode(text, start)
            if key == "model":
                spans.append((start, position))
            position = skip(position)
            if text[position] == ",":
                position = skip(position + 1)
    except (ValueError, IndexError, RecursionError):
        return []
    return spans
