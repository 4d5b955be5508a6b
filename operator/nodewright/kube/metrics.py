"""Prometheus collectors shared by all components, under the names that client-go uses."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

REST_REQUESTS = Counter(
    "rest_client_requests_total",
    "Number of HTTP requests, partitioned by status code, method, and host.",
    ["code", "method", "host"],
)
REST_DURATION = Histogram(
    "rest_client_request_duration_seconds",
    "Request latency in seconds, partitioned by verb and host; watches count until their response starts.",
    ["verb", "host"],
    buckets=(0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0),
)
REST_RETRIES = Counter(
    "rest_client_request_retries_total",
    "Number of request retries, partitioned by status code, verb, and host.",
    ["code", "verb", "host"],
)
RATE_LIMITER_DURATION = Histogram(
    "rest_client_rate_limiter_duration_seconds",
    "Time that requests waited for the client's own rate limiter.",
    ["verb", "host"],
    buckets=(0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0),
)
CACHE_OBJECTS = Gauge("nodewright_cache_objects", "Objects held in a watch cache.", ["cache"])
CACHE_LISTS = Counter("nodewright_cache_lists_total", "Lists that a watch cache made.", ["cache"])
CACHE_WATCH_ENDS = Counter("nodewright_cache_watch_ends_total", "Watches that ended, by cause.", ["cache", "cause"])
CACHE_UNDECODABLE = Counter(
    "nodewright_cache_undecodable_objects_total", "Objects skipped because they do not fit their type.", ["cache"]
)
EVENTS_DROPPED = Counter(
    "nodewright_events_dropped_total", "Events that were not posted, by cause: queue_full, spam, failed.", ["cause"]
)
