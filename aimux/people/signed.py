"""Tokens signed elsewhere (JWT): verified once, kept until they expire, and what their claims give here.

PyJWT does the cryptography; the kind of key decides which algorithms count, never the token's head alone.
"""

from __future__ import annotations

import logging
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from aimux.config.people import names_the_machine
from aimux.people.directory import Access, Denied
from aimux.people.models import Role, User

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from aimux.config.auth import SignedTokens
    from aimux.people.directory import Directory

log = logging.getLogger(__name__)

REMEMBERED = 10_000
"""Tokens that are kept; the least recently used one has to be verified again."""
MAX_LENGTH = 8192
SIGNED = "jwt:"
"""The prefix of these tokens' ids."""
PUBLIC = ("RS256", "ES256", "EdDSA")
_SHARED = ("HS256",)
_PARTS = 3


class Keys(Protocol):
    """Public keys by their id."""

    def find(self, name: str | None) -> Any | None:
        """A key as PyJWT takes it; `name` None: the only one there is. None: it is unknown, at least for now."""
        ...

    def asking(self, name: str | None) -> bool:
        """Whether one of this name, which was not found, may still come: newer ones are being fetched."""
        ...


class Claims(NamedTuple):
    """What a verified token says. `ends_at`: milliseconds since 1970."""

    issuer: str
    subject: str
    name: str
    groups: tuple[str, ...]
    role: Role | None
    ends_at: int

    @property
    def token_id(self) -> str:
        """Identifies the token in the ledger, and whom to revoke."""
        return f"{SIGNED}{self.subject[:100]}"


class Signed:
    """Verifies tokens by one configuration. `ends` is called with the end of each that is seen for the first time."""

    def __init__(self, settings: SignedTokens, keys: Keys | None, ends: Callable[[int], None]) -> None:
        self.settings = settings
        self._keys = keys
        self._ends = ends
        self._known: OrderedDict[bytes, Claims] = OrderedDict()
        self._algorithms = _SHARED if settings.secret is not None else PUBLIC
        if settings.secret is not None:
            # PyJWT warns about less than 32 bytes with each token; the configuration decides how long it has to be.
            warnings.filterwarnings("ignore", "The HMAC key is")

    def find(self, token: str, sha256: bytes, directory: Directory, now: int) -> Access | Denied:
        """What the token gives. A look-up if it was verified before, else checking a signature (30 to 200 µs)."""
        claims = self._known.get(sha256)
        if claims is None:
            verified = self._verify(token)
            if isinstance(verified, Denied):
                return verified
            claims = self._known[sha256] = verified
            if len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
            self._ends(claims.ends_at)
        else:
            self._known.move_to_end(sha256)
        if now >= claims.ends_at:
            return Denied.EXPIRED
        subjects = directory.stored.subjects
        if subjects and ((claims.issuer, claims.subject) in subjects or ("", claims.subject) in subjects):
            return Denied.BARRED
        return self._access(claims, directory)

    def forget(self) -> None:
        """Verify everything again."""
        self._known.clear()

    def issue(self, subject: str, label: str, issued_at: int, ends_at: int) -> str | None:
        """A token of this kind; None if only others can sign. Times are unix seconds."""
        import jwt  # 40 ms, which only those pay who have configured it

        secret, settings = self.settings.secret, self.settings
        if secret is None:
            return None
        claims: dict[str, Any] = {"sub": subject, "iat": issued_at, "exp": ends_at, "label": label}
        if settings.issuer is not None:
            claims["iss"] = settings.issuer
        if settings.audience:
            claims["aud"] = settings.audience[0]
        return settings.prefix + jwt.encode(claims, secret.get_secret_value(), "HS256", sort_headers=False)

    def _verify(self, token: str) -> Claims | Denied:
        """The log says what the client is not told: a stranger can't tell from it how near a forgery was."""
        settings = self.settings
        text = token.removeprefix(settings.prefix)
        if not token.startswith(settings.prefix) or text.count(".") != _PARTS - 1 or not text.isascii():
            return Denied.UNKNOWN
        if len(token) > MAX_LENGTH:
            return _refused(Denied.UNKNOWN, f"it has {len(token)} characters, and may have {MAX_LENGTH}")
        import jwt

        try:
            head = jwt.get_unverified_header(text)
            key = self._key(head)
            if key is None:
                return self._without_key(text, _kid(head))
            said = jwt.decode(
                text,
                key,
                algorithms=self._algorithms,
                audience=settings.audience or None,
                issuer=settings.issuer,
                leeway=settings.leeway,
                options={"require": ["exp", "sub"], "verify_aud": bool(settings.audience)},
            )
            return self._read(said)
        except jwt.ExpiredSignatureError:
            return Denied.EXPIRED
        except jwt.ImmatureSignatureError:
            return Denied.EARLY
        except (jwt.InvalidAudienceError, jwt.InvalidIssuerError, jwt.MissingRequiredClaimError) as error:
            return _refused(Denied.FOREIGN, str(error))
        except jwt.InvalidAlgorithmError:
            allowed = ", ".join(self._algorithms)
            return _refused(
                Denied.UNKNOWN, f"it says alg {str(head.get('alg'))[:20]!r}, and its key allows one of {allowed}"
            )
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError) as error:
            return _refused(Denied.UNKNOWN, str(error)[:100])

    def _key(self, head: Mapping[str, Any]) -> Any | None:
        if self.settings.secret is not None:
            return self.settings.secret.get_secret_value()
        assert self._keys is not None  # without a secret there are keys
        return self._keys.find(_kid(head))

    def _without_key(self, text: str, name: str | None) -> Denied:
        """Who signs for us may have got a new key; who says that another signed it needs not wait for that."""
        import jwt

        assert self._keys is not None
        issuer = jwt.decode(text, options={"verify_signature": False}).get("iss")
        if self.settings.issuer in (None, issuer) and self._keys.asking(name):
            return Denied.PENDING
        return _refused(
            Denied.UNKNOWN, f"its key, {'without a kid' if name is None else repr(name[:100])}, is not known"
        )

    def _read(self, said: Mapping[str, Any]) -> Claims | Denied:
        settings = self.settings
        if not str(said["sub"]).isprintable():  # it is stored and logged, and no database takes half a character or NUL
            return _refused(Denied.FOREIGN, "its sub holds characters that can't be printed")
        # Some signers let people write down any address: one that is not theirs must not make them its owner here.
        claims = [claim for claim in settings.user_claim if claim != "email" or _is_verified(said)]
        names = (_claim(said, claim) for claim in claims)
        name = next((name for name in names if isinstance(name, str) and _is_user(name)), None)
        if name is None:
            unverified = "" if len(claims) == len(settings.user_claim) else " (its email_verified is not true)"
            return _refused(Denied.FOREIGN, f"it names no user in {', '.join(settings.user_claim)}{unverified}")
        role = None
        if settings.role_claim is not None:
            told = _claim(said, settings.role_claim)
            role = Role(told) if isinstance(told, str) and told in list(Role) else Role.MEMBER
        groups = tuple(_names(_claim(said, settings.groups_claim))) if settings.groups_claim is not None else ()
        issuer = said.get("iss")
        ends_at = int((float(said["exp"]) + settings.leeway) * 1000)
        return Claims(issuer if isinstance(issuer, str) else "", str(said["sub"]), name, groups, role, ends_at)

    def _access(self, claims: Claims, directory: Directory) -> Access | Denied:
        """The user of that name, if there is one, with what the claims add."""
        user = directory.users.get(claims.name) or User(claims.name)
        if not user.enabled:
            return Denied.DISABLED
        known = directory.known_groups() if claims.groups else frozenset()
        groups = tuple(dict.fromkeys([*user.groups, *(group for group in claims.groups if group in known)]))
        if groups != user.groups or (claims.role is not None and claims.role is not user.role):
            user = replace(user, groups=groups, role=claims.role or user.role)
        return directory.access(user, claims.token_id, claims.ends_at, ())


def _refused(denied: Denied, why: str) -> Denied:
    log.info("auth.jwt: a token is refused: %s", why)
    return denied


def _kid(head: Mapping[str, Any]) -> str | None:
    name = head.get("kid")
    return name if isinstance(name, str) else None


def _claim(said: Mapping[str, Any], path: str) -> Any:
    """`realm_access.roles` is a nested claim, unless a claim has that very name."""
    if path in said:
        return said[path]
    value: Any = said
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _is_name(text: str) -> bool:
    return 0 < len(text) <= 100 and text.isprintable() and text == text.strip()


def _is_user(name: str) -> bool:
    return _is_name(name) and not names_the_machine(name)


def _is_verified(said: Mapping[str, Any]) -> bool:
    """Whether the signer vouches for `email`, as far as it tells: many that know their people say nothing."""
    return said.get("email_verified", True) in (True, "true")


def _names(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        value = value.replace(",", " ").split()
    if isinstance(value, list):
        yield from (name for name in value if isinstance(name, str) and _is_name(name))
