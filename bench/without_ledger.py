"""aimux that writes no request down, to measure what the ledger costs: `python -m bench.without_ledger serve …`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aimux.__main__ import main
from aimux.metering.ledger import Ledger

if TYPE_CHECKING:
    from aimux.metering.record import RequestRecord


def _leave(self: Ledger, record: RequestRecord) -> None:
    pass


if __name__ == "__main__":
    Ledger.record = _leave  # type: ignore[method-assign]
    main()
