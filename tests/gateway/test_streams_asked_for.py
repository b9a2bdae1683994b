"""Whether a body asks for a stream: how long its answer may take hangs on it."""

from __future__ import annotations

import pytest

from aimux.gateway.epoch import asks_for_stream
from aimux.plugin.body import Body

FAR = b"x" * 60_000


@pytest.mark.parametrize(
    ("raw", "asks"),
    [
        (b'{"stream":true,"messages":"%b"}' % FAR, True),
        (b'{"messages":"%b","stream" : true}' % FAR, True),
        (b'{"messages":"%b","stream":true,"metadata":"%b"}' % (FAR, FAR), True),
        (b'{"messages":"%b","stream":true,"tools":"%b"}' % (2 * FAR, b"x" * 1000), True),
        (b'{"messages":"%b","stream":false}' % FAR, False),
        (b'{"stream":false,"messages":"%b"}' % FAR, False),
        (rb'{"messages":"\"stream\":true"}', False),
        (b"", False),
    ],
)
def test_wherever_it_stands(raw: bytes, asks: bool) -> None:
    assert asks_for_stream(Body(raw)) is asks
