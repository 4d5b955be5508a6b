"""Metrics of the webhook, under controller-runtime's names where it has one."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10)

REQUESTS = Counter(
    "controller_runtime_webhook_requests_total",
    "Total number of admission requests by HTTP status code.",
    ["webhook", "code"],
)
LATENCY = Histogram(
    "controller_runtime_webhook_latency_seconds",
    "Histogram of the latency of processing admission requests",
    ["webhook"],
    buckets=_BUCKETS,
)
IN_FLIGHT = Gauge(
    "controller_runtime_webhook_requests_in_flight",
    "Current number of admission requests being served.",
    ["webhook"],
)
REVIEWS = Counter(
    "nodewright_admission_reviews_total",
    "Objects reviewed, by result: allowed, warned (allowed, with warnings) or denied.",
    ["webhook", "result"],
)
EXPIRY = Gauge(
    "nodewright_webhook_certificate_expiration_timestamp_seconds",
    "When the served certificate (kind=serving) and its authority (kind=authority) expire, in seconds since 1970.",
    ["kind"],
)
