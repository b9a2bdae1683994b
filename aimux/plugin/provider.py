"""The base class of a provider: one upstream family's wire facts. Its defaults make a bearer-key API with JSON errors.

Only `name`, `Settings` (with `base_url`) and usually `meter` have to be given. Nothing here does I/O except the methods
that get an `Http`; `prepare`, `classify`, `limits` and `meter` run on the hot path and must not block.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, ClassVar

from multidict import CIMultiDict

from aimux.plugin.documents import load_object
from aimux.plugin.errors import CredentialError, GatewayError, LoginError, RefreshRejected
from aimux.plugin.settings import ProviderSettings
from aimux.plugin.stored import Lists, StoredPage, ids_in_path, lists, part_of_list, read_page, whole_list
from aimux.plugin.types import NO_HINTS, RELAY, Action, Credential, Hints, LimitWindow, RequestHead, Upstream, Verdict

if TYPE_CHECKING:
    import re
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from aimux.plugin.body import Body
    from aimux.plugin.http import Http
    from aimux.plugin.message_meter import MessageMeter
    from aimux.plugin.meters import Meter
    from aimux.plugin.types import Headers, LimitState


@dataclass(frozen=True, slots=True)
class ErrorAnswer:
    """An error in the provider's wire format. The core adds `x-should-retry`, `retry-after` and `x-request-id`.

    `headers` go with it, if the format's clients look for something there.

    `status`: what to answer in place of the error's own, if only then the format's clients do the right thing.
    """

    body: bytes
    content_type: str = "application/json"
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DeviceCode:
    """A started device flow: what the person opens and types, and how often to poll (seconds, kept in 1 to 60)."""

    verification_url: str
    user_code: str
    interval: float
    expires_in: float
    secret: str = field(repr=False)
    """Whatever the provider needs to poll with; opaque to the core."""


class Provider:
    """One upstream family, or one instance of it if the configuration names several (`type:`)."""

    name: ClassVar[str]
    """The plugin's name: the default mount and the key in `providers:`."""
    Settings: ClassVar[type[ProviderSettings]] = ProviderSettings
    credential_file: ClassVar[str] = "credential.json"
    """The file name of an account's credential in the state folder."""
    api_version_path: ClassVar[str] = "/v1"
    """Where the API starts below the mount; only for the hints that are printed."""

    price_list: ClassVar[str] = ""
    """The vendor whose prices apply, as the library genai-prices names it; "": the one that has this `base_url`."""

    def __init__(self, settings: ProviderSettings, *, instance: str | None = None) -> None:
        self.settings = settings
        self.instance = instance or self.name
        """Its name in the configuration; differs from `name` for a second instance."""

    # --- credentials -------------------------------------------------------------------------------------------------

    def parse_credential(self, raw: bytes) -> Credential:
        """Read a credential file in any format the provider knows. Raises CredentialError."""
        key = load_object(raw).get("api_key")
        if not isinstance(key, str) or not key:
            raise CredentialError('expected {"api_key": "…"}')
        return Credential(kind="api_key", secret=key)

    def api_key_file(self, api_key: str) -> bytes:
        """A credential file that holds just this API key."""
        return json.dumps({"api_key": api_key}, indent=2).encode()

    async def refresh(self, raw: bytes, http: Http) -> bytes:
        """Renew: the credential file's new content, in the format it came in, keys that aren't ours kept.

        Raises RefreshRejected (for good: a person must act) or RefreshUnavailable (try again later).
        """
        raise RefreshRejected("this credential can't be renewed")

    key_header: ClassVar[str] = "x-api-key"
    """The request header (lower case) in which the vendor's clients send their key, where that is no bearer. They send
    an aimux token there as well; what is in it does not go upstream."""

    client_advice: ClassVar[str] = ""
    """Where this provider's clients keep an aimux token: a sentence for callers without a valid one."""

    def vendor_token_advice(self, token: str) -> str | None:
        """What to say to a client that sent the vendor's own token instead of an aimux token, else None."""
        return None

    def own_credential(self, headers: Headers) -> Credential | None:
        """The vendor's credential that a client sent with its request, for users who may bring their own.

        None: there is none. It goes through `prepare` like an account's. Raises CredentialError for another vendor's:
        it would be sent to yours.
        """
        scheme, _, secret = headers.get("authorization", "").partition(" ")
        secret = secret.strip() if scheme.lower() == "bearer" else headers.get(self.key_header, "").strip()
        return Credential(kind="api_key", secret=secret) if secret else None

    # --- login -------------------------------------------------------------------------------------------------------

    login_flows: ClassVar[frozenset[str]] = frozenset()
    """Which of `loopback`, `paste`, `device` the provider offers. API keys need no flow."""

    login_words: ClassVar[Mapping[str, str]] = {}
    """What a person does to add an account, in the vendor's words: plain sentences by `browser` (loopback and paste),
    `device`, `setup_token`, `api_key` and `file`. For those left out, aimux has words of its own."""

    def redirect_uri(self, flow: str, port: int) -> str:
        """The redirect URI of a flow; `port` is the loopback listener's."""
        raise LoginError(f"{self.instance} has no OAuth login; use --api-key")

    loopback_ports: ClassVar[tuple[int, ...]] = (0,)
    """Ports to try for the loopback callback; 0 is any free one."""

    def authorization_url(self, *, redirect_uri: str, state: str, challenge: str) -> str:
        """Where the person signs in (PKCE, S256)."""
        raise LoginError(f"{self.instance} has no OAuth login; use --api-key")

    async def exchange(self, http: Http, *, code: str, state: str, verifier: str, redirect_uri: str) -> bytes:
        """Turn the code into a credential file's content. Raises LoginError."""
        raise LoginError(f"{self.instance} has no OAuth login; use --api-key")

    async def device_start(self, http: Http) -> DeviceCode:
        """Start the device flow. Raises LoginError."""
        raise LoginError(f"{self.instance} has no device flow")

    async def device_poll(self, http: Http, device: DeviceCode) -> bytes | None:
        """A credential file's content, or None to be asked again: the person hasn't confirmed yet, or the server can't
        be reached. Raises LoginError, which ends the flow."""
        raise LoginError(f"{self.instance} has no device flow")

    def setup_token_file(self, token: str) -> bytes:
        """A credential file that holds a long-lived token made by the vendor's own CLI. Raises LoginError."""
        raise LoginError(f"{self.instance} has no setup tokens")

    def vendor_logins(self, environ: Mapping[str, str], home: Path) -> list[Path]:
        """Where the vendor's own CLI keeps logins on this machine, most likely first; they need not exist."""
        return []

    # --- model routing ----------------------------------------------------------------------------------------------

    wire_format: str = ""
    """Providers that speak the same one can stand in for each other in `models:` ("": none can for this one)."""

    encoded_slashes: ClassVar[bool] = False
    """Whether a path may hold `%2F`: the ids of its models have slashes, and SDKs encode them."""

    takes_packed: ClassVar[bool] = True
    """Whether the upstream takes compressed bodies of requests (`Content-Encoding`); else these are sent unpacked."""

    def list_models(self, request: RequestHead, answer: bytes, names: Mapping[str, str]) -> bytes | None:
        """The list of models with `names` in it, or one of them that is asked for by itself; None if this is another
        request, or `answer` may pass as it is.

        `names`: names that the configuration adds → the upstream's model that each stands for. `answer` is the
        upstream's own list, or b"" if it gave none. May be called beside the event loop.
        """
        return None

    # --- its clients ------------------------------------------------------------------------------------------------

    def speaks(self, path: str) -> bool:
        """Whether only clients of this provider's format ask for this path: then a client whose base URL is another
        mount's, or none's, is told the right one."""
        return False

    def base_url_advice(self, base: str) -> str:
        """What such a client has to set; `base` is the URL of this provider's mount, without a trailing slash."""
        return f"set the client's base URL to {base}"

    # --- a request ---------------------------------------------------------------------------------------------------

    def prepare(self, request: RequestHead, credential: Credential) -> Upstream:
        """Where this request goes with this credential. Raises RequestRefused if it can't go anywhere.

        Pure, and on the hot path. The core adds the configuration's `headers`; RequestHead says what it drops.
        """
        return Upstream(
            self.settings.base_url,
            request.target,
            {"authorization": f"Bearer {credential.secret}"},
        )

    def model_in_path(self, request: RequestHead) -> str:
        """The model that the path names, where the upstream takes it from there; "": it is in the body. Asked once for
        equal heads.

        `models:` of the configuration does not apply to it: only a body's model is replaced by another.
        """
        return ""

    def conversation_key(self, request: RequestHead, body: Body) -> str | None:
        """A key of the conversation, so that it stays on one account (prompt cache). None: the core's own hash."""
        return None

    echoed_header: ClassVar[str] = ""
    """A response header (lower case) whose value clients send back in a header of that name, so that the upstream goes
    on where it was; "": there is none. It says nothing to another account: a request that goes to one goes without."""

    def hints(self, request: RequestHead) -> Hints:
        """What the client's headers say about the request, for the ledger. Once for all requests with the same head."""
        return NO_HINTS

    def refers_to(self, request: RequestHead, body: Body) -> tuple[str, ...]:
        """Ids of what the upstream keeps and this request names (see `Meter.stored`): one account has such things, and
        they belong to their maker.

        Called if anybody has stored anything, and if an answer says 400 or 404. Raises TooManyReferences.
        """
        return ids_in_path(request.path)

    replayed_ids: ClassVar[str] = ""
    """How ids begin of what clients send again, whole, as soon as they hear that it is not known; "": there are none.
    While its account can't serve, such a request goes to another one, and it is looked for nowhere."""

    def lists(self, request: RequestHead) -> Lists:
        """Whether the answer is a list of what the account keeps, whoever made the items.

        `own`: each user gets those that are known to be theirs, by `read_page` and `part_of_list`. `refused`: nobody
        can tell whose they are, and each user would get everybody's. Called for each GET, unless storage is shared.
        """
        return lists(request)

    def first_page(self, request: RequestHead) -> str:
        """The target of such a list's first page."""
        return whole_list(request.target)

    def read_page(self, target: str, answer: bytes) -> StoredPage | None:
        """What the answer to `target` lists; None: it is not a list, and may pass as it came. May be called beside the
        event loop."""
        return read_page(target, answer)

    def part_of_list(self, request: RequestHead, answer: bytes, items: list[Any]) -> bytes:
        """The answer to `request` if `items` are all there are, in the form of one of the upstream's pages."""
        return part_of_list(request.target, answer, items)

    def own_addresses(self, request: RequestHead) -> re.Pattern[bytes] | None:
        """Finds what precedes the path in addresses in an answer's JSON that clients ask next with their aimux token
        (such as where a batch's results are). The core removes it, so that they ask aimux. None: there are none in this
        answer. Called for each GET."""
        return None

    def cheapest_request(self, credential: Credential) -> tuple[RequestHead, bytes]:
        """The cheapest real call that shows whether the account serves, as a client would send it, and its body.

        `aimux accounts test` sends it through `prepare`; a status below 400 means that the account works. The core also
        sends it before it parks an account for a 401, which may be about one request only. So name a request that needs
        the credential and, if the vendor has scopes, one that every credential may send.
        """
        return RequestHead("GET", "/v1/models", CIMultiDict()), b""

    # --- an answer ---------------------------------------------------------------------------------------------------

    def classify(self, status: int, headers: Headers, body: bytes, *, model: str = "") -> Verdict:
        """What an answer of 400 and above means. `body` is its decoded start (at most 64 KiB).

        `model` is what the request named ("" if nothing), for limits that hold for one model: see `Verdict.model`. An
        answer that is not in the vendor's own error format (such as a proxy's page) is a back-off: it says nothing
        about the account. Decide on codes, or on whole messages: upstreams quote what a client sent, and no client may
        park an account with words of its own.
        """
        if status in {401, 403} and not is_object(body):
            return Verdict(Action.BACK_OFF, f"{status} without a reason: something in between refuses")
        if status == 401:
            return Verdict(Action.REFRESH, "the upstream did not accept the credential")
        if status == 429:
            wait = retry_after(headers)
            if wait is None:
                return Verdict(Action.BACK_OFF, "rate limited, and nothing says until when")
            return Verdict(Action.COOL_DOWN, "rate limited", until=time.time() + wait)
        if status in {500, 502, 503, 504, 529}:
            return Verdict(Action.BACK_OFF, f"the upstream answered {status}")
        return RELAY

    def explained(self, status: int, body: bytes) -> bytes | None:
        """An upstream's error in a form that clients show, if they show nothing of its own; None: as it came."""
        return None

    def opening(self, headers: Headers, payload: bytes, *, model: str = "") -> Verdict | None:
        """Look at the start of a streamed 200 answer, before a byte of it was forwarded. `model` as in `classify`.

        None: not decided yet, more is needed. RELAY: content follows. Anything else: it is an error disguised as a 200.
        """
        return RELAY

    def limits(self, headers: Headers) -> tuple[LimitWindow, ...]:
        """The account's limit windows in this answer's headers; empty if there are none."""
        return ()

    def extra_usage(self, headers: Headers) -> bool:
        """Whether this answer was paid for beyond what the account includes. Asked while a window with a scope is used
        up: callers who may not use paid extra usage are refused the model of such an answer until the window begins
        anew."""
        return False

    hidden_headers: ClassVar[frozenset[str]] = frozenset()
    """Response headers (lower case) that would reveal the account and therefore do not reach the client."""

    def meter(self, request: RequestHead, status: int, headers: Headers) -> Meter | None:
        """A meter for this answer, or None if it consumes nothing."""
        return None

    # --- a WebSocket -------------------------------------------------------------------------------------------------

    def websocket(self, request: RequestHead) -> bool:
        """Whether the upstream speaks WebSocket at this path too; elsewhere an upgrade is answered with 426.

        The handshake goes through `prepare`, `classify` and `limits` like any request, and its account serves the
        socket to its end. Only the meter reads the messages.
        """
        return False

    def websocket_meter(self, request: RequestHead) -> MessageMeter | None:
        """A meter for a socket's messages. None: nothing is metered, and it is unknown when no turn is under way."""
        return None

    # --- aimux's own limits ------------------------------------------------------------------------------------------

    def counts(self, request: RequestHead) -> bool:
        """Whether limits count a request, because it may consume something. Asked once for equal heads."""
        return not request.makes_nothing

    limit_header_prefix: str = ""
    """The prefix (lower case) of the response headers that report an account's limits ("": there are none). For a
    caller who has limits or a share of their own, `limit_headers` replaces them."""

    def limit_headers(self, limits: Sequence[LimitState], windows: Sequence[LimitWindow]) -> Mapping[str, str]:
        """What an answer tells a caller about their own limits, and, if the account is shared, about their share of
        each of its windows. There is at least one limit or window; names are in lower case."""
        return {}

    def limit_event(self, limits: Sequence[LimitState], windows: Sequence[LimitWindow]) -> bytes:
        """The same in the form of the WebSocket message by which the vendor reports limits: it replaces each message in
        which `websocket_meter` has found any. Empty: there is none, and that message goes on."""
        return b""

    def asks_usage(self, request: RequestHead) -> bool:
        """Whether a request asks how much of the client's limits is used. Asked once for equal heads."""
        return False

    def usage(self, limits: Sequence[LimitState], windows: Sequence[LimitWindow]) -> bytes:
        """The answer to it, as JSON: the caller's own limits, and by name the windows of all accounts that they may
        use, taken together."""
        return b"{}"

    # --- aimux's own errors ------------------------------------------------------------------------------------------

    def error(self, error: GatewayError) -> ErrorAnswer:
        """An error of aimux's own in this provider's wire format. A `LimitReached` says which limit, and until when."""
        return ErrorAnswer(json.dumps({"error": {"type": error.kind.name.lower(), "message": error.message}}).encode())

    def stream_error(self, error: GatewayError, request: RequestHead) -> bytes:
        """The same inside a stream that has already begun: the protocol's error event, as bytes. Empty: there is none.

        `request` shows which protocol, if the provider speaks several.
        """
        return b""

    def websocket_error(self, error: GatewayError, request: RequestHead) -> bytes:
        """The same as a text message on an open WebSocket. Empty: there is none, only the close frame."""
        return b""


def is_object(body: bytes) -> bool:
    """Whether an answer's body is a JSON object, as an API's errors are and a proxy's page is not."""
    try:
        return isinstance(json.loads(body), dict)
    except (ValueError, RecursionError):
        return False


def retry_after(headers: Headers) -> float | None:
    """Seconds from `retry-after-ms` or `retry-after` (number or date); None without a usable one."""
    try:
        if (ms := headers.get("retry-after-ms")) is not None:
            wait = float(ms) / 1000
        elif (value := headers.get("retry-after")) is None:
            return None
        elif value.strip().replace(".", "", 1).isdigit():
            wait = float(value)
        else:
            wait = parsedate_to_datetime(value).timestamp() - time.time()
    except (ValueError, OverflowError):
        return None
    return max(0.0, wait) if math.isfinite(wait) else None
