"""aiohttp's client, for what aimux asks by itself: renewals, logins, keys, webhooks.

Import it in a thread, when it is needed first: it takes 0.1 s and 14 MB, which a start does without.
"""

from __future__ import annotations

import ssl
from typing import Any

import aiohttp

from aimux.http.head_reader import MAX_INTERIM
from aimux.http.tls import trusting

_TRUST = trusting()  # with the import, and its thread: it reads hundreds of certificates


class _Answer(aiohttp.ClientResponse):
    """aiohttp reads any number of interim answers: a server that sent nothing else had the event loop for itself."""

    async def start(self, connection: Any) -> aiohttp.ClientResponse:
        protocol, seen = connection.protocol, 0
        read = protocol.read

        async def counted() -> Any:
            nonlocal seen
            message = await read()
            seen += 100 <= message[0].code < 200
            if seen > MAX_INTERIM:
                raise aiohttp.ClientResponseError(self.request_info, self.history)
            return message

        protocol.read = counted
        try:
            return await super().start(connection)
        finally:
            del protocol.read


def open_session() -> aiohttp.ClientSession:
    """It keeps no cookie."""
    connector = aiohttp.TCPConnector(ssl=_TRUST)
    return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar(), response_class=_Answer)


def what_failed(error: Exception, timeout: float) -> str:
    """Why there is no answer, in words that follow the host's name. `timeout`: what the request had."""
    match error:
        case TimeoutError():
            return f"did not answer within {timeout:g} s"
        case aiohttp.ClientConnectorCertificateError():
            return f"has a certificate that can't be trusted ({error.certificate_error})"
        case aiohttp.ClientConnectorDNSError():
            return "can't be found (DNS)"
        case aiohttp.ClientProxyConnectionError():
            return "can't be reached through the proxy"
        case aiohttp.ClientHttpProxyError():
            return f"can't be reached: the proxy answered {error.status}"
        case aiohttp.ClientSSLError() | ssl.SSLError():
            return "can't be spoken to over TLS"
        case aiohttp.ClientConnectorError() | aiohttp.ClientOSError():
            return f"can't be reached ({error.strerror or 'no connection'})"
        case aiohttp.ClientResponseError():
            return "gave an answer that is not valid HTTP"
        case aiohttp.InvalidURL():
            return "is in a URL that is not valid"
        case _:
            return f"broke the connection off ({type(error).__name__})"
