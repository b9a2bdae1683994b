"""Renewal: one at a time for all tasks and processes, and nothing that was ever rotated is lost."""

from __future__ import annotations

import asyncio
import logging
import math
from typing import TYPE_CHECKING

from aimux.accounts.account import fingerprint
from aimux.accounts.credentials import renew_credential
from aimux.accounts.parked import Parked
from aimux.accounts.pauses import Pauses
from aimux.accounts.rotation import Place
from aimux.accounts.rotations import with_text
from aimux.accounts.vault import Missing, Unsafe, VaultError
from aimux.plugin.errors import CredentialError, RefreshRejected, RefreshUnavailable

if TYPE_CHECKING:
    from aimux.accounts.account import Account
    from aimux.accounts.resources import Resources
    from aimux.plugin.types import Credential

log = logging.getLogger(__name__)

WRITING_PAUSES = (0.03, 0.1, 0.2)
"""Seconds between looks at a file that holds no login, until it is taken as it is."""
YOUNG_MARGIN = 30.0
"""A credential that another program just wrote is used unless it has less than this left."""


class Renewer:
    """Keeps one account's credential fresh.

    Look -> lock -> look again -> call the provider -> write -> publish. A rotated refresh token is on disk before its
    access token is used. No failure erases anything: a refused token parks the account, a network that fails makes it
    wait.
    """

    def __init__(self, account: Account, resources: Resources) -> None:
        self._account = account
        self._resources = resources
        self._place = Place(resources, account.name)
        self._flight: asyncio.Task[Credential] | None = None
        self._rejected: str | None = None
        """The secret that was refused, if that is why the flight began."""
        self._pauses = Pauses()
        self._unsaved: VaultError | None = None
        self._refused: Parked | None = None
        """Why the credential with this fingerprint can't be renewed."""
        self._broken = False
        """What is in memory is in the file no more, which holds no login."""
        self._unread = ""
        """Why the file could not be read, as it was told."""
        self._tells_no_end = False
        """What a renewal gave has no expiry: to renew it for that would be in vain."""

    # --- from outside ------------------------------------------------------------------------------------------------

    def due(self, now: float, within: float) -> bool:
        """Whether the keeper should call `keep` now. Tokens age whether the account is used, idle or disabled."""
        account = self._account
        if self._flying or now < self._pauses.until or account.credential is None:
            return False
        if self._place.pending is not None:
            return True
        if account.parked is not None and account.parked.dead:
            return False
        if account.credential.renewable and not self.refused:
            # Only a full round, which looks ahead, asks for an expiry that nobody told.
            undated = within > 0 and self._undated(account.credential)
            return bool(self._pauses.failures) or undated or account.credential.expires_within(within, now)
        return account.parked is None and account.credential.expires_within(0, now)

    async def renew(self, rejected: Credential | None = None) -> Credential:
        """See Account.renew."""
        account = self._account
        while True:
            held = account.credential
            if rejected is not None and held is not None and held.secret != rejected.secret:
                return held  # somebody was faster
            if rejected is None:
                now = self._resources.clock()
                if (usable := account.usable(now)) is not None:
                    return usable
                if (failure := self._pauses.too_early(now)) is not None:
                    raise RefreshUnavailable(failure.reason, remedy=failure.remedy)
            elif not self._flying and (failure := self._pauses.too_early(now := self._resources.clock())) is not None:
                # Otherwise each further refused request would ask the server again, and double the pause.
                account.keep_off(self._pauses.until, now, _unrenewed(failure))
                raise RefreshUnavailable(failure.reason, remedy=failure.remedy)
            if rejected is None or not self._flying or self._rejected == rejected.secret:
                # Also where the refused one is what was given again: it is asked for once, however many wait.
                return await self._fly(rejected, self._resources.margin)
            credential = await self._fly(rejected, self._resources.margin)
            if credential.secret != rejected.secret:
                return credential

    async def keep(self, within: float) -> None:
        """Renew what has less than `within` seconds left; infinity: anything. Raises RefreshError, logged already."""
        await self._fly(None, within)
        if self._refused is not None and self.refused:
            raise RefreshRejected(self._refused.reason, remedy=self._refused.remedy)
        if (failure := self._pauses.failure) is not None:
            raise RefreshUnavailable(failure.reason, remedy=failure.remedy)

    def distrust(self, now: float) -> bool:
        """See `Pauses.distrust`."""
        return self._pauses.distrust(now)

    @property
    def trouble(self) -> tuple[str, str]:
        """What is wrong while the credential still serves, and what a person can do; empty if nothing is."""
        if self._place.pending is not None and self._unsaved is not None:
            return f"its renewed credential is in memory alone: {self._unsaved.reason}", self._unsaved.remedy
        if (failure := self._pauses.failure) is not None:
            return _unrenewed(failure), failure.remedy
        if self._refused is not None and self.refused:
            return f"it can't be renewed: {self._refused.reason}", self._refused.remedy
        return "", ""

    @property
    def refused(self) -> bool:
        """Whether its refresh token was refused before its time, so that it serves until it ends."""
        return self._refused is not None and self._refused.fingerprint == self._account.fingerprint

    async def move(self, new: str) -> None:
        """Give the account another name. A renewal under way ends first, or goes on under the new name. Raises
        VaultError."""
        await self._place.move(new)
        self._account.name = new

    async def put_back(self) -> bool:
        """Use the login that is kept beside a file which holds none any more; call `reload` then. False: there is none.
        Raises VaultError."""
        async with self._place.lock():
            if not await self._place.put_back():
                return False
        self._pauses.end()
        return True

    async def reload(self) -> bool:
        """Use what is in the vault. False: a renewal is under way, ask again later."""
        account = self._account
        if self._flying:
            return False
        before = account.fingerprint
        try:
            credential = self._place.parse(await self._place.read())
        except (VaultError, CredentialError) as error:
            await self._unreadable(error)
            return True
        self._broken, self._unread = False, ""
        if self._flying or account.fingerprint != before:
            return False  # what was read may be older than what is in use now
        account.publish(credential, self._resources.clock())
        return True

    async def close(self) -> None:
        """Try a last time to save what a disk did not take. Call it when no renewal is under way."""
        await self._save_pending()
        if self._broken:
            await self._keep()
        if self._place.pending is not None:
            account = self._account
            log.error(
                "%s account %s: its renewed credential is lost with this process: %s",
                account.provider,
                account.name,
                self._login(),
            )

    @property
    def _flying(self) -> bool:
        # Once it is done it has to count as over at once, not when its callbacks run: who joined it in between would
        # wait for nothing, and ask for ever.
        return self._flight is not None and not self._flight.done()

    async def _fly(self, rejected: Credential | None, within: float) -> Credential:
        if self._flight is None or self._flight.done():
            self._flight = self._resources.start(self._renew(rejected, within))
            self._rejected = rejected.secret if rejected is not None else None
        flight = self._flight
        try:
            # Shielded: a client that leaves must not stop a renewal between the provider's answer and the disk.
            return await asyncio.shield(flight)
        finally:
            if flight.done() and self._flight is flight:
                self._flight = None  # what it raised holds the frames of all who waited, and their requests

    # --- the renewal -------------------------------------------------------------------------------------------------

    async def _renew(self, rejected: Credential | None, within: float) -> Credential:
        account = self._account
        try:
            await self._save_pending()
            _, credential = await self._look(rejected, within)
            if credential is not None:
                outcome = "adopted"
            else:
                async with self._place.lock():
                    credential, outcome = await self._locked(rejected, within)
        except RefreshRejected as error:
            self._tell("rejected")
            remedy, held = account.addressed(error.remedy), account.credential
            if rejected is None and held is not None and not held.expires_within(0, self._resources.clock()):
                return self._serve_on(held, error.reason, remedy)
            account.park(error.reason, error.remedy, dead=True)
            raise RefreshRejected(error.reason, remedy=remedy) from None
        except (RefreshUnavailable, VaultError) as error:
            told = error.retry_after if isinstance(error, RefreshUnavailable) else None
            again = RefreshUnavailable(error.reason, remedy=error.remedy, retry_after=told)
            return self._unavailable(again, rejected)
        except CredentialError as error:
            await self._unreadable(error)
            return self._unavailable(RefreshUnavailable(f"its credential file {error}"), rejected)
        if self._place.pending is None:
            self._pauses.end()
            self._refused = None
        self._tell(outcome)
        return credential

    async def _look(self, rejected: Credential | None, within: float) -> tuple[bytes, Credential | None]:
        """What is in the vault now, and its credential if that will do.

        Raises RefreshRejected if it won't do and can't be renewed; VaultError, CredentialError.
        """
        account, now = self._account, self._resources.clock()
        raw, credential = await self._whole()
        self._broken, self._unread = False, ""
        news = account.fingerprint != fingerprint(credential)
        if not credential.renewable:
            within = 0.0
        elif news or rejected is not None:
            within = min(within, YOUNG_MARGIN)
        undated = rejected is None and self._undated(credential)
        stale = credential.expires_within(within, now) or within == math.inf or undated
        if not stale and (rejected is None or credential.secret != rejected.secret):
            account.publish(credential, now)
            return raw, credential
        if not credential.renewable:
            why = "was not accepted" if rejected is not None else "has expired"
            raise RefreshRejected(f"its token {why}, and can't be renewed", remedy=self._login())
        return raw, None

    async def _whole(self) -> tuple[bytes, Credential]:
        """The file and its credential. Programs that write it in place empty it first: that is waited for."""
        for pause in WRITING_PAUSES:
            raw = await self._place.read()
            try:
                return raw, self._place.parse(raw)
            except CredentialError:
                await asyncio.sleep(pause)
        raw = await self._place.read()
        return raw, self._place.parse(raw)

    def _undated(self, credential: Credential) -> bool:
        """Whether it may end at any time, unnoticed while nobody uses it. A renewal tells when the next one ends."""
        return credential.renewable and credential.expires_at is None and not self._tells_no_end

    async def _locked(self, rejected: Credential | None, within: float) -> tuple[Credential, str]:
        resources, rescued = self._resources, False
        while True:
            raw, credential = await self._look(rejected, within)
            if credential is not None:
                return credential, "adopted"
            await self._place.reserve(raw)
            try:
                fresh = await renew_credential(resources.provider, raw, resources.http)
                credential = self._place.parse(fresh)
            except RefreshRejected:
                # Another program may have rotated it a moment ago: try what it wrote first, then what we kept. If that
                # is refused, too, each goes back to where it was.
                if await self._place.read() != raw:
                    continue
                if await self._place.rescue(raw) and not rescued:
                    rescued = True
                    continue
                raise
            except RefreshUnavailable as error:
                if error.refresh_token is not None:
                    await self._keep_token(raw, error.refresh_token.get_secret_value())
                raise
            except CredentialError as error:
                raise RefreshUnavailable(f"what the provider's renewal gave {error}") from None
            self._tells_no_end = credential.expires_at is None
            return await self._save(raw, fresh, credential), "renewed"

    async def _keep_token(self, raw: bytes, token: str) -> None:
        """Save a refresh token that came without an access token: the one before it is dead."""
        try:
            fresh = with_text(raw, self._place.parse(raw).refresh_token or token, token)
            credential = self._place.parse(fresh)
        except CredentialError:
            return
        if credential.refresh_token == token:
            await self._save(raw, fresh, credential)

    async def _save(self, raw: bytes, fresh: bytes, credential: Credential) -> Credential:
        account, now = self._account, self._resources.clock()
        try:
            await self._place.save(raw, fresh)
            saved = self._place.parse(await self._place.read())
        except VaultError as error:
            # The old tokens are dead upstream. Serving from memory loses nothing more, and may outlast a full disk.
            self._unsaved = error
            self._pause()
            log.error("%s account %s: its renewed credential is not saved: %s", account.provider, account.name, error)
        except CredentialError as error:
            log.error("%s account %s: another program broke its file: it %s", account.provider, account.name, error)
        else:
            account.publish(saved, now, renewed=saved.secret == credential.secret)
            return saved
        account.publish(credential, now, renewed=True)
        return credential

    async def _save_pending(self) -> None:
        if self._place.pending is not None:
            try:
                async with self._place.lock():
                    await self._place.retry()
            except VaultError as error:
                self._unsaved = error
                self._pause()
                log.error("%s account %s is still not saved: %s", self._account.provider, self._account.name, error)

    # --- failures ----------------------------------------------------------------------------------------------------

    def _serve_on(self, held: Credential, reason: str, remedy: str) -> Credential:
        """Its refresh token is refused: what serves goes on until it ends, or until its vendor refuses it, too. Then
        the renewal is tried once more."""
        account = self._account
        if not self.refused:
            log.warning("%s account %s serves on and can't be renewed: %s", account.provider, account.name, reason)
        self._refused = Parked(reason, remedy, account.fingerprint)
        self._pauses.end()
        account.defer(math.inf if held.expires_at is None else held.expires_at)
        return held

    def _unavailable(self, error: RefreshUnavailable, rejected: Credential | None) -> Credential:
        """Wait before the next try; the old credential serves while it lasts."""
        account, now = self._account, self._resources.clock()
        self._pause(error.retry_after)
        self._pauses.failure = error
        log.log(
            logging.ERROR if error.remedy else logging.WARNING,
            "%s account %s could not be renewed: %s%s; next try in %.0f s",
            account.provider,
            account.name,
            error.reason,
            error.remedy and f" ({error.remedy})",
            self._pauses.until - now,
        )
        self._tell("unavailable")
        held = account.credential
        if (
            held is not None
            and not held.expires_within(0, now)
            and (rejected is None or held.secret != rejected.secret)
        ):
            account.defer(min(self._pauses.until, math.inf if held.expires_at is None else held.expires_at))
            return held
        account.keep_off(self._pauses.until, now, _unrenewed(error))
        raise error

    def _pause(self, told: float | None = None) -> None:
        self._pauses.begin(self._resources.clock(), unsaved=self._place.pending is not None, told=told)

    async def _unreadable(self, error: VaultError | CredentialError) -> None:
        """A file that can't be read: another program may be writing it, so the credential in memory goes on for a
        while. When that is over, the login that the file held is kept beside it: it may be alive."""
        account = self._account
        if isinstance(error, CredentialError):
            where = f"{account.provider}/{account.name}: {self._resources.provider.credential_file}"
            reason, remedy = f"{where} {error}", self._login()
        else:
            reason, remedy = error.reason, error.remedy
        held = account.credential
        lasts = held is not None and not held.expires_within(0, self._resources.clock())
        if lasts and not isinstance(error, Unsafe | Missing):
            if reason != self._unread:  # looked at for a renewal, too, and with each change of the file
                log.warning("%s account %s goes on from memory: %s", account.provider, account.name, reason)
            self._unread, self._broken = reason, isinstance(error, CredentialError)
            return
        if isinstance(error, CredentialError) and (await self._keep() or await self._place.spare() is not None):
            reason += f"; a login is kept beside it, as {self._resources.provider.credential_file}.spare"
            remedy = f"aimux accounts enable {account.provider}/{account.name} puts it back; or {remedy}"
        account.park(reason, remedy, unreadable=True)

    async def _keep(self) -> bool:
        held = self._account.credential
        return held is not None and held.renewable and await self._place.keep()

    def _login(self) -> str:
        return f"log in again: aimux login {self._resources.provider.instance} --account {self._account.name}"

    def _tell(self, outcome: str) -> None:
        if self._resources.on_outcome is not None:
            self._resources.on_outcome(self._account, outcome)


def _unrenewed(error: RefreshUnavailable) -> str:
    return f"it can't be renewed for now: {error.reason}"
