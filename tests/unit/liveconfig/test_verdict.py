"""What a node says about an object."""

from __future__ import annotations

import pytest

from nodewright.kube.api.meta import Condition
from nodewright.kube.api.nodeconfigs import NodeEntry
from nodewright_agent.liveconfig.merge import merge
from nodewright_agent.liveconfig.verdict import (
    APPLIED,
    PROXY_APPLIED,
    Outcome,
    ProxyFacts,
    Report,
    entry,
    outcome,
    own_part,
)
from unit.liveconfig.config_objects import config

AGENT = Report(frozenset(("maxPods", "containerLogMaxSize", "containerLogMaxFiles")))
PROXY = {"proxy.mode": "the host's proxy", "proxy.ipvs.scheduler": "the host's proxy"}


def judge(report, *objects, name="c"):
    return outcome(name, merge(objects, {}), report)


@pytest.mark.parametrize(
    ("spec", "report", "expected"),
    [
        ({}, AGENT, Outcome("True", "Applied", "")),
        ({"maxPods": 5}, AGENT, Outcome("True", "Applied", "")),
        (
            {"maxPods": 5, "evictionHard": {}, "imageGCHighThresholdPercent": 80},
            AGENT,
            Outcome(
                "False",
                "UnsupportedFields",
                "not supported by this version of the agent: evictionHard, imageGCHighThresholdPercent",
            ),
        ),
        ({"maxPods": -5}, AGENT, Outcome("False", "Invalid", "left out: maxPods: -5 is no whole number from 0 on")),
        (
            {"proxy": {"mode": "ipvs", "ipvs": {"scheduler": "rr"}}},
            AGENT._replace(elsewhere=PROXY),
            Outcome("True", "ServedElsewhere", "proxy.ipvs.scheduler, proxy.mode: the host's proxy"),
        ),
        (
            {"maxPods": 5, "proxy": {"mode": "ipvs"}},
            AGENT._replace(elsewhere=PROXY),
            Outcome("True", "Applied", "proxy.mode: the host's proxy"),
        ),
        (
            {"proxy": {"mode": "ipvs"}},
            Report(frozenset(("proxy.mode",)), problems={"proxy.mode": "no ip_vs"}),
            Outcome("False", "NotPossible", "proxy.mode: no ip_vs"),
        ),
        (
            {"maxPods": 5},
            Report(frozenset(("proxy.mode",)), {"maxPods": "not Nodewright's"}, {"proxy.mode": "no ip_vs"}),
            Outcome("True", "ServedElsewhere", "maxPods: not Nodewright's"),
        ),
    ],
)
def test_outcomes(spec, report, expected):
    assert judge(report, config("c", spec)) == expected


def test_what_another_object_decides_is_named():
    other = config("other", {"priority": 1, "maxPods": 9, "evictionHard": {}})
    both = config("c", {"maxPods": 5, "containerLogMaxFiles": 3})
    assert judge(AGENT, other, both) == ("True", "Applied", "maxPods: other has precedence")
    lost = config("c", {"maxPods": 5})
    assert judge(AGENT, other, lost) == ("True", "Overridden", "maxPods: other has precedence")
    unsupported = config("c", {"evictionHard": {"memory.available": "5%"}})
    assert judge(AGENT, other, unsupported) == ("True", "Overridden", "evictionHard: other has precedence")
    assert judge(AGENT, other, lost, name="other").status == "False"


def test_a_transition_time_stays_where_the_status_does():
    report = AGENT._replace(proxy=ProxyFacts("ipvs", "because", "rr"))
    good, bad = Outcome("True", "Applied", ""), Outcome("False", "NotPossible", "x")
    first = entry("n", 3, good, report, None, "t1", APPLIED)
    assert first == NodeEntry("n", 3, "ipvs", "because", "rr", [Condition("Applied", "True", "Applied", "", "t1", 3)])
    assert entry("n", 4, good, report, first, "t2", APPLIED).conditions[0].last_transition_time == "t1"
    assert entry("n", 4, bad, report, first, "t2", APPLIED).conditions[0].last_transition_time == "t2"


def test_agent_and_proxy_of_one_node_write_different_parts():
    good = Outcome("True", "Applied", "")
    agents = entry("n", 3, good, AGENT, None, "t1", APPLIED)
    proxys = entry("n", 3, good, Report(frozenset(), proxy=ProxyFacts("ipvs", "why", "rr")), None, "t1", PROXY_APPLIED)
    both = NodeEntry("n", 3, "ipvs", "why", "rr", [*agents.conditions, *proxys.conditions])
    assert own_part(both, APPLIED, proxy=False) == agents
    assert own_part(both, PROXY_APPLIED, proxy=True) == proxys
    assert proxys.observed_generation == 0, "the agent's"
