"""Settings, accounts and logins that change under a running pool."""

from __future__ import annotations

import dataclasses
from typing import Any

from pydantic import SecretStr

from aimux.accounts import Account, AccountPool, Selection
from aimux.plugin import AccountSettings, Action, Credential, CredentialError, Verdict
from tests.accounts.support import START, Clock, chosen, credential_file, pool_of, put, used


async def test_new_settings_apply_and_live_state_stays(make_pool: Any, state_dir: Any, clock: Clock) -> None:
    pool = await pool_of(make_pool, state_dir, "a b")
    a = pool.accounts["a"]
    a.load(3)
    used(a, 0.5)
    provider = type(pool.provider)
    settings = pool.provider.settings.model_copy(
        update={"strategy": "priority", "accounts": {"b": AccountSettings(priority=1)}}
    )
    pool.reconfigure(provider(settings))
    assert pool.accounts["a"] is a
    assert a.in_flight == 3
    assert chosen(pool, 2) == ["a", "a"]
    pool.reconfigure(provider(settings.model_copy(update={"accounts": {"a": AccountSettings(priority=1)}})))
    assert chosen(pool, 2) == ["b", "b"]
    pool.reconfigure(provider(settings.model_copy(update={"strategy": "round_robin", "accounts": {}})))
    pool.reconfigure(provider(settings.model_copy(update={"strategy": "least_used", "accounts": {}})))
    used(pool.accounts["b"], 0.5)
    assert chosen(pool, 3) == ["b"] * 3, "what is in flight still counts"
    a.load(-3)
    assert a.in_flight == 0
    assert "a" in chosen(pool, 2)
    pool.reconfigure(provider(settings.model_copy(update={"accounts": {}})))
    assert chosen(pool, 4) == ["a"] * 4, "the strategy alone is another one"


async def test_a_key_in_the_configuration_that_is_none_parks_its_account_and_no_other(
    make_pool: Any, state_dir: Any
) -> None:
    pool = await pool_of(make_pool, state_dir, "a")
    provider = type(pool.provider)

    class Choosy(provider):  # type: ignore[misc, valid-type]
        def parse_credential(self, raw: bytes) -> Credential:
            credential: Credential = super().parse_credential(raw)
            if credential.secret == "of-another-vendor":
                raise CredentialError("holds another vendor's key")
            return credential

    def with_key(key: str) -> Choosy:
        return Choosy(pool.provider.settings.model_copy(update={"api_key": SecretStr(key)}))

    pool.reconfigure(with_key("of-another-vendor"))
    await pool.load()
    state = pool.accounts["api-key"].state(START)
    assert (state.status, state.reason) == ("parked", "providers.demo.api_key holds another vendor's key")
    assert "of-another-vendor" not in state.remedy
    assert set(chosen(pool, 4)) == {"a"}
    for key, status in (("one-of-ours", "healthy"), ("of-another-vendor", "parked"), ("one-of-ours", "healthy")):
        pool.reconfigure(with_key(key))
        await pool.load()
        assert pool.accounts["api-key"].state(START).status == status
    pool.reconfigure(provider(pool.provider.settings.model_copy(update={"api_key": None})))
    await pool.load()
    assert set(pool.accounts) == {"a"}, "a key that was taken out of the configuration serves nobody"


async def test_a_key_in_the_configuration_goes_before_a_file_of_its_accounts_name(
    make_pool: Any, state_dir: Any
) -> None:
    pool = await pool_of(make_pool, state_dir, "a@org api-key@org")
    own = {"api_key": SecretStr("of-the-configuration")}
    provider, settings = type(pool.provider), pool.provider.settings
    pool.reconfigure(provider(settings.model_copy(update=own)))
    await pool.load()
    used(pool.accounts["a"], 0.7)
    assert pool.accounts["api-key"].limits == {}, "it is of no organization"
    assert {"of-the-configuration", "access-a", "refresh-0"} <= {*pool.secrets()}
    assert "access-api-key" not in {*pool.secrets()}
    pool.reconfigure(provider(settings))
    await pool.load()
    assert "access-api-key" in {*pool.secrets()}
    assert pool.accounts["api-key"].limits["5h"].used == 0.7


async def test_accounts_that_come_and_go(make_pool: Any, state_dir: Any) -> None:
    pool = await pool_of(make_pool, state_dir, "a")
    put(state_dir, credential_file(), "b")
    assert set(chosen(pool, 4)) == {"a"}
    await pool.load()
    assert set(chosen(pool, 4)) == {"a", "b"}
    gone = pool.accounts["a"]
    gone.load(1)
    (state_dir / "demo" / "a" / "demo.json").unlink()
    await pool.load()
    assert set(chosen(pool, 4)) == {"b"}
    gone.load(-1)  # its last request ends after it has left
    assert chosen(pool, 1, Selection(pinned="a")) == ["-"]


async def test_the_same_login_twice_is_recognised_when_a_renewal_names_its_organization(
    make_pool: Any, state_dir: Any
) -> None:
    pool = await pool_of(make_pool, state_dir, "a b")
    used(pool.accounts["a"], 0.7)
    put(state_dir, credential_file("x", organization="org"), "a")
    put(state_dir, credential_file("y", organization="org"), "b")
    await pool.load()
    assert pool.accounts["b"].limits["5h"].used == 0.7


async def test_a_login_of_somebody_else_starts_with_its_own_limits(make_pool: Any, state_dir: Any) -> None:
    pool = await pool_of(make_pool, state_dir, "a@org")
    a = pool.accounts["a"]
    a.apply(Verdict(Action.COOL_DOWN, until=START + 3600), START)
    put(state_dir, credential_file("other", organization="other"), "a")
    await pool.load()
    assert chosen(pool, 1) == ["a"]
    assert a.limits == {}


async def test_an_answer_counts_though_the_file_was_read_again_meanwhile(make_pool: Any, state_dir: Any) -> None:
    pool = await pool_of(make_pool, state_dir, "a")
    account = pool.accounts["a"]
    sent = account.credential
    assert sent is not None
    account.publish(dataclasses.replace(sent), START)
    account.has_served(sent)
    assert account.served
    account.publish(dataclasses.replace(sent, secret="of a new login"), START)
    account.has_served(sent)
    assert not account.served


def served_key(pool: AccountPool) -> Account:
    account = pool.accounts["a"]
    assert account.credential is not None
    account.has_served(account.credential)
    return account


async def test_a_key_that_is_refused_for_an_hour_is_parked_with_what_to_do(make_pool: Any, state_dir: Any) -> None:
    pool = await pool_of(make_pool, state_dir, "")
    put(state_dir, b'{"api_key": "k"}', "a")
    await pool.load()
    account = served_key(pool)
    for minutes in range(0, 60, 6):
        account.refused("the key was not accepted", START + minutes * 60)
    state = account.state(START + 54 * 60)
    assert (state.status, state.reason) == ("cooling", "the key was not accepted")
    assert state.remedy == "if it was revoked, put in another: aimux login demo --account a --api-key"
    account.refused("the key was not accepted", START + 3600)
    state = account.state(START + 3600)
    assert (state.status, state.reason) == ("parked", "the key was not accepted, since 2027-01-15 08:00 UTC")
    assert state.remedy.endswith("aimux login demo --account a --api-key; if it is good, aimux accounts enable demo/a")
    account.enable()
    account.refused("the key was not accepted", START + 3600)
    assert account.state(START + 3600).status == "healthy", "it begins anew"


async def test_neither_a_crowd_of_refusals_nor_some_in_a_week_park_a_key_that_has_served(
    make_pool: Any, state_dir: Any
) -> None:
    pool = await pool_of(make_pool, state_dir, "")
    put(state_dir, b'{"api_key": "k"}', "a")
    await pool.load()
    account = served_key(pool)
    for _ in range(50):
        account.refused("the key was not accepted", START)
    assert account.state(START).status == "cooling"
    served_key(pool)
    for day in range(9):
        account.refused("the key was not accepted", START + day * 86400)
    assert account.state(START + 8 * 86400).status == "cooling"


async def test_what_is_known_of_an_organization_stays_until_its_last_account_has_left(
    make_pool: Any, state_dir: Any
) -> None:
    pool = await pool_of(make_pool, state_dir, "a@org b@org")
    used(pool.accounts["a"], 0.7)
    (state_dir / "demo" / "a" / "demo.json").unlink()
    await pool.load()
    put(state_dir, credential_file("another", organization="org"), "c")
    await pool.load()
    assert pool.accounts["c"].limits["5h"].used == 0.7
    for name in ("b", "c"):
        (state_dir / "demo" / name / "demo.json").unlink()
    await pool.load()
    put(state_dir, credential_file("a later one", organization="org"), "d")
    await pool.load()
    assert pool.accounts["d"].limits == {}
    assert list(pool._organizations.quotas) == ["org"]
    put(state_dir, credential_file("of somebody else", organization="other"), "d")
    await pool.load()
    assert list(pool._organizations.quotas) == ["other"]
