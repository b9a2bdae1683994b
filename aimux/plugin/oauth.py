"""What OAuth providers share: token requests with their failures sorted, times as credential files write them, JWTs."""

from __future__ import annotations

import base64
import binascii
import json
import re
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from multidict import CIMultiDict
from pydantic import SecretStr

from aimux.plugin.errors import CredentialError, LoginError, RefreshRejected, RefreshUnavailable
from aimux.plugin.http import HttpUnavailable
from aimux.plugin.provider import DeviceCode, retry_after
from aimux.plugin.reading import number

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aimux.plugin.http import Http, HttpAnswer

T = TypeVar("T")

PERMANENT = frozenset({"invalid_grant"})
"""RFC 6749's word for a refresh token that is revoked, expired or used up."""

_IN_BETWEEN = "something in between refuses (a proxy, or Cloudflare asking whether it is a person)"

RENEWAL_SECONDS = 50.0
"""How long a renewal waits for its answer: the old refresh token may be dead by then, and the new one is in the answer.
With `drain_timeout` it is less than the 90 s that systemd and the files in deploy/ give a stop."""

LONGEST_TOKEN = 16 * 1024
"""Characters of a token that goes into a header: no server takes one that is longer."""

_CODE = re.compile(r"[a-z][a-z_]{2,47}")
_MOVED = frozenset({301, 302, 303, 307, 308, 404, 405, 410})
_MILLISECONDS = 1e11  # as seconds: the year 5138; as milliseconds: 1973


def _from_in_between(answer: HttpAnswer) -> bool:
    """Whether a request was refused by something else than the token endpoint, whose errors are JSON objects."""
    return 400 <= answer.status < 500 and not answer.json()


def error_code(answer: HttpAnswer) -> str:
    """The error code in a token endpoint's answer, or "".

    Only what looks like a code is returned, because it goes into messages and logs, and a server may quote the token.
    """
    body = answer.json()
    error = body.get("error")
    found = [error] if not isinstance(error, dict) else [error.get("code"), error.get("type")]
    for code in (*found, body.get("code")):
        if isinstance(code, str) and _CODE.fullmatch(code):
            return code
    return ""


def _detail(answer: HttpAnswer) -> str:
    """The `error_description` where it is a code itself, as Anthropic's `account_on_hold` is; "" for one in words."""
    said = answer.json().get("error_description")
    return said if isinstance(said, str) and "_" in said and _CODE.fullmatch(said) else ""


def _told(answer: HttpAnswer) -> str:
    codes = ": ".join(filter(None, (error_code(answer), _detail(answer))))
    return f"the token endpoint answered {answer.status}" + (f" ({codes})" if codes else "")


async def renew(
    http: Http,
    url: str,
    *,
    instance: str,
    setting: str = "token_url",
    json: object = None,
    form: Mapping[str, str] | None = None,
    permanent: frozenset[str] = PERMANENT,
    permanent_statuses: frozenset[int] = frozenset(),
    remedies: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """Ask a token endpoint for a new access token: its answer, with a non-empty `access_token` in it.

    `instance` is `Provider.instance` and `setting` the provider's setting that holds `url`, for what people are told.
    Raises RefreshRejected for the codes in `permanent` and the statuses in `permanent_statuses` (if the body is a JSON
    object, as only the authorization server's own is), RefreshUnavailable for everything else. `remedies`: codes, and
    descriptions that are codes, which are as permanent, and for which something else helps than a new login. If the
    server says that it can't grant the scope, the request is sent once more without `scope`.
    """
    where = f"providers.{instance}.{setting}"
    try:
        answer = await http.request("POST", url, json=json, form=form, timeout=RENEWAL_SECONDS)
        if error_code(answer) == "invalid_scope" and "scope" in {**_fields(json), **(form or {})}:
            answer = await http.request(
                "POST", url, json=_unscoped(json), form=_unscoped(form), timeout=RENEWAL_SECONDS
            )
    except HttpUnavailable as error:
        raise RefreshUnavailable(str(error), remedy="check the network and the DNS of this machine") from None
    code = error_code(answer)
    told, other = _told(answer), remedies.get(_detail(answer)) or remedies.get(code)
    if answer.status in _MOVED:
        raise RefreshUnavailable(told, remedy=f"the endpoint seems to have moved: set `{where}` to the new address")
    if other or code in permanent or (answer.status in permanent_statuses and answer.json()):
        remedy = other or f"log in again: aimux login {instance}"
        raise RefreshRejected(f"the refresh token was refused: {told}", remedy=remedy)
    if answer.status != 200:
        remedy = "it is tried again"
        if _from_in_between(answer):
            told, remedy = f"{told}, and not in its own words", f"{_IN_BETWEEN}; `{where}` can name another address"
        if code in {"invalid_client", "unauthorized_client"}:
            remedy = f"check the `client_id` beside `{where}`"
        raise RefreshUnavailable(told, remedy=remedy, retry_after=retry_after(CIMultiDict(answer.headers)))
    data = answer.json()
    if not _usable(data.get("access_token")):
        kept = data.get("refresh_token")
        held = "an access token that can't be in a header" if data.get("access_token") else "no access token"
        raise RefreshUnavailable(
            f"the token endpoint's answer holds {held}",
            remedy=f"check `{where}`",
            refresh_token=SecretStr(kept) if isinstance(kept, str) and _usable(kept) else None,
        )
    return data


def _fields(json: object) -> Mapping[str, object]:
    return json if isinstance(json, dict) else {}


def _unscoped(request: T) -> T:
    if not isinstance(request, dict):
        return request
    return {key: value for key, value in request.items() if key != "scope"}  # type: ignore[return-value]


async def redeem(
    http: Http,
    url: str,
    *,
    instance: str,
    setting: str = "token_url",
    json: object = None,
    form: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Exchange an authorization code: the token endpoint's answer, as with `renew`. Raises LoginError."""
    try:
        answer = await http.request("POST", url, json=json, form=form)
    except HttpUnavailable as error:
        raise LoginError(str(error)) from None
    return _granted(answer, f"providers.{instance}.{setting}")


def _granted(answer: HttpAnswer, where: str) -> dict[str, Any]:
    """A token endpoint's answer to a login. `where`: the setting that has its address. Raises LoginError."""
    data = answer.json()
    if answer.status == 200 and _usable(data.get("access_token")):
        return data
    if answer.status in _MOVED:
        raise LoginError(f"the token endpoint answered {answer.status}: set `{where}` to its new address")
    if answer.status == 200:
        raise LoginError("the token endpoint's answer holds no access token")
    hint = ""
    if _from_in_between(answer):
        hint = f", and not in its own words: {_IN_BETWEEN}"
    elif 400 <= answer.status < 500 and answer.status != 429:
        hint = ": the code was wrong, used already or too old; start again"
    raise LoginError(_told(answer) + hint)


async def device_code(
    http: Http, url: str, *, instance: str, setting: str = "device_url", form: Mapping[str, str]
) -> DeviceCode:
    """Begin a device login as RFC 8628 has it: what `device_start` answers, with the device code as its `secret`.

    `form` is the request: `client_id`, and `scope` where the vendor wants one. Raises LoginError.
    """
    try:
        answer = await http.request("POST", url, form=form)
    except HttpUnavailable as error:
        raise LoginError(str(error)) from None
    told = answer.json()
    code, user_code = told.get("device_code"), told.get("user_code")
    address = told.get("verification_uri_complete") or told.get("verification_uri")
    if answer.status != 200 or not all(isinstance(one, str) and one for one in (code, user_code, address)):
        where, word = f"providers.{instance}.{setting}", error_code(answer)
        hint = f": set `{where}` to its new address" if answer.status in _MOVED else ""
        raise LoginError(f"`{where}` answered {answer.status}{f' ({word})' if word else ''}, and gave no code{hint}")
    return DeviceCode(str(address), str(user_code), number(told.get("interval")) or 5.0, lifetime(told, 600), str(code))


async def device_tokens(
    http: Http, url: str, code: str, *, instance: str, setting: str = "token_url", form: Mapping[str, str]
) -> dict[str, Any] | None:
    """Ask the token endpoint whether the person has confirmed: its answer, as with `redeem`, or None to be asked again.

    `code` is `device_code`'s secret, `form` what the vendor wants beside it: `client_id`. Raises LoginError.
    """
    grant = {"grant_type": "urn:ietf:params:oauth:grant-type:device_code", "device_code": code, **form}
    try:
        answer = await http.request("POST", url, form=grant)
    except HttpUnavailable:
        return None
    word = error_code(answer)
    if word in {"authorization_pending", "slow_down"} or answer.status == 429 or answer.status >= 500:
        return None
    if word in {"access_denied", "expired_token"}:
        why = "it was refused on the vendor's page" if word == "access_denied" else "nobody has confirmed in time"
        raise LoginError(f"{why}: start again")
    return _granted(answer, f"providers.{instance}.{setting}")


def header_safe(secret: str) -> str:
    """`secret` without white space around it. Raises CredentialError if it can't be in a header."""
    secret = secret.strip()
    if secret[:1] in {'"', "'"} and secret[-1:] == secret[:1]:
        raise CredentialError("holds a token in quotation marks; take them off (docker's env files keep them)")
    if not _usable(secret):
        raise CredentialError("holds an empty token, one that is too long, or characters that can't be in a header")
    return secret


def _usable(token: object) -> bool:
    return (
        isinstance(token, str)
        and 0 < len(token) <= LONGEST_TOKEN
        and token.isascii()
        and token.isprintable()
        and " " not in token
    )


def read_time(value: object) -> float | None:
    """Unix seconds from what credential files hold: seconds, milliseconds (either also as a string), or RFC 3339."""
    seconds = number(value)
    if seconds is not None:
        return seconds / 1000 if abs(seconds) >= _MILLISECONDS else seconds
    try:
        moment = datetime.fromisoformat(value.strip()) if isinstance(value, str) else None
    except ValueError:
        return None
    if moment is None:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def write_time(moment: float, like: object) -> int | str:
    """`moment` (unix seconds) in the notation of `like`, something that `read_time` understands."""
    seconds = number(like)
    if seconds is None:
        return datetime.fromtimestamp(int(moment), UTC).isoformat().replace("+00:00", "Z")
    written = int(moment * 1000) if abs(seconds) >= _MILLISECONDS else int(moment)
    return str(written) if isinstance(like, str) else written


def lifetime(answer: Mapping[str, Any], default: float) -> float:
    """Seconds that an answer's `expires_in` grants (a number or a numeric string), else `default`."""
    seconds = number(answer.get("expires_in"))
    return seconds if seconds is not None and 0 < seconds < 10 * 365 * 86400 else default


def jwt_claims(token: str) -> dict[str, Any]:
    """A JWT's claims, unverified (they only tell us about our own token); `{}` if it is not a JWT."""
    parts = token.split(".")
    if len(parts) != 3:
        return {}
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, binascii.Error, RecursionError):
        return {}
    return claims if isinstance(claims, dict) else {}


def dump_like(document: object, raw: bytes) -> bytes:
    """JSON of `document`, indented if `raw` was."""
    indent = 2 if b"\n" in raw.strip() else None
    separators = None if indent else (",", ":")
    return json.dumps(document, indent=indent, separators=separators).encode()
