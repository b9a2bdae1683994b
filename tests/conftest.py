"""For all tests."""

from __future__ import annotations

import signal

from tests.postgresql import database_url, postgresql, postgresql_url

__all__ = ["database_url", "postgresql", "postgresql_url"]

# A shell that starts the suite in the background has Ctrl-C ignored, and so would have the programs under test.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
