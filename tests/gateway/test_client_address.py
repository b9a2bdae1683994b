"""Where a request comes from, as peers, trusted proxies and strangers tell it."""

from __future__ import annotations

import pytest
from multidict import CIMultiDict

from aimux.config.scalars import parse_network
from aimux.gateway.client_address import TrustedProxies

PROXY = "10.0.0.1"


def trusting(*networks: str) -> TrustedProxies:
    return TrustedProxies([parse_network(network) for network in networks])


def forwarded_for(*values: str) -> CIMultiDict[str]:
    return CIMultiDict([("x-forwarded-for", value) for value in values])


FORMS = [
    ("203.0.113.7", "203.0.113.7"),
    ("203.0.113.7:4711", "203.0.113.7"),
    ("[2001:db8::7]:4711", "2001:db8::7"),
    ("[2001:db8::7]", "2001:db8::7"),
    ("2001:db8::7", "2001:db8::7"),
    ("[2001:DB8:0::7%eth0]:1", "2001:db8::7"),
    ("::ffff:203.0.113.7", "203.0.113.7"),
    ('"203.0.113.7"', "203.0.113.7"),
    ('"[2001:db8::7]:4711"', "2001:db8::7"),
    ("unknown", "unknown"),
    ("_hidden", "_hidden"),
    ("203.0.113.7:port", "203.0.113.7:port"),
    ("[203.0.113.7", "[203.0.113.7"),
    ("198.51.100.1, 203.0.113.7:4711", "203.0.113.7"),
    ("127.0.0.1, 203.0.113.7:4711", "203.0.113.7"),
    ("127.0.0.1, unknown", "unknown"),
]


@pytest.mark.parametrize(("value", "address"), FORMS)
def test_a_stranger_behind_a_trusted_proxy_on_this_machine_is_never_this_machine(value: str, address: str) -> None:
    proxies = trusting("127.0.0.1/32")
    headers = forwarded_for(value)
    assert proxies.address(headers, "127.0.0.1") == address
    assert not proxies.is_here(headers, "127.0.0.1", "127.0.0.1")


@pytest.mark.parametrize(
    ("value", "address"),
    [
        ("for=203.0.113.7;proto=https", "203.0.113.7"),
        ('For="203.0.113.7:4711";by=10.0.0.9;host="a,b;c"', "203.0.113.7"),
        ('for="[2001:db8::7]:4711"', "2001:db8::7"),
        ('proto=https ; for = "[2001:db8::7]"', "2001:db8::7"),
        ("for=198.51.100.1, for=203.0.113.7", "203.0.113.7"),
        ("for=198.51.100.1,for=unknown", "unknown"),
        ("for=_hidden", "_hidden"),
        ('for="_\\"h"', '_"h'),
        ("proto=https", "unknown"),
        ("for=127.0.0.1, proto=https", "unknown"),
        ('for="127.0.0.1', 'for="127.0.0.1'),
        ("for=127.0.0.1 203.0.113.7", "for=127.0.0.1 203.0.113.7"),
        ("nonsense", "nonsense"),
        ("x" * 500, "x" * 64),
    ],
)
def test_the_standard_header_is_read_too(value: str, address: str) -> None:
    proxies = trusting("127.0.0.1/32")
    headers = CIMultiDict({"Forwarded": value})
    assert proxies.address(headers, "127.0.0.1") == address
    assert not proxies.is_here(headers, "127.0.0.1")


@pytest.mark.parametrize(
    ("headers", "served"),
    [
        ({}, True),
        ({"x-forwarded-for": "127.0.0.1"}, True),
        ({"x-forwarded-for": "127.0.0.1:4711"}, True),
        ({"x-forwarded-for": "[::1]:4711"}, True),
        ({"x-forwarded-for": "8.8.8.8, ::1"}, True),
        ({"forwarded": "for=127.0.0.1"}, True),
        ({"forwarded": "for=127.0.0.1", "x-forwarded-for": "127.0.0.1"}, True),
        ({"x-forwarded-for": "8.8.8.8"}, False),
        ({"x-forwarded-for": "127.0.0.1, 8.8.8.8"}, False),
        ({"x-forwarded-for": " , "}, False),
        ({"forwarded": "for=127.0.0.1", "x-forwarded-for": "8.8.8.8"}, False),
        ({"forwarded": "for=8.8.8.8", "x-forwarded-for": "127.0.0.1"}, False),
        ({"x-real-ip": "127.0.0.1"}, False),
        ({"via": "1.1 proxy"}, False),
        ({"CF-Ray": "9f2a-SIN"}, False),
        ({"tailscale-user-login": "ann@example.org"}, False),
    ],
)
def test_a_trusted_proxy_on_this_machine_speaks_for_its_client(headers: dict[str, str], served: bool) -> None:
    assert trusting("127.0.0.1/32").is_here(CIMultiDict(headers), "127.0.0.1") is served


@pytest.mark.parametrize(
    ("peer", "reached", "here"),
    [
        ("", "", True),
        ("127.0.0.1", "127.0.0.1", True),
        ("127.8.8.8", "127.0.0.1", True),
        ("::1", "::1", True),
        ("::ffff:127.0.0.1", "::ffff:127.0.0.1", True),
        ("192.0.2.5", "192.0.2.5", True),
        ("192.0.2.6", "192.0.2.5", False),
        ("192.0.2.6", "", False),
    ],
)
def test_without_a_proxy_the_connection_tells(peer: str, reached: str, here: bool) -> None:
    proxies = trusting()
    assert proxies.is_here(CIMultiDict(), peer, reached) is here
    assert not proxies.is_here(forwarded_for("127.0.0.1"), peer, reached)
    assert not proxies.is_here(CIMultiDict({"forwarded": "for=127.0.0.1"}), peer, reached)


@pytest.mark.parametrize(
    ("values", "address"),
    [
        (["1.1.1.1"], "1.1.1.1"),
        (["6.6.6.6, 1.1.1.1"], "1.1.1.1"),
        (["6.6.6.6", "1.1.1.1, 10.0.0.9"], "1.1.1.1"),
        (["6.6.6.6", "1.1.1.1:80, 10.0.0.9:80"], "1.1.1.1"),
        (["garbage, 10.0.0.9"], "garbage"),
        (["10.0.0.7, 10.0.0.9"], "10.0.0.7"),
        ([], PROXY),
        ([" , "], PROXY),
    ],
)
def test_the_clients_address_is_the_last_one_that_is_not_trusted(values: list[str], address: str) -> None:
    assert trusting("10.0.0.0/8").address(forwarded_for(*values), PROXY) == address


def test_a_client_that_makes_up_the_other_header_counts_as_its_proxy() -> None:
    proxies = trusting("10.0.0.0/8")
    for number in range(3):
        headers = CIMultiDict({"x-forwarded-for": "1.1.1.1", "forwarded": f"for=9.9.9.{number}"})
        assert proxies.address(headers, PROXY) == PROXY


def test_an_untrusted_peer_cannot_choose_its_address() -> None:
    assert trusting().address(forwarded_for("1.1.1.1"), "8.8.8.8") == "8.8.8.8"
    assert trusting("10.0.0.0/8").address(forwarded_for("1.1.1.1"), "8.8.8.8") == "8.8.8.8"


@pytest.mark.parametrize(
    ("trusted", "address"),
    [(["unix"], "203.0.113.7"), (["127.0.0.0/8"], ""), (["unix", "203.0.113.7"], "6.6.6.6")],
)
def test_a_proxy_at_a_unix_socket_is_believed_where_that_is_said(trusted: list[str], address: str) -> None:
    headers = forwarded_for("6.6.6.6, 203.0.113.7")
    assert trusting(*trusted).address(headers, "") == address
    assert not trusting(*trusted).is_here(headers, "")


def test_of_its_clients_those_on_this_machine_are_here() -> None:
    assert trusting("unix").is_here(forwarded_for("127.0.0.1"), "")
    assert not trusting("unix").is_here(CIMultiDict({"via": "1.1 proxy"}), "")
    assert trusting("unix").is_here(CIMultiDict(), "")
    assert trusting("unix").address(forwarded_for("1.1.1.1"), "8.8.8.8") == "8.8.8.8"
    assert trusting("unix").address(forwarded_for("unix"), "") == "unix"
