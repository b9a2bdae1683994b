"""The page for `/metrics`: prometheus-client's families, made from what `Metrics` counted.

May run beside the event loop's thread, so every table is copied whole (`list(d.items())`, one step under the
interpreter's lock) before it is walked.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.registry import Collector

import aimux
from aimux.metering.metrics import SECONDS, Histogram, Metrics

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.core import Metric

STATES = ("healthy", "cooling", "parked", "disabled")
BOUNDS = (*map(str, SECONDS), "+Inf")
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Not prometheus-client's latest (1.0.0): it is the same text where names are in ASCII, and some collectors know this
version alone."""


def render(metrics: Metrics) -> tuple[bytes, str]:
    """The page for `/metrics`, which includes the process's memory, CPU and descriptors, and its content type.

    20 ms with MAX_USERS users: worth a thread.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Exposition(metrics))
    ProcessCollector(registry=registry)
    return generate_latest(registry), CONTENT_TYPE


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    running = 0
    pairs = []
    for bound, count in zip(BOUNDS, list(histogram.counts), strict=True):
        running += count
        pairs.append((bound, float(running)))
    return pairs


class Exposition(Collector):
    """aimux's families."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        yield InfoMetricFamily("aimux_build", "The running version", {"version": aimux.__version__})
        yield from self._requests()
        yield from self._providers()
        yield from self._tokens()
        if self._metrics.per_user:
            yield from self._users()
        yield from self._accounts(time.time())
        if (not_after := self._metrics.certificate_not_after()) is not None:
            yield GaugeMetricFamily(
                "aimux_tls_certificate_not_after_seconds", "When the server's certificate expires, unix time", not_after
            )
        kept = self._metrics.kept()
        yield GaugeMetricFamily("aimux_database_up", "Whether the database takes what is written", kept.database_up)
        yield GaugeMetricFamily(
            "aimux_ledger_waiting_bytes", "Finished requests that wait on the disk for the database", kept.waiting_bytes
        )
        yield CounterMetricFamily(
            "aimux_ledger_lost_requests", "Requests that neither the database nor the disk took", kept.lost_requests
        )

    def _requests(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "aimux_requests",
            "Requests that are over, by the status that the client got (0: it left before)",
            labels=("provider", "account", "status"),
        )
        for (provider, account, status), count in list(self._metrics.requests.items()):
            requests.add_metric((provider, account, str(status)), count)
        errors = CounterMetricFamily(
            "aimux_request_errors", "Requests that something ended early", labels=("provider", "error")
        )
        for (provider, error), count in list(self._metrics.errors.items()):
            errors.add_metric((provider, error), count)
        control = CounterMetricFamily(
            "aimux_control_requests", "Requests outside the mounts that are over", labels=("method", "status")
        )
        for (method, status), count in list(self._metrics.control.items()):
            control.add_metric((method, str(status)), count)
        refreshes = CounterMetricFamily(
            "aimux_refreshes", "Renewals of credentials", labels=("provider", "account", "outcome")
        )
        for (provider, account, outcome), count in list(self._metrics.refreshes.items()):
            refreshes.add_metric((provider, account, outcome), count)
        yield from (requests, errors, control, refreshes)

    def _providers(self) -> Iterator[Metric]:
        streams = GaugeMetricFamily(
            "aimux_open_streams", "Answers that are being sent to clients now", labels=("provider",)
        )
        attempts = CounterMetricFamily("aimux_upstream_attempts", "Requests sent upstream", labels=("provider",))
        relayed = CounterMetricFamily(
            "aimux_relayed_bytes",
            "Bytes of bodies: `in` from clients, `out` to clients",
            labels=("provider", "direction"),
        )
        duration = HistogramMetricFamily(
            "aimux_request_duration_seconds", "From a request's head to the end of its answer", labels=("provider",)
        )
        ttfb = HistogramMetricFamily(
            "aimux_time_to_first_byte_seconds", "From a request's head to its answer's first byte", labels=("provider",)
        )
        for name, counts in list(self._metrics.providers.items()):
            streams.add_metric((name,), counts.open)
            attempts.add_metric((name,), counts.attempts)
            relayed.add_metric((name, "in"), counts.bytes_in)
            relayed.add_metric((name, "out"), counts.bytes_out)
            duration.add_metric((name,), _buckets(counts.duration), counts.duration.total)
            ttfb.add_metric((name,), _buckets(counts.ttfb), counts.ttfb.total)
        yield from (streams, attempts, relayed, duration, ttfb)

    def _tokens(self) -> Iterator[Metric]:
        tokens = CounterMetricFamily(
            "aimux_tokens", "Tokens by kind; the kinds do not overlap", labels=("provider", "model", "kind")
        )
        reasoning = CounterMetricFamily(
            "aimux_reasoning_tokens", "The part of the output that was reasoning", labels=("provider", "model")
        )
        for (provider, model), counts in list(self._metrics.models.items()):
            for kind, count in counts.kinds():
                tokens.add_metric((provider, model, kind), count)
            if counts.reasoning:
                reasoning.add_metric((provider, model), counts.reasoning)
        yield from (tokens, reasoning)

    def _users(self) -> Iterator[Metric]:
        requests = CounterMetricFamily("aimux_user_requests", "Requests by user", labels=("user",))
        tokens = CounterMetricFamily(
            "aimux_user_tokens", "Tokens by user, model and kind", labels=("user", "model", "kind")
        )
        for name, number in list(self._metrics.users.items()):
            requests.add_metric((name,), number)
        for (name, model), counts in list(self._metrics.user_models.items()):
            for kind, count in counts.kinds():
                tokens.add_metric((name, model, kind), count)
        yield from (requests, tokens)

    def _accounts(self, now: float) -> Iterator[Metric]:
        account = ("provider", "account")
        state = GaugeMetricFamily(
            "aimux_account_state", "1 for the state that an account is in", labels=(*account, "state")
        )
        in_flight = GaugeMetricFamily("aimux_account_in_flight", "Requests on an account now", labels=account)
        used = GaugeMetricFamily(
            "aimux_account_limit_used_ratio",
            "Used part of a limit window, as the upstream last told it; 0 once that one is over",
            labels=(*account, "window"),
        )
        expires = GaugeMetricFamily(
            "aimux_account_credential_expires_seconds",
            "When an account's credential expires, unix time",
            labels=account,
        )
        for view in list(self._metrics.accounts()):
            names = (view.provider, view.name)
            status = view.state(now).status
            for one in STATES:
                state.add_metric((*names, one), one == status)
            in_flight.add_metric(names, view.in_flight)
            for window, limit in list(view.limits.items()):
                if limit.used is not None:
                    over = limit.resets_at is not None and limit.resets_at <= now
                    used.add_metric((*names, window), 0.0 if over else limit.used)
            if view.credential is not None and view.credential.expires_at is not None:
                expires.add_metric(names, view.credential.expires_at)
        yield from (state, in_flight, used, expires)
