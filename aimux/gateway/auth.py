"""Who may call: one SHA-256 and one dictionary look-up, however many users there are."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

from aimux.gateway.caller import Caller
from aimux.gateway.client_address import TrustedProxies, from_foreign_page
from aimux.gateway.cors import Cors
from aimux.gateway.guesses import Guesses, NotLookedAt
from aimux.people import Access, Denied
from aimux.people.tokens import PREFIX, digest, form
from aimux.plugin.errors import CredentialError, ErrorKind, GatewayError
from aimux.redaction import mask_error

if TYPE_CHECKING:
    from aimux.people import Directory
    from aimux.people.signed import Signed
    from aimux.plugin.provider import Provider
    from aimux.plugin.types import Headers

SHORTEST_SECRET = 16
"""An anonymous caller's key of at least this many characters may be a secret. Shorter ones (`1`, `dummy`) are given to
clients that insist on a key, and would be found in headers that have nothing to do with them."""
OWN_HEADER = "x-aimux-token"
"""Holds the aimux token when `Authorization` holds a credential of the vendor's."""


def presented_tokens(headers: Headers, key_header: str) -> list[str]:
    """The bearer token, the `x-api-key` and what is in the provider's own header, each once: SDKs may send several.

    If there is an `x-aimux-token`, it is the only one: the other headers then hold the vendor's credential.
    """
    if token := _alone(headers.get(OWN_HEADER, "")):
        return [token]
    tokens = []
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and (token := _alone(token)):
        tokens.append(token)
    for name in ("x-api-key", key_header):
        if (key := _alone(headers.get(name, ""))) and key not in tokens:
            tokens.append(key)
    return tokens


def _alone(value: str) -> str:
    """Other gateways want `Bearer` before the key in such headers, and people write it before what a client puts it to
    by itself."""
    value = value.strip()
    return value[7:].lstrip() if value[:7].lower() == "bearer " else value


class Authentication:
    """Who may call in one epoch, and what everybody else is told."""

    def __init__(
        self,
        directory: Directory,
        *,
        allow_anonymous: bool,
        proxies: TrustedProxies | None = None,
        cors: Cors | None = None,
        guesses: Guesses | None = None,
        signed: Signed | None = None,
    ) -> None:
        self._directory = directory
        self._signed = signed
        self._allow_anonymous = allow_anonymous
        self.proxies = proxies or TrustedProxies()
        self._cors = cors or Cors()
        self.guesses = guesses if guesses is not None else Guesses()

    def with_people(self, directory: Directory, signed: Signed | None) -> Authentication:
        """The same for other people."""
        return Authentication(
            directory,
            allow_anonymous=self._allow_anonymous,
            proxies=self.proxies,
            cors=self._cors,
            guesses=self.guesses,
            signed=signed,
        )

    @property
    def nobody(self) -> bool:
        """There are no users and never were, and no signed tokens either."""
        return self._directory.empty and self._signed is None

    def find(self, token: str) -> Access | Denied:
        """Look a token up, without telling its sender anything."""
        sha256, now = digest(token), int(time.time() * 1000)
        found = self._directory.find(sha256, now)
        if found is Denied.UNKNOWN and self._signed is not None:
            return self._signed.find(token, sha256, self._directory, now)
        return found

    def authenticate(self, headers: Headers, peer: str, provider: Provider, now: float, *, reached: str = "") -> Caller:
        """The caller. GatewayError: 401 where there are users, 403 for strangers without and for those who may not use
        this provider. NotLookedAt behind many wrong tokens. `now` is the monotonic clock's, `reached` the address of
        this machine that was asked."""
        tokens = presented_tokens(headers, provider.key_header)
        if self.nobody:
            return self._anonymous(headers, peer, reached, tokens)
        address, shown = self.proxies.address(headers, peer), digest("\n".join(tokens))
        looked = bool(tokens) and self._look(tokens, address, shown, provider, now)
        denied: tuple[Denied, str] | None = None
        for token in tokens:
            found = self.find(token)
            if isinstance(found, Access):
                self.guesses.right(address, shown, looked=looked)
                caller = Caller(found, token.encode("utf-8", "surrogateescape"))
                if not caller.may_use(provider.instance, None):
                    raise _out_of_reach(provider)
                return self._with_own(caller, headers, provider) if OWN_HEADER in headers else caller
            if denied is None or denied[0] is Denied.UNKNOWN:
                denied = found, token
        if tokens:
            self.guesses.wrong(address, shown)
        if denied is not None and denied[0] is not Denied.UNKNOWN:
            raise _refusal(denied[0], provider)
        raise GatewayError(ErrorKind.UNAUTHORIZED, _advice(tokens, provider), retry=False)

    def _look(self, tokens: list[str], address: str, shown: bytes, provider: Provider, now: float) -> bool:
        """Count what may be a guess; False: it is not one. Raises NotLookedAt, and the 401 for a vendor's own token,
        which is the same whether or not it was looked at."""
        if self.guesses.knows(address, shown) or any(form(token) == "whole" for token in tokens):
            return False  # aimux's own tokens can't be guessed (2^256), and a right one should not wait
        try:
            self.guesses.look(address, now)
            return True
        except NotLookedAt:
            advice = next(filter(None, map(provider.vendor_token_advice, tokens)), None)
            if advice is None and not all(form(token) == "mistyped" for token in tokens):
                raise
            raise GatewayError(ErrorKind.UNAUTHORIZED, _advice(tokens, provider), retry=False) from None

    def _with_own(self, caller: Caller, headers: Headers, provider: Provider) -> Caller:
        """The caller, with the vendor's credential that was sent beside the aimux token. GatewayError 400, 403."""
        try:
            own = provider.own_credential(headers)
        except CredentialError as error:
            sent = headers.get("authorization", "")
            mask_error(error, sent, sent.partition(" ")[2].strip(), headers.get(provider.key_header, ""))
            message = f"What you sent beside `{OWN_HEADER}` can't be used with {provider.instance}: it {error}."
            raise GatewayError(ErrorKind.BAD_REQUEST, message, retry=False) from None
        # An aimux token in that place is not the vendor's, whosever it is, and must not be sent there.
        if own is None or form(own.secret) != "foreign" or self.find(own.secret) is not Denied.UNKNOWN:
            return caller
        if caller.access is None or not caller.access.own_login:
            message = f"You may not use a {provider.instance} login of your own here: leave it out, or `{OWN_HEADER}`."
            raise GatewayError(ErrorKind.FORBIDDEN, message, retry=False)
        return Caller(caller.access, caller.token, own)

    def objection(
        self, caller: Caller, headers: Headers, peer: str, provider: Provider, *, reached: str = ""
    ) -> GatewayError | None:
        """Why somebody who was let in before may not go on; None where they may."""
        if caller.access is None:
            if self.nobody and self._serves_anyone(headers, peer, reached):
                return None
            return GatewayError(ErrorKind.UNAUTHORIZED, f"aimux has users now. {_nothing_sent(provider)}", retry=False)
        found = self.find(caller.token.decode("utf-8", "surrogateescape"))
        if found is Denied.UNKNOWN:
            return GatewayError(ErrorKind.UNAUTHORIZED, ENDED, retry=False)
        if isinstance(found, Denied):
            return _refusal(found, provider)
        now = Caller(found, caller.token, caller.own)
        return None if now.may_use(provider.instance, None) else _out_of_reach(provider)

    def _anonymous(self, headers: Headers, peer: str, reached: str, tokens: list[str]) -> Caller:
        if self._serves_anyone(headers, peer, reached):
            secrets = [token for token in tokens if len(token) >= SHORTEST_SECRET]
            return Caller(None, secrets[0].encode("utf-8", "surrogateescape") if secrets else b"")
        raise GatewayError(
            ErrorKind.FORBIDDEN,
            "This aimux has no users, so it only serves its own machine. Whoever runs it can add you by "
            "`aimux users add NAME` and `aimux tokens issue --user NAME`, or set `allow_anonymous: true`.",
            retry=False,
        )

    def _serves_anyone(self, headers: Headers, peer: str, reached: str) -> bool:
        if self._allow_anonymous:
            return True
        foreign = from_foreign_page(headers) and not self._cors.names(headers)
        return not foreign and self.proxies.is_here(headers, peer, reached)


_PLACEHOLDER = re.compile(
    r"\$\w+|\$?\{[^\x22]*\}|%\w+%|<.*>|undefined|null|none|\[object object\]", re.IGNORECASE | re.DOTALL
)
ENDED = "Your access to aimux has ended; ask whoever runs it."


def _nothing_sent(provider: Provider) -> str:
    return (
        "aimux needs a token: send `Authorization: Bearer <your aimux token>` or"
        f" `{provider.key_header}: <your aimux token>`."
    )


_DENIED = {
    Denied.UNKNOWN: "This token is not known to aimux; ask whoever runs it for one, or check for a typing error.",
    Denied.REVOKED: "This token was revoked; ask whoever runs aimux for another one.",
    Denied.EXPIRED: "This token has expired; ask whoever runs aimux for another one.",
    Denied.DISABLED: "Your user is disabled in aimux; ask whoever runs it.",
    Denied.EARLY: "This token is not valid yet: the clock of whoever signed it may be wrong.",
    Denied.FOREIGN: "This token was signed for something else than this aimux, or lacks a claim: its log says which.",
    Denied.BARRED: "This token was revoked; ask whoever runs aimux for another one.",
    Denied.PENDING: "The key that this token was signed with is being asked for; try again in a moment.",
}


def _refusal(denied: Denied, provider: Provider) -> GatewayError:
    if denied is Denied.PENDING:
        return GatewayError(ErrorKind.UNAVAILABLE, _DENIED[denied], retry_after=5)
    kind = ErrorKind.FORBIDDEN if denied in {Denied.DISABLED, Denied.BARRED} else ErrorKind.UNAUTHORIZED
    where = provider.client_advice if kind is ErrorKind.UNAUTHORIZED else ""
    return GatewayError(kind, f"{_DENIED[denied]} {where}".rstrip(), retry=False)


def _out_of_reach(provider: Provider) -> GatewayError:
    return GatewayError(
        ErrorKind.FORBIDDEN,
        f"You may not use {provider.instance} here; ask whoever runs aimux.",
        retry=False,
    )


def _advice(tokens: list[str], provider: Provider) -> str:
    """What to tell a caller whose tokens are all unknown."""
    for token in tokens:
        if advice := provider.vendor_token_advice(token):
            return advice
    if any(PREFIX in token and form(token) != "whole" for token in tokens):
        advice = (
            "This token has a typing error, is cut short or has something around it, quotation marks say (its checksum"
            " does not fit): copy it again, the whole of it and nothing else."
        )
    elif any(_PLACEHOLDER.fullmatch(token) for token in tokens):
        advice = (
            "The client sent no token, but what stands for one (a variable like `${…}` that it did not fill in, or a"
            " placeholder): set that variable where the client runs, or write the token itself."
        )
    else:
        advice = _DENIED[Denied.UNKNOWN] if tokens else _nothing_sent(provider)
    return f"{advice} {provider.client_advice}".rstrip()
