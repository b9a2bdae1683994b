"""aimux that hands each record on when it is over, and not behind all answers of that round of the event loop: what it
does with a record is counted as a part of the request. `python -m bench.at_once serve …`."""

from __future__ import annotations

from aimux.__main__ import main
from aimux.app.app import App

_start = App.start


async def _start_so(self: App, *, listen: bool = True) -> None:
    await _start(self, listen=listen)
    self.records.soon = None


if __name__ == "__main__":
    App.start = _start_so  # type: ignore[method-assign]
    main()
