"""What the differential test found: answers of kube-scheduler 1.36.3 that its documentation does not tell."""

from __future__ import annotations

import msgspec
import pytest

from nodewright.scheduler.core import SchedulerCore
from nodewright.scheduler.explain import Cluster
from nodewright.scheduler.profile import Profile
from nodewright.scheduler.state import ClusterState, NodeView
from nodewright.scheduler.storage_objects import Claim, PersistentVolume
from nodewright.scheduler.world_objects import Service, ServiceSpec
from support.scheduler_builders import info, make_node, make_pod

ZONE = "topology.kubernetes.io/zone"


@pytest.fixture
def core():
    return SchedulerCore({"nodewright": Profile()}, lambda: 0.0)


def weighted(nodes, pods, pod, plugin, tell=lambda core: None):
    """The weighted score of one plugin per node."""
    profile = Profile()
    cluster = Cluster(nodes, pods, {"nodewright": profile})
    tell(cluster.core)
    verdicts = cluster.explain(profile, pod).nodes
    return {v.node: v.scores[plugin].weighted for v in verdicts if v.fits and plugin in v.scores}


@pytest.mark.parametrize("read", [NodeView.allocatable, NodeView.requested])
def test_a_resource_that_nobody_has_named_before(read):
    state = ClusterState(capacity=1)
    state.set_node(make_node("n"))
    for number in range(6):
        assert list(read(NodeView(state), f"example.com/{number}")) == [0]


@pytest.mark.parametrize(
    ("requests", "whole", "expected"),
    [
        ({"cpu": "1", "memory": "256Mi"}, {"memory": "2Gi"}, {"n0": 93, "n1": 97}),
        ({"cpu": "1"}, {"memory": "2Gi"}, {"n0": 94, "n1": 97}),
        ({}, {"cpu": "2"}, {"n0": 98, "n1": 99}),
        ({"cpu": "0", "memory": "0"}, {"cpu": "2"}, {"n0": 100, "n1": 100}),
    ],
)
def test_room_is_scored_without_what_the_pod_requests_as_a_whole(requests, whole, expected):
    nodes = [make_node("n0", "10", "10Gi"), make_node("n1", "20", "40Gi")]
    pod = make_pod("p", requests, resources={"requests": whole})
    assert weighted(nodes, [], pod, "NodeResourcesFit") == expected


def test_a_stated_zero_beside_requests_of_the_whole_pod():
    init = [{"name": "i", "image": "none"}]
    stated = make_pod(requests={"memory": "0"}, resources={"requests": {"cpu": "3"}}, initContainers=init)
    unstated = make_pod(resources={"requests": {"cpu": "3"}})
    assert info(stated).template.nonzero_memory == 0
    assert info(unstated).template.nonzero_memory == 200 * 1024 * 1024


def test_an_empty_selector_counts_no_pods(core):
    core.on_node(None, make_node("n0", labels={ZONE: "a"}))
    core.on_node(None, make_node("n1", labels={ZONE: "b"}, unschedulable=True))
    for number in range(3):
        core.on_pod(None, make_pod(f"there-{number}", node="n0"))
    core.on_pod(
        None,
        make_pod(
            "p",
            topologySpreadConstraints=[{"maxSkew": 1, "topologyKey": ZONE, "labelSelector": {}}],
        ),
    )
    assert core.attempt().outcome.node == "n0"


def test_nodes_without_a_zone_are_one_more_zone_to_default_spreading():
    # n1 has no zone; n2 has no host name, and the one Pod in its zone.
    nodes = [
        make_node("n1"),
        make_node("n2", labels={ZONE: "b"}),
        make_node("n3", labels={ZONE: "a"}),
        make_node("n4", labels={ZONE: "a"}),
    ]
    del nodes[1].metadata.labels["kubernetes.io/hostname"]
    pods = [make_pod("a", node="n1", labels={"app": "x"}), make_pod("b", node="n2", labels={"app": "x"})]
    service = Service(metadata=make_pod("s").metadata, spec=ServiceSpec(selector={"app": "x"}))
    scores = weighted(
        nodes,
        pods,
        make_pod("p", labels={"app": "x"}),
        "PodTopologySpread",
        lambda core: core.on_service(None, service),
    )
    # ln(4 + 2) + 2, ln(3 + 2) + 4, 2 + 4, 2 + 4 are 4, 6, 6, 6 when rounded; with two zones, n2 would have 5.
    assert scores == {"n1": 200, "n2": 132, "n3": 132, "n4": 132}


def test_a_pod_rejected_before_nodes_are_looked_at(core):
    core.on_node(None, make_node("n0"))
    volume = {"name": "v", "persistentVolumeClaim": {"claimName": "missing"}}
    core.on_pod(None, make_pod("p", volumes=[volume]))
    assert core.attempt().outcome.message() == (
        '0/1 nodes are available: persistentvolumeclaim "missing" not found. not found'
    )


def test_nobody_is_evicted_from_a_node_in_the_wrong_zone(core):
    for name in "n0", "n1":
        core.on_node(None, make_node(name, "2", labels={ZONE: "b"}))
    core.on_pod(None, make_pod("b0", {"cpu": "2"}, node="n0", priority=10))
    core.on_pod(None, make_pod("b1", {"cpu": "2"}, node="n1", priority=1000))
    storage = core.state.storage
    storage.on_volume(None, convert_volume())
    storage.on_claim(None, convert_claim())
    volume = {"name": "v", "persistentVolumeClaim": {"claimName": "zoned"}}
    core.on_pod(None, make_pod("p", {"cpu": "1"}, priority=1000, volumes=[volume]))
    attempt = core.attempt()
    assert attempt.preemption is None
    assert attempt.outcome.message() == (
        "0/2 nodes are available: 2 Insufficient cpu. no new claims to deallocate, preemption: "
        "0/2 nodes are available: 1 No preemption victims found for incoming pod, "
        "1 node(s) had no available volume zone."
    )


def test_ports_come_before_room_when_evicting_is_tried(core):
    for name in "n0", "n1":
        core.on_node(None, make_node(name, "2"))
    ports = [{"containerPort": 80, "hostPort": 8080}]
    core.on_pod(None, make_pod("b0", {"cpu": "1"}, node="n0", priority=1000, ports=ports))
    core.on_pod(None, make_pod("b1", {"cpu": "500m"}, node="n0", priority=10))
    core.on_pod(None, make_pod("b2", {"cpu": "2"}, node="n1", priority=1000))
    core.on_pod(None, make_pod("p", {"cpu": "1500m"}, priority=1000, ports=ports))
    assert (
        core.attempt()
        .outcome.message()
        .endswith(
            "preemption: 0/2 nodes are available: 1 No preemption victims found for incoming pod, "
            "1 node(s) didn't have free ports for the requested pod ports."
        )
    )


def convert_volume():
    reference = {"namespace": "default", "name": "zoned", "uid": "uid-zoned"}
    return msgspec.convert(
        {
            "metadata": {"name": "pv", "uid": "uid-pv", "labels": {ZONE: "a"}},
            "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "claimRef": reference},
        },
        PersistentVolume,
    )


def convert_claim():
    return msgspec.convert(
        {
            "metadata": {
                "name": "zoned",
                "namespace": "default",
                "uid": "uid-zoned",
                "annotations": {"pv.kubernetes.io/bind-completed": "yes"},
            },
            "spec": {"accessModes": ["ReadWriteOnce"], "volumeName": "pv"},
        },
        Claim,
    )
