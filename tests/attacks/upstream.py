"""The upstream of a victim: `python -m tests.attacks.upstream`. Answers at once, and takes whatever a WebSocket brings.

In a process of its own, so that it is not what an honest client waits for. It prints its port.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import sys

ANSWER = b'{"type":"message","content":[{"type":"text","text":"hi"}],"usage":{"input_tokens":1,"output_tokens":1}}'
HTTP = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(ANSWER), ANSWER)
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n"


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            if key := re.search(rb"\r\nsec-websocket-key: *(\S+)", head, re.IGNORECASE):
                accept = hashlib.sha1(key[1] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
                writer.write(SWITCH + b"sec-websocket-accept: %b\r\n\r\n" % base64.b64encode(accept))
                while await reader.read(1 << 20):
                    pass
                break
            length = re.search(rb"\r\ncontent-length: *(\d+)", head, re.IGNORECASE)
            left = int(length[1]) if length else 0
            while left:
                left -= len(await reader.readexactly(min(left, 1 << 16)))
            writer.write(HTTP)
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    writer.transport.abort()


async def main() -> None:
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
