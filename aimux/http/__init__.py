"""HTTP/1.1 heads and framing, the WebSocket codec, TLS: bytes of either side."""
