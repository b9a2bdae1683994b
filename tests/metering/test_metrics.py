"""What a scrape shows of what was counted."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from aimux.metering import metrics as metrics_module
from aimux.metering.exposition import render
from aimux.metering.metrics import SECONDS, Kept, Metrics
from aimux.metering.record import LATER, RequestRecord
from aimux.plugin.types import Credential, LimitWindow
from aimux.plugin.usage import Usage


@dataclass
class State:
    status: str


@dataclass
class FakeAccount:
    provider: str
    name: str
    status: str = "healthy"
    in_flight: int = 0
    credential: Credential | None = None
    limits: dict[str, LimitWindow] = field(default_factory=dict)

    def state(self, now: float) -> State:
        return State(self.status)


def record(**changes: Any) -> RequestRecord:
    fields: dict[str, Any] = {
        "id": "own",
        "request_id": "r",
        "time": 0.0,
        "method": "POST",
        "path": "/",
        "provider": "claude",
    }
    return RequestRecord(**fields | {"status": 200, "user": "alice", "account": "default"} | changes)


def samples(metrics: Metrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    page, content_type = render(metrics)
    assert content_type == "text/plain; version=0.0.4; charset=utf-8", "the version that every collector knows"
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page.decode())
        for sample in family.samples
    }


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return samples(metrics).get((name, frozenset(labels.items())))


def labels_of(metrics: Metrics, name: str, label: str) -> set[str]:
    return {dict(labels)[label] for found, labels in samples(metrics) if found == name}


def test_requests_by_provider_account_and_status() -> None:
    metrics = Metrics()
    for status in (200, 200, 429):
        metrics.record(record(status=status, attempts=2, bytes_in=10, bytes_out=20))
    metrics.record(record(status=0, error="client_gone"))
    common = {"provider": "claude", "account": "default"}
    assert value(metrics, "aimux_requests_total", status="200", **common) == 2
    assert value(metrics, "aimux_requests_total", status="429", **common) == 1
    assert value(metrics, "aimux_request_errors_total", provider="claude", error="client_gone") == 1
    assert value(metrics, "aimux_upstream_attempts_total", provider="claude") == 6
    assert value(metrics, "aimux_relayed_bytes_total", provider="claude", direction="in") == 30
    assert value(metrics, "aimux_relayed_bytes_total", provider="claude", direction="out") == 60
    assert labels_of(metrics, "aimux_user_requests_total", "user") == set()


def test_histograms_agree_with_a_count_by_hand() -> None:
    metrics = Metrics()
    chance = random.Random(1)
    seconds = [*SECONDS, *(chance.expovariate(0.1) for _ in range(200)), 1e6]
    for one in seconds:
        metrics.record(record(duration=one, ttfb=one / 2))
    found = samples(metrics)
    for bound in SECONDS:
        labels = frozenset({"provider": "claude", "le": str(bound)}.items())
        assert found["aimux_request_duration_seconds_bucket", labels] == sum(one <= bound for one in seconds)
        assert found["aimux_time_to_first_byte_seconds_bucket", labels] == sum(one / 2 <= bound for one in seconds)
    assert value(metrics, "aimux_request_duration_seconds_count", provider="claude") == len(seconds)
    assert value(metrics, "aimux_request_duration_seconds_sum", provider="claude") == pytest.approx(sum(seconds))


def test_an_answer_without_a_first_byte_is_in_no_first_byte_bucket() -> None:
    metrics = Metrics()
    metrics.record(record(ttfb=None))
    assert value(metrics, "aimux_time_to_first_byte_seconds_count", provider="claude") == 0
    assert value(metrics, "aimux_request_duration_seconds_count", provider="claude") == 1


def test_tokens_by_the_model_that_the_upstream_names() -> None:
    metrics = Metrics()
    usage = Usage("sonnet-4", input_tokens=1, output_tokens=20, cache_read_tokens=300, cache_write_tokens=4000)
    usage.reasoning_tokens = 5
    metrics.record(record(model="sonnet", usage=usage))
    metrics.record(record(model="sonnet", usage=usage))
    for kind, count in {"input": 2, "output": 40, "cache_read": 600, "cache_write": 8000}.items():
        assert value(metrics, "aimux_tokens_total", provider="claude", model="sonnet-4", kind=kind) == count
    assert value(metrics, "aimux_reasoning_tokens_total", provider="claude", model="sonnet-4") == 10


def test_what_was_used_behind_an_answer_is_tokens_and_no_request() -> None:
    metrics = Metrics(per_user=True)
    metrics.record(record(method=LATER, model="m", usage=Usage("m", 7, 3)))
    assert value(metrics, "aimux_requests_total", provider="claude", account="default", status="200") is None
    assert metrics.models["claude", "m"].input == 7
    assert (metrics.users, [*metrics.user_models]) == ({}, [("alice", "m")])


def test_users_and_their_models_where_they_are_asked_for() -> None:
    metrics = Metrics(per_user=True)
    for model in ("opus", "opus", "sonnet"):
        metrics.record(record(usage=Usage(model, input_tokens=3, output_tokens=20)))
    metrics.record(record(status=429))
    assert value(metrics, "aimux_user_requests_total", user="alice") == 4
    assert value(metrics, "aimux_user_tokens_total", user="alice", model="opus", kind="output") == 40
    assert value(metrics, "aimux_user_tokens_total", user="alice", model="sonnet", kind="input") == 3


def test_a_model_that_a_client_makes_up_is_no_label() -> None:
    metrics = Metrics()
    metrics.record(record(status=404, model="made-up", usage=Usage()))
    assert labels_of(metrics, "aimux_tokens_total", "model") == set()


def test_models_and_users_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_module, "MAX_MODELS", 3)
    monkeypatch.setattr(metrics_module, "MAX_USERS", 2)
    monkeypatch.setattr(metrics_module, "MAX_USER_MODELS", 4)
    metrics = Metrics(per_user=True)
    for number in range(10):
        metrics.record(record(user=f"u{number}", usage=Usage(f"m{number}", output_tokens=1)))
    assert labels_of(metrics, "aimux_tokens_total", "model") == {"m0", "m1", "m2", "other"}
    assert labels_of(metrics, "aimux_user_requests_total", "user") == {"u0", "u1", "other"}
    assert value(metrics, "aimux_tokens_total", provider="claude", model="other", kind="output") == 7
    models = [("u0", "m0"), ("u1", "m1"), ("other", "m2"), ("other", "m3")]
    for user, model in models:
        assert value(metrics, "aimux_user_tokens_total", user=user, model=model, kind="output") == 1
    assert value(metrics, "aimux_user_tokens_total", user="other", model="other", kind="output") == 6


def test_open_streams_go_up_and_down() -> None:
    metrics = Metrics()
    metrics.opened("claude")
    metrics.opened("claude")
    metrics.closed("claude")
    assert value(metrics, "aimux_open_streams", provider="claude") == 1


def test_accounts_are_read_at_the_scrape() -> None:
    account = FakeAccount("claude", "team", "cooling", 3, Credential("oauth", "secret-token", expires_at=1.8e9))
    account.limits = {"5h": LimitWindow("5h", 0.75), "7d": LimitWindow("7d"), "1h": LimitWindow("1h", 1.0, 1.7e9)}
    metrics = Metrics(accounts=lambda: [account])
    common = {"provider": "claude", "account": "team"}
    assert value(metrics, "aimux_account_state", state="cooling", **common) == 1
    assert value(metrics, "aimux_account_state", state="healthy", **common) == 0
    assert value(metrics, "aimux_account_in_flight", **common) == 3
    assert value(metrics, "aimux_account_limit_used_ratio", window="5h", **common) == 0.75
    assert value(metrics, "aimux_account_limit_used_ratio", window="7d", **common) is None
    assert value(metrics, "aimux_account_limit_used_ratio", window="1h", **common) == 0, "it is over"
    assert value(metrics, "aimux_account_credential_expires_seconds", **common) == 1.8e9
    account.status = "healthy"
    assert value(metrics, "aimux_account_state", state="cooling", **common) == 0
    assert b"secret" not in render(metrics)[0]


def test_refreshes_and_the_certificate() -> None:
    metrics = Metrics(certificate_not_after=lambda: 1.9e9)
    metrics.refresh("claude", "team", "ok")
    metrics.refresh("claude", "team", "rejected")
    assert value(metrics, "aimux_refreshes_total", provider="claude", account="team", outcome="rejected") == 1
    assert value(metrics, "aimux_tls_certificate_not_after_seconds") == 1.9e9
    assert value(Metrics(), "aimux_tls_certificate_not_after_seconds") is None


def test_what_is_kept() -> None:
    metrics = Metrics(kept=lambda: Kept(database_up=False, waiting_bytes=924, lost_requests=3))
    assert value(metrics, "aimux_database_up") == 0
    assert value(metrics, "aimux_ledger_waiting_bytes") == 924
    assert value(metrics, "aimux_ledger_lost_requests_total") == 3
    assert value(Metrics(), "aimux_database_up") == 1


def test_label_values_are_escaped() -> None:
    metrics = Metrics(per_user=True)
    name = 'x"} 1\naimux_forged{a="\\'
    metrics.record(record(user=name))
    assert value(metrics, "aimux_user_requests_total", user=name) == 1
    assert b"\naimux_forged" not in render(metrics)[0]
