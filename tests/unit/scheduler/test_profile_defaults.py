"""The default profile is upstream's: plugins in order, extension points, weights and arguments."""

import msgspec
import pytest

from nodewright.scheduler.objects import TopologySpreadConstraint
from nodewright.scheduler.plugins import balanced_allocation, inter_pod_affinity, node_affinity, node_resources_fit
from nodewright.scheduler.plugins import pod_topology_spread as spread
from nodewright.scheduler.points import ABSENT, BUILT_IN, POINTS, points_of
from nodewright.scheduler.profile import Profile
from nodewright.scheduler.registry import DEFAULT_PLUGINS

# kube-scheduler 1.36, KubeSchedulerConfiguration v1: the multiPoint plugins in order, what each has of the points that
# exist here, and the weight of its score. DynamicResources (DRA) only holds Pods
# with claims back, so it neither filters nor scores.
UPSTREAM = [
    ("SchedulingGates", "preEnqueue", 0),
    ("PrioritySort", "queueSort", 0),
    ("NodeUnschedulable", "filter", 0),
    ("NodeName", "filter", 0),
    ("TaintToleration", "filter score", 3),
    ("NodeAffinity", "filter score", 2),
    ("NodePorts", "filter", 0),
    ("NodeResourcesFit", "filter score", 1),
    ("VolumeRestrictions", "filter", 0),
    ("NodeVolumeLimits", "filter", 0),
    ("VolumeBinding", "filter reserve preBind", 0),
    ("VolumeZone", "filter", 0),
    ("PodTopologySpread", "filter score", 2),
    ("InterPodAffinity", "filter score", 2),
    ("DynamicResources", "preFilter", 0),
    ("DefaultPreemption", "postFilter", 0),
    ("NodeResourcesBalancedAllocation", "score", 1),
    ("ImageLocality", "score", 1),
    ("DefaultBinder", "bind", 0),
]


def names(point):
    return [name for name, points, _ in UPSTREAM if point in points.split()]


def test_plugins_and_their_order():
    assert [cls.name for cls in DEFAULT_PLUGINS] == [name for name, *_ in UPSTREAM if name not in BUILT_IN]
    assert list(BUILT_IN) == ["SchedulingGates", "PrioritySort", "DefaultBinder"]


@pytest.mark.parametrize("point", ["filter", "score", "reserve", "preBind", "postFilter"])
def test_who_runs_where(point):
    profile = Profile()
    running = {
        "filter": profile.filters,
        "score": [s.plugin for s in profile.scorers],
        "reserve": profile.reservers,
        "preBind": profile.pre_binders,
        "postFilter": [profile.post_filter],
    }
    assert [plugin.name for plugin in running[point]] == names(point)


def test_weights():
    assert {s.plugin.name: s.weight for s in Profile().scorers} == {n: w for n, _, w in UPSTREAM if w}


def test_upstream_points_are_all_accepted():
    for cls in DEFAULT_PLUGINS:
        points = next(points for name, points, _ in UPSTREAM if name == cls.name)
        assert points_of(cls.name, cls) >= set(points.split())
        assert points_of(cls.name, cls) <= set(POINTS)
    assert not ABSENT & {cls.name for cls in DEFAULT_PLUGINS}


def plain(args):
    return msgspec.to_builtins(args)


def test_arguments():
    cpu_and_memory = [{"name": "cpu", "weight": 1}, {"name": "memory", "weight": 1}]
    assert plain(node_resources_fit.Args()) == {
        "ignoredResources": [],
        "ignoredResourceGroups": [],
        "scoringStrategy": {
            "type": "LeastAllocated",
            "resources": cpu_and_memory,
            "requestedToCapacityRatio": None,
        },
    }
    assert plain(balanced_allocation.Args()) == {"resources": cpu_and_memory}
    assert plain(node_affinity.Args()) == {"addedAffinity": None}
    assert plain(inter_pod_affinity.Args()) == {
        "hardPodAffinityWeight": 1,
        "ignorePreferredTermsOfExistingPods": False,
    }
    assert plain(spread.Args()) == {"defaultConstraints": [], "defaultingType": "System"}


def test_arguments_of_preemption_and_volumes():
    profile = Profile()
    preemption = type(profile.plugins["DefaultPreemption"]).args_type
    assert plain(preemption()) == {"minCandidateNodesPercentage": 10, "minCandidateNodesAbsolute": 100}
    binding = type(profile.plugins["VolumeBinding"]).args_type
    assert plain(binding())["bindTimeoutSeconds"] == 600


def test_systems_default_constraints():
    assert list(spread.SYSTEM_DEFAULTS) == [
        TopologySpreadConstraint(
            max_skew=3, topology_key="kubernetes.io/hostname", when_unsatisfiable="ScheduleAnyway"
        ),
        TopologySpreadConstraint(
            max_skew=5, topology_key="topology.kubernetes.io/zone", when_unsatisfiable="ScheduleAnyway"
        ),
    ]
