"""What the simulator serves outside its parts: `/` lists these, for whoever opens it in a browser."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from aimux.simulator.answers import SimulatedAnswer, html_answer, json_answer
from aimux.simulator.scenarios import HEADER, NAMES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aimux.simulator.answers import Call


class Index:
    """The front page; 404 for the rest."""

    def __init__(self, parts: Iterable[str]) -> None:
        self._parts = tuple(parts)

    def authenticate(self, call: Call) -> SimulatedAnswer | None:
        """Anyone may look."""
        return None

    def fault(self, call: Call, status: int) -> SimulatedAnswer:
        return json_answer(status, {"error": {"message": f"Simulated error {status}"}})

    def respond(self, call: Call) -> SimulatedAnswer:
        if call.path != "/":
            return json_answer(404, {"error": {"message": f"The simulator has nothing at {call.path}"}})
        parts = "".join(f"<li><code>{html.escape(f'{call.origin}/{part}')}</code></li>" for part in self._parts)
        names = ", ".join(f"<code>{name}</code>" for name in NAMES)
        return html_answer(
            200,
            "aimux’s simulator",
            f"<p>No model is behind these addresses:</p><ul>{parts}</ul>"
            f"<p>The request header <code>{HEADER}</code> takes {names} and HTTP statuses.</p>",
        )
