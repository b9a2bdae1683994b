"""Any sequence of what happens to tokens, on two nodes: none that was revoked is admitted a second later."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, rule

from aimux.people import Access, Configured, Denied, People, Token, User, issuing, users
from aimux.people.tokens import digest
from aimux.storage import Database
from aimux.storage.times import now
from tests.people.conftest import ADMIN
from tests.waiting import until

SOON = 1.0
DAY = 86_400_000
OF_THE_FILE = "a-token-of-the-configuration"


class Tokens(RuleBasedStateMachine):
    """`ends`: secret → when it has to have ended (None: never), and 0 where it was revoked."""

    issued = Bundle("issued")

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory()
        self.nodes: list[People] = []
        self.ends: dict[str, int | None] = {}
        self.ids: dict[str, str] = {}
        self.listed = False

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(work)

    @property
    def configured(self) -> Configured:
        if not self.listed:
            return Configured()
        token = Token("cfg", "fay", digest(OF_THE_FILE))
        return Configured(users={"fay": User("fay", configured=True)}, hashes={token.sha256: token})

    async def _start(self) -> People:
        people = People(await Database.open(None, Path(self.folder.name)), self.configured)
        await people.start()
        return people

    async def _stop(self, people: People) -> None:
        await people.close()
        await people.database.close()

    @initialize()
    def two_nodes(self) -> None:
        self.nodes = [self.run(self._start()), self.run(self._start())]
        self.run(users.add(self.nodes[0], ADMIN, User("ann")))

    @rule(target=issued, node=st.sampled_from([0, 1]), ttl=st.sampled_from([None, 3600.0, 86400.0]))
    def issue(self, node: int, ttl: float | None) -> str:
        made = self.run(issuing.issue(self.nodes[node], ADMIN, "ann", ttl=ttl))
        self.ends[made.secret], self.ids[made.secret] = made.token.expires_at, made.token.id
        self.use(node, made.secret)
        return str(made.secret)

    @rule(node=st.sampled_from([0, 1]), secret=issued)
    def revoke(self, node: int, secret: str) -> None:
        self.run(issuing.revoke(self.nodes[node], ADMIN, self.ids[secret]))
        self.ends[secret] = 0
        self.use(node, secret)

    @rule(target=issued, node=st.sampled_from([0, 1]), secret=consumes(issued), overlap=st.sampled_from([0.0, 600.0]))
    def rotate(self, node: int, secret: str, overlap: float) -> str:
        if self.ends[secret] == 0:
            return secret
        made = self.run(issuing.rotate(self.nodes[node], ADMIN, self.ids[secret], overlap=overlap))
        until = now() + int(overlap * 1000)
        self.ends[secret] = 0 if not overlap else min(self.ends[secret] or until, until)
        self.ends[made.secret], self.ids[made.secret] = made.token.expires_at, made.token.id
        self.use(node, secret)
        return str(made.secret)

    @rule(node=st.sampled_from([0, 1]), secret=issued)
    def use(self, node: int, secret: str) -> None:
        """At the node that wrote it last, or at one that has not heard yet and is asked as a request would."""
        self.nodes[node].directory.find(digest(secret), now())

    @rule(node=st.sampled_from([0, 1]), listed=st.booleans())
    def reload(self, node: int, listed: bool) -> None:
        """The configuration, with a user of its own or without: nobody else's tokens change by that."""
        self.listed = listed
        for people in self.nodes:
            people.reconfigure(self.configured)

    @rule(node=st.sampled_from([0, 1]))
    def restart(self, node: int) -> None:
        self.run(self._stop(self.nodes[node]))
        self.nodes[node] = self.run(self._start())

    @rule(node=st.sampled_from([0, 1]), secret=issued, steps=st.integers(0, 30))
    def crash(self, node: int, secret: str, steps: int) -> None:
        """In the midst of a revocation, which is whole or did not happen; whatever was answered holds."""

        async def cut_short() -> bool:
            task = asyncio.create_task(issuing.revoke(self.nodes[node], ADMIN, self.ids[secret]))
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            return not task.cancelled()

        answered = self.run(cut_short())
        self.restart(node)
        found = self.nodes[node].directory.find(digest(secret), now())
        if answered or found is Denied.REVOKED:
            self.ends[secret] = 0
        self.agreed()

    @rule()
    def agreed(self) -> None:
        """Within a second every node says what it should, now and when time has passed."""
        self.run(until(self._as_it_should_be, SOON))

    def _as_it_should_be(self) -> bool:
        at = now()
        for people in self.nodes:
            found = people.directory.find
            for secret, end in self.ends.items():
                admitted = isinstance(found(digest(secret), at), Access)
                if admitted != (end != 0) or (end and isinstance(found(digest(secret), end), Access)):
                    return False
            if isinstance(found(digest(OF_THE_FILE), at + DAY), Access) != self.listed:
                return False
        return True

    def teardown(self) -> None:
        if self.nodes:
            self.agreed()
        for people in self.nodes:
            self.run(self._stop(people))
        self.runner.close()
        self.folder.cleanup()


TestTokens = Tokens.TestCase
TestTokens.settings = settings(max_examples=12, stateful_step_count=15, suppress_health_check=list(HealthCheck))
