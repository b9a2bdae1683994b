"""The public keys by which tokens signed elsewhere are verified: from a file, or from their signer's URL.

No request waits for this: keys are fetched in the background, now and then and when a token names an unknown one, and
the last ones are kept in the state folder for the next start.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from aimux.config.files import read_text
from aimux.plugin.http import HttpUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from aimux.plugin.http import Http, HttpAnswer

log = logging.getLogger(__name__)

SHORTEST_RSA = 2048
"""Bits of a key of RSA: RFC 7518, 3.3."""
FETCH_SECONDS = 600.0
"""How often keys are fetched anyway."""
COOL_SECONDS = 15.0
"""How often at most because of an unknown key: anybody can name one."""
AGAIN_SECONDS = 60.0
"""When they are fetched again after they could not be."""
LARGE = 16 * 1024
"""Bytes of keys that are read at once, in 10 ms: thousands of keys take a second or two, and nobody waits for them."""
MISSED = 100
"""Unknown keys that are remembered; a name may have 8 kB."""


class NoKeys(Exception):
    """A set of keys can't be used, or can't be fetched. The message says why."""


class KeySet:
    """Keys by id."""

    def __init__(self, text: str) -> None:
        """`text`: a JWKS, or one key as PEM. Raises NoKeys."""
        import jwt  # 40 ms, which only those pay who have configured it
        from cryptography.hazmat.primitives.serialization import load_pem_public_key

        self._keys: dict[str | None, Any]
        try:
            if text.lstrip().startswith("{"):
                self._keys = dict(_public_keys(json.loads(text)))
            else:
                key = load_pem_public_key(text.encode())
                self._keys = {None: key} if _verifies(key) else {}
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
            raise NoKeys(f"no usable key is in it ({error})") from None
        if not self._keys:
            kinds = f"RSA (of {SHORTEST_RSA} bits or more), EC or Ed25519"
            raise NoKeys(f"no usable key is in it: none that is public, for signatures, and {kinds}")

    def find(self, name: str | None) -> Any | None:
        """See `signed.Keys`. A single key without an id verifies every token that names no other."""
        if name is None or (None in self._keys and len(self._keys) == 1):
            return next(iter(self._keys.values())) if len(self._keys) == 1 else None
        return self._keys.get(name)

    def asking(self, name: str | None) -> bool:
        """Nobody is asked for more."""
        return False

    def __len__(self) -> int:
        return len(self._keys)


def _public_keys(document: Mapping[str, Any]) -> Iterator[tuple[str | None, Any]]:
    """Those of a JWKS that verify. Others are left out, as RFC 7517, 5 has it: a signer may have more for others.
    Raises NoKeys."""
    import jwt

    if not isinstance(told := document.get("keys"), list):
        raise NoKeys('it is no JWKS, which is JSON as {"keys": [...]}')
    for each in told:
        try:
            key = jwt.PyJWK.from_dict(each)
            meant = each.get("use", "sig") == "sig" and "verify" in each.get("key_ops", ("verify",))
        # PyJWT has an error for what it doesn't know, NotImplementedError for `alg: none`, the rest for odd fields.
        except (jwt.PyJWTError, NotImplementedError, ValueError, TypeError, AttributeError):
            continue
        if meant and _verifies(key.key) and isinstance(key.key_id, str | None):
            yield key.key_id, key


def _verifies(key: Any) -> bool:
    """Whether it is public, for signatures, and not so short that they can be forged."""
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

    return hasattr(key, "verify") and not (isinstance(key, RSAPublicKey) and key.key_size < SHORTEST_RSA)


def fetched_keys(answer: HttpAnswer) -> KeySet:
    """The keys of what a `jwks_url` answered. Raises NoKeys."""
    if 300 <= answer.status < 400:
        raise NoKeys(f"it answered {answer.status} and leads elsewhere: auth.jwt.jwks_url has to be the last address")
    if answer.status != 200:
        raise NoKeys(f"it answered {answer.status}")
    document = answer.json()
    if "keys" not in document:
        if isinstance(uri := document.get("jwks_uri"), str):
            raise NoKeys(f"it only says where the keys are: auth.jwt.jwks_url has to be {uri[:300]}")
        raise NoKeys('what it answered is no JWKS, which is JSON as {"keys": [...]}')
    return KeySet(answer.body.decode("utf-8", "replace"))


def read_keys(path: Path) -> KeySet:
    """The keys of a file. Raises NoKeys."""
    try:
        return KeySet(read_text(path))
    except (OSError, NoKeys) as error:
        raise NoKeys(f"{path}: {error}") from None


class FetchedKeys:
    """Keys of a URL; `run` fetches them. `on_change` is called when they have changed."""

    def __init__(self, url: str, http: Http, kept: Path, on_change: Callable[[], None]) -> None:
        """`kept`: a file that may hold what was fetched last."""
        self._url = url
        self._http = http
        self._kept = kept
        self._on_change = on_change
        self._text = ""
        self._keys: KeySet | None = None
        self._wanted = asyncio.Event()
        self._missed: OrderedDict[str | None, float] = OrderedDict()
        """When each unknown key was first named; the monotonic clock's."""
        self._fetched_at = float("-inf")
        """When the last fetch began that succeeded; the monotonic clock's."""
        self._problem = ""

    def find(self, name: str | None) -> Any | None:
        """See `signed.Keys`. An unknown key is fetched, but not waited for."""
        found = self._keys.find(name) if self._keys is not None else None
        if found is None:
            self._wanted.set()
        return found

    def asking(self, name: str | None) -> bool:
        """See `signed.Keys`: no set that was asked for after this name was heard first has come yet."""
        if name not in self._missed and len(self._missed) >= MISSED:
            self._missed.popitem(last=False)
        return self._fetched_at < self._missed.setdefault(name, time.monotonic())

    async def load(self) -> None:
        """Load what was fetched before the last stop, so that a start does not need the signer."""
        with contextlib.suppress(OSError, NoKeys):
            self._take(await asyncio.to_thread(read_text, self._kept))

    async def run(self) -> None:
        """Fetch at once, and from then on, until cancelled."""
        while True:
            began = time.monotonic()
            self._wanted.clear()
            try:
                await self._fetch()
                problem = ""
                self._fetched_at = began
            except (HttpUnavailable, NoKeys) as error:
                problem = str(error)
            self._tell(problem)
            await asyncio.sleep(COOL_SECONDS)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(AGAIN_SECONDS if problem else FETCH_SECONDS):
                    await self._wanted.wait()

    async def _fetch(self) -> None:
        """Raises HttpUnavailable, NoKeys."""
        answer = await self._http.request("GET", self._url, headers={"accept": "application/json"}, timeout=10.0)
        text = answer.body.decode("utf-8", "replace")
        if answer.status == 200 and text == self._text:
            return
        keys = fetched_keys(answer) if len(text) <= LARGE else await asyncio.to_thread(fetched_keys, answer)
        self._keys, self._text = keys, text
        self._on_change()  # first: on a full disk, too, a key that is gone verifies nothing any more
        try:
            await asyncio.to_thread(self._keep, text)
        except OSError as error:
            log.warning("auth.jwt: the keys of %s can't be kept for the next start: %s", self._url, error)

    def _tell(self, problem: str) -> None:
        if problem and problem != self._problem:
            log.warning("auth.jwt: the keys of %s can't be fetched: %s", self._url, problem)
        elif self._problem and not problem:
            log.info("auth.jwt: the keys of %s were fetched again", self._url)
        self._problem = problem

    def _take(self, text: str) -> None:
        self._keys, self._text = KeySet(text), text

    def _keep(self, text: str) -> None:
        self._kept.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = self._kept.with_name(f".{self._kept.name}.{os.getpid()}")
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(text)
        temporary.replace(self._kept)
