"""A provider's credential file may have any format: one of `name=value` lines keeps the contract."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from aimux.accounts import AccountPool, FileVault
from aimux.accounts.vault import DEFAULT
from aimux.plugin import Credential, CredentialError, Http, HttpUrl, Provider, ProviderSettings, RefreshRejected
from aimux.plugin.oauth import header_safe, lifetime, read_time, renew
from aimux.testing import ProviderContract, ScriptedHttp, reply


class LinesSettings(ProviderSettings):
    base_url: HttpUrl = "https://api.lines.example"
    token_url: HttpUrl = "https://lines.example/token"


class Lines(Provider):
    name = "lines"
    Settings = LinesSettings
    settings: LinesSettings
    credential_file = "login.env"

    def parse_credential(self, raw: bytes) -> Credential:
        fields = read(raw)
        for name, kind in (("ACCESS_TOKEN", "oauth"), ("API_KEY", "api_key")):
            if fields.get(name):
                refresh = fields.get("REFRESH_TOKEN") if kind == "oauth" else None
                expires = read_time(fields.get("EXPIRES_AT"))
                return Credential(kind, header_safe(fields[name]), refresh_token=refresh or None, expires_at=expires)
        raise CredentialError("has neither a line ACCESS_TOKEN=… nor API_KEY=…")

    def api_key_file(self, api_key: str) -> bytes:
        return f"API_KEY={api_key}\n".encode()

    async def refresh(self, raw: bytes, http: Http) -> bytes:
        fields = read(raw)
        if not fields.get("REFRESH_TOKEN"):
            raise RefreshRejected("there is no refresh token", remedy="log in again")
        form = {"grant_type": "refresh_token", "refresh_token": fields["REFRESH_TOKEN"]}
        answer = await renew(http, self.settings.token_url, instance=self.instance, form=form)
        fields["ACCESS_TOKEN"] = str(answer["access_token"])
        if isinstance(answer.get("refresh_token"), str):
            fields["REFRESH_TOKEN"] = answer["refresh_token"]
        fields["EXPIRES_AT"] = str(int(time.time() + lifetime(answer, 3600)))
        return "".join(f"{name}={value}\n" for name, value in fields.items()).encode()


def read(raw: bytes) -> dict[str, str]:
    try:
        lines = raw.decode().split("\n")
    except UnicodeDecodeError:
        raise CredentialError("is not text") from None
    return {name.strip(): value.strip() for name, mark, value in (line.partition("=") for line in lines) if mark}


LOGIN = b"ACCESS_TOKEN=lines-access-0123456789\nREFRESH_TOKEN=lines-refresh-0123456789\nEXPIRES_AT=1790000000\n"


class TestLines(ProviderContract):
    provider = Lines
    credentials = {"login": LOGIN, "API key": b"API_KEY=lines-key-0123456789\n"}

    def with_strangers(self, raw: bytes) -> Iterator[tuple[str, bytes]]:
        yield "a line", raw + b"SOMEBODY=else\n"

    def lost(self, before: bytes, after: bytes) -> str | None:
        return next(iter(read(before).keys() - read(after).keys()), None)


class TestLinesAsTheyAre(ProviderContract):
    """Nothing is overridden."""

    provider = Lines
    credentials = TestLines.credentials


async def test_a_stale_copy_of_it_gets_the_living_tokens(tmp_path: Path) -> None:
    vault = FileVault(tmp_path)
    await vault.write("lines", DEFAULT, Lines.credential_file, LOGIN, expect=None)
    answers = [reply({"access_token": f"access-{n}-0123456789", "refresh_token": f"r-{n}"}) for n in range(3)]
    pool = AccountPool(Lines(LinesSettings()), vault, ScriptedHttp(*answers))
    await pool.load()
    account = pool.accounts[DEFAULT]
    first = await account.renew()
    await vault.write("lines", DEFAULT, Lines.credential_file, LOGIN, expect=await raw_of(vault))
    await pool.load()
    assert account.credential is not None
    assert account.credential.secret == first.secret
    assert account.parked is None
    await pool.close()
    assert b"lines-refresh" not in await raw_of(vault)


async def raw_of(vault: FileVault) -> bytes:
    return await vault.read("lines", DEFAULT, Lines.credential_file)
