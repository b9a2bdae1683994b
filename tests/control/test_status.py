"""Status and the front page: who sees what of it, and that each request leaves its line."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping

import aiohttp
import pytest

from tests.waiting import until

from .conftest import Aimux, Start

ELSEWHERE = {"x-forwarded-for": "203.0.113.9"}
FOREIGN = {"origin": "https://evil.example"}


async def get(aimux: Aimux, path: str, method: str = "GET", **headers: str) -> tuple[int, Mapping[str, str], str]:
    async with aiohttp.ClientSession() as session, session.request(method, aimux.url + path, headers=headers) as answer:
        return answer.status, answer.headers, await answer.text()


async def test_health_says_ok_to_everybody_and_nothing_more(aimux: Aimux) -> None:
    for headers in ({}, ELSEWHERE, FOREIGN, {"host": "rebound.example"}):
        status, _, text = await get(aimux, "/health", **headers)
        assert (status, text) == (200, '{"status": "ok"}')


@pytest.mark.parametrize("path", ["/ready", "/metrics"])
@pytest.mark.parametrize(
    "headers",
    [
        ELSEWHERE,
        {"forwarded": "for=127.0.0.1"},
        FOREIGN,
        {"sec-fetch-site": "cross-site"},
        {"host": "rebound.example"},
    ],
    ids=["elsewhere", "through a proxy", "a foreign page", "a browser says so", "a name that was rebound"],
)
async def test_what_names_people_is_for_this_machine(aimux: Aimux, path: str, headers: dict[str, str]) -> None:
    assert (await get(aimux, path))[0] == 200
    status, answered, text = await get(aimux, path, **headers)
    assert status == 403
    assert answered["content-type"] == "application/problem+json"
    assert "metrics_public" in text
    assert "claude" not in text
    through = headers is ELSEWHERE or "forwarded" in headers
    assert ("ask localhost" in text) is not through, "whoever asks by another name from here is told how to"


async def test_metrics_public_opens_them(start: Start) -> None:
    aimux = await start(metrics_public=True)
    assert "aimux_requests" in (await get(aimux, "/metrics", **ELSEWHERE))[2]
    assert '"ready": true' in (await get(aimux, "/ready", host="aimux.example"))[2]


async def test_a_certificate_of_ones_own_is_for_everybody(start: Start) -> None:
    own = await start(tls={"enabled": True, "self_signed": {"names": ["gateway.lan"]}})
    seen = await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", int(own.url.rpartition(":")[2])))
    async with aiohttp.ClientSession() as session:
        url = f"{own.url}/certificate.pem"
        async with session.get(url, ssl=ssl.create_default_context(cadata=seen), headers=ELSEWHERE) as answer:
            assert (answer.status, answer.content_type) == (200, "application/x-pem-file")
            assert ssl.PEM_cert_to_DER_cert(await answer.text()) == ssl.PEM_cert_to_DER_cert(seen)


async def test_without_one_there_is_nothing_to_fetch(aimux: Aimux) -> None:
    assert (await get(aimux, "/certificate.pem"))[0] == 404


async def test_the_front_page_leads_to_the_dashboard(aimux: Aimux) -> None:
    status, headers, text = await get(aimux, "/", host="aimux.example:8443")
    assert status == 200
    assert headers["content-type"] == "text/html; charset=utf-8"
    assert "Sign in to aimux" in text


async def test_a_host_that_no_address_can_have_is_refused(aimux: Aimux) -> None:
    for host in ("[", "a:b:c", ":99999", "a:-1"):
        for path in ("/", "/health", "/dashboard/sign-in", "/api/v1/accounts"):
            assert (await get(aimux, path, host=host))[0] == 400
    assert "a fault in aimux" not in aimux.log


async def test_a_redirect_leaves_its_status_in_the_log(aimux: Aimux) -> None:
    await get(aimux, "/", **{"x-request-id": "front"})
    await until(lambda: "id=front" in aimux.log)
    assert [line for line in aimux.log.splitlines() if "id=front" in line and "status=303" in line]


async def test_every_answer_tells_browsers_to_be_careful(aimux: Aimux) -> None:
    for path in ("/", "/health", "/nothing", "/api/v1/accounts"):
        _, headers, _ = await get(aimux, path)
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "server" not in headers
        assert headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"sec-fetch-site": "same-origin", "origin": "https://behind.a.proxy"}, 200),
        ({"sec-fetch-site": "none"}, 200),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
    ],
)
async def test_another_sites_page_changes_nothing(aimux: Aimux, headers: dict[str, str], status: int) -> None:
    got, _, problem = await aimux.send("POST", "/accounts/claude/default/disable", headers=headers)
    assert got == status
    assert status == 200 or problem["type"] == "urn:aimux:origin"
    assert (await aimux.send("GET", "/accounts", headers=headers))[0] == 200
    origin = aimux.url
    assert (await aimux.send("POST", "/accounts/claude/default/enable", headers={"origin": origin}))[0] == 200


async def test_each_request_is_a_line_and_a_count(aimux: Aimux) -> None:
    async def guess(number: int) -> None:
        wrong = {"authorization": f"Bearer wrong-{number}", "x-request-id": "guess"}
        await aimux.send("GET", "/accounts", headers=wrong)

    await asyncio.gather(*map(guess, range(40)))
    await get(aimux, "/nothing", **{"x-request-id": "none"})
    await aimux.get("/accounts")
    await until(lambda: aimux.log.count(" ACCESS ") >= 42)
    lines = [line for line in aimux.log.splitlines() if " ACCESS " in line]
    guesses = [line for line in lines if "id=guess" in line]
    wrong = [line for line in guesses if "status=401" in line and "error=unauthorized" in line]
    unseen = [line for line in guesses if "status=429" in line and "error=slow_down" in line]
    assert wrong
    assert unseen
    assert len(guesses) == len(wrong) + len(unseen) == 40
    (nothing,) = [line for line in lines if "id=none" in line]
    assert "path=/nothing status=404" in nothing
    assert "error=not_found" in nothing
    assert [line for line in lines if "user=admin" in line and "path=/api/v1/accounts status=200" in line]
    text = (await get(aimux, "/metrics"))[2]
    assert f'aimux_control_requests_total{{method="GET",status="401"}} {len(wrong)}.0' in text
    assert 'aimux_control_requests_total{method="GET",status="404"} 1.0' in text
    assert 'provider=""' not in text
