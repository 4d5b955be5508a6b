"""What the agent takes over, and that it finds its way back to the file."""

from __future__ import annotations

from nodewright_agent.config import AgentConfig
from nodewright_agent.liveconfig.agent import LogRotation, MaxPods, log_limits
from nodewright_agent.liveconfig.merge import merge
from nodewright_agent.pods.logrotation import LogLimits
from unit.liveconfig.config_objects import config


def test_max_pods_and_back():
    own, calls = AgentConfig(max_pods=40), []
    subscriber = MaxPods(own, lambda: calls.append(own.max_pods))
    subscriber.apply(merge([config("c", {"maxPods": 0})], {}))
    subscriber.apply(merge([config("c", {"maxPods": 0})], {}))
    subscriber.apply(merge([], {}))
    assert calls == [0, 40]


def test_log_limits_one_by_one_and_back():
    own, taken = AgentConfig(container_log_max_size="1Mi"), []
    assert log_limits(AgentConfig()) == LogLimits(10 << 20, 5), "kubelet's defaults"
    subscriber = LogRotation(own, taken.append)
    subscriber.apply(merge([config("c", {"containerLogMaxFiles": 2})], {}))
    subscriber.apply(merge([config("c", {"containerLogMaxSize": "2k"})], {}))
    subscriber.apply(merge([], {}))
    assert taken == [LogLimits(1 << 20, 2), LogLimits(2000, 5), LogLimits(1 << 20, 5)]
    assert own.container_log_max_size == "1Mi"
