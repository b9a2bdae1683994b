"""The keys of who signs tokens elsewhere: from a file, or fetched and kept."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

from aimux.config.auth import SignedTokens
from aimux.people import Access, Denied
from aimux.people.keys import COOL_SECONDS, LARGE, MISSED, FetchedKeys, KeySet, NoKeys, fetched_keys, read_keys
from aimux.people.signed import Signed
from aimux.people.trust import Trust
from aimux.plugin.http import HttpAnswer, HttpUnavailable
from tests.people.signing import EC, RSA, find, jwks, pem, signed, token


def test_files_of_keys(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(pem(EC))
    assert read_keys(file).find(None) is not None
    deep = '{"keys": ' + 5000 * "["
    for text in ("", "{}", '{"keys": []}', "not a key", '{"keys": [{"kty": "oct", "k": "x"}]}', deep):
        file.write_text(text)
        with pytest.raises(NoKeys) as caught:
            read_keys(file)
        assert str(file) in str(caught.value)
    with pytest.raises(NoKeys):
        read_keys(tmp_path / "nosuch")


class Signer:
    """Answers with `text`, or fails."""

    def __init__(self) -> None:
        self.text = ""
        self.asked = asyncio.Semaphore(0)

    async def request(self, method: str, url: str, **_: Any) -> HttpAnswer:
        self.asked.release()
        if not self.text:
            raise HttpUnavailable("signer.example does not answer")
        return HttpAnswer(200, {}, self.text.encode())

    async def until_asked(self) -> None:
        async with asyncio.timeout(5):
            await self.asked.acquire()
        await asyncio.sleep(0.05)  # what follows an answer, a file's writing included


@asynccontextmanager
async def asking(keys: FetchedKeys) -> AsyncIterator[asyncio.Task[None]]:
    """It asks its signer, until this ends."""
    task = asyncio.create_task(keys.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_nobody_waits_while_thousands_of_keys_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    signer, readers, changed = Signer(), [], asyncio.Event()

    def read(answer: HttpAnswer) -> KeySet:
        readers.append(threading.current_thread())
        return fetched_keys(answer)

    monkeypatch.setattr("aimux.people.keys.fetched_keys", read)
    signer.text = jwks(k1=RSA) + " " * LARGE
    async with asking(FetchedKeys("https://signer.example/jwks", signer, tmp_path / "jwks.json", changed.set)):
        async with asyncio.timeout(10):
            await changed.wait()
    assert readers
    assert threading.main_thread() not in readers


async def test_keys_are_fetched_rotated_and_outlive_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    signer, changes, kept = Signer(), [], tmp_path / "state" / "jwks.json"
    keys = FetchedKeys("https://signer.example/jwks", signer, kept, lambda: changes.append(1))
    monkeypatch.setattr("aimux.people.keys.COOL_SECONDS", 0.0)
    verifier = signed(keys, issuer="https://signer.example")
    said = {"iss": "https://signer.example"}
    old, new = token(RSA, "RS256", "k1", **said), token(EC, "ES256", "k2", **said)
    await keys.load()
    async with asking(keys):
        await signer.until_asked()
        assert find(verifier, old) is Denied.PENDING, "its signer did not answer, and may know it"
        assert find(verifier, token(RSA, "RS256", "k1", iss="https://else.example")) is Denied.UNKNOWN
        assert changes == []
        signer.text = jwks(k1=RSA)
        assert find(verifier, old) is Denied.PENDING
        await signer.until_asked()
        assert isinstance(find(verifier, old), Access)
        signer.text = jwks(k2=EC)
        assert find(verifier, new) is Denied.PENDING
        await signer.until_asked()
        verifier.forget()  # what Trust does when it is told of the change
        assert isinstance(find(verifier, new), Access)
        assert find(verifier, old) in {Denied.PENDING, Denied.UNKNOWN}
        assert len(changes) == 2
    assert kept.stat().st_mode & 0o777 == 0o600
    signer.text = ""
    again = FetchedKeys("https://signer.example/jwks", signer, kept, lambda: None)
    await again.load()
    assert isinstance(find(signed(again), new), Access)


async def test_nobody_makes_it_ask_all_the_time(tmp_path: Path) -> None:
    signer = Signer()
    signer.text = jwks(k1=RSA)
    keys = FetchedKeys("https://signer.example/jwks", signer, tmp_path / "kept", lambda: None)
    verifier = signed(keys)
    async with asking(keys):
        await signer.until_asked()
        for number in range(2 * MISSED):
            assert find(verifier, token(EC, "ES256", f"k{number}x")) is Denied.PENDING
        await asyncio.sleep(0.05)
        assert signer.asked.locked(), f"more than once in {COOL_SECONDS} s"


async def test_a_key_is_unknown_once_the_signer_was_asked_for_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """And not before: a client gives up for good at a 401."""
    caplog.set_level("INFO")
    signer = Signer()
    signer.text = jwks(k1=RSA)
    keys = FetchedKeys("https://signer.example/jwks", signer, tmp_path / "kept", lambda: None)
    verifier, text = signed(keys), token(EC, "ES256", "k2")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("aimux.people.keys.COOL_SECONDS", 0.2)
        async with asking(keys):
            await signer.until_asked()
            assert find(verifier, text) is Denied.PENDING, "it may be newer than what was fetched"
            signer.text = ""
            await signer.until_asked()
            assert find(verifier, text) is Denied.PENDING, "nobody could be asked"
            signer.text = jwks(k1=RSA)
            await signer.until_asked()
            assert find(verifier, text) is Denied.UNKNOWN
    told = [record.getMessage() for record in caplog.records if record.name.startswith("aimux.people")]
    assert told == [
        "auth.jwt: the keys of https://signer.example/jwks can't be fetched: signer.example does not answer",
        "auth.jwt: the keys of https://signer.example/jwks were fetched again",
        "auth.jwt: a token is refused: its key, 'k2', is not known",
    ]


@pytest.mark.parametrize(
    ("status", "body", "why"),
    [
        (500, "{}", "it answered 500"),
        (302, "", "it answered 302 and leads elsewhere"),
        (200, "<html>sign in</html>", "no JWKS"),
        (
            200,
            '{"issuer": "https://s.example", "jwks_uri": "https://s.example/keys"}',
            "has to be https://s.example/keys",
        ),
        (200, '{"keys": []}', "no usable key"),
    ],
)
def test_what_is_no_set_of_keys_is_told_apart(status: int, body: str, why: str) -> None:
    with pytest.raises(NoKeys, match=re.escape(why)):
        fetched_keys(HttpAnswer(status, {}, body.encode()))


async def test_on_a_full_disk_a_key_that_is_gone_lets_nobody_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does what is no set of keys at all end the asking."""
    monkeypatch.setattr("aimux.people.keys.COOL_SECONDS", 0.0)
    signer, kept = Signer(), tmp_path / "jwks.json"
    signer.text = jwks(k1=RSA)
    verifiers: list[Signed] = []

    def forget() -> None:
        for one in verifiers:
            one.forget()

    keys = FetchedKeys("https://signer.example/jwks", signer, kept, forget)
    verifiers.append(signed(keys))
    text = token(RSA, "RS256", "k1")
    async with asking(keys) as task:
        await signer.until_asked()
        assert isinstance(find(verifiers[0], text), Access)
        monkeypatch.setattr(Path, "replace", failing)
        for signer.text in ('{"keys": ' + 5000 * "[", jwks(k2=EC)):
            find(verifiers[0], token(EC, "ES256", "k9"))
            await signer.until_asked()
        assert find(verifiers[0], text) in {Denied.PENDING, Denied.UNKNOWN}
        assert not task.done()


def failing(*_: object) -> NoReturn:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


async def test_a_signer_that_was_given_up_is_not_believed_while_the_new_one_does_not_answer(tmp_path: Path) -> None:
    signer, text = Signer(), token(RSA, "RS256", "k1", aud="aimux")
    people: Any = SimpleNamespace(ends=lambda _: None, on_change=lambda: None)

    async def believes(url: str) -> bool:
        trust = Trust(people, signer, tmp_path)
        await trust.adopt(SignedTokens.model_validate({"jwks_url": url, "audience": "aimux"}))
        await signer.until_asked()
        assert trust.signed is not None
        found = find(trust.signed, text)
        await trust.close()
        return isinstance(found, Access)

    signer.text = jwks(k1=RSA)
    assert await believes("https://old.example/jwks")
    signer.text = ""
    assert not await believes("https://new.example/jwks")
    assert await believes("https://old.example/jwks"), "a start needs no signer"
