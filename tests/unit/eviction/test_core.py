"""Thresholds, conditions, order and texts of eviction: upstream's rules."""

import pytest

from nodewright_agent.eviction import core, limits, messages, ranking
from nodewright_agent.eviction.signals import (
    ALLOCATABLE,
    IMAGE_FS,
    MEMORY,
    NODE_FS,
    NODE_INODES,
    PIDS,
    Settings,
    ThresholdError,
    reserved,
    thresholds,
)
from nodewright_agent.usage.model import VolumeUsage
from support.eviction_builders import Gi, Mi, figures, fs, node, pod


def settings(hard=None, soft=None, graces=None, reclaim=None, **rest):
    return Settings(thresholds(hard or {}, soft or {}, graces or {}, reclaim or {}), **rest)


def test_thresholds_are_read_as_upstream_does():
    made = thresholds(
        {MEMORY: "100Mi", NODE_FS: "10%", NODE_INODES: "0%", IMAGE_FS: "100%"},
        {MEMORY: "1.5Gi"},
        {MEMORY: "1m30s"},
        {MEMORY: "50Mi"},
    )
    assert [(one.signal, one.grace, one.hard) for one in made] == [
        (MEMORY, 0, True),
        (NODE_FS, 0, True),
        (MEMORY, 90, False),
        (ALLOCATABLE, 0, True),
    ]
    assert made[2].value.shown(0) == "1536Mi"
    assert made[1].value.of(1000) == 100
    assert all(one.reclaim is not None and one.reclaim.of(0) == 50 * Mi for one in (made[0], made[2], made[3]))
    assert reserved(made, MEMORY, 8 * Gi) == 100 * Mi


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (({"memory.free": "1Gi"}, {}, {}, {}), "unsupported eviction signal memory.free"),
        (({MEMORY: "lots"}, {}, {}, {}), "not a quantity"),
        (({MEMORY: "0"}, {}, {}, {}), "not above zero"),
        (({MEMORY: "-1Gi"}, {}, {}, {}), "negative"),
        (({NODE_FS: "150%"}, {}, {}, {}), "below all there is"),
        (({}, {MEMORY: "1Gi"}, {}, {}), "a grace period must be given"),
        (({}, {MEMORY: "1Gi"}, {MEMORY: "soon"}, {}), "no duration"),
        (({}, {}, {}, {"memory.free": "1"}), "unsupported eviction signal"),
        (({ALLOCATABLE: "1Gi"}, {}, {}, {}), "unsupported eviction signal"),
    ],
)
def test_wrong_thresholds_are_named(given, text):
    with pytest.raises(ThresholdError, match=text):
        thresholds(*given)


def test_a_hard_threshold_acts_at_once_and_its_condition_stays_for_the_transition_period():
    memory, given = core.Memory(), settings({MEMORY: "1Gi"}, transition_period=300)
    good, bad = core.observe(node(memory=2 * Gi)), core.observe(node(memory=Gi - 1))
    assert core.look(memory, given, good, 0.0) == core.Verdict((), (), None)
    verdict = core.look(memory, given, bad, 10.0)
    assert (verdict.conditions, [one.signal for one in verdict.acting]) == (("MemoryPressure",), [MEMORY])
    later = core.look(memory, given, good, 309.0)
    assert (later.conditions, later.acting) == (("MemoryPressure",), ())
    assert core.look(memory, given, good, 310.0).conditions == ()


def test_a_soft_threshold_waits_for_its_grace_and_starts_anew_when_it_was_over():
    memory, given = core.Memory(), settings(soft={MEMORY: "1Gi"}, graces={MEMORY: "30s"})
    good, bad = core.observe(node(memory=2 * Gi)), core.observe(node(memory=Gi - 1))
    first = core.look(memory, given, bad, 0.0)
    assert (first.conditions, first.acting, first.next_look) == (("MemoryPressure",), (), 30.0)
    core.look(memory, given, good, 20.0)
    assert core.look(memory, given, bad, 31.0).acting == ()
    assert [one.signal for one in core.look(memory, given, bad, 61.0).acting] == [MEMORY]


def test_what_acts_goes_on_until_the_minimum_is_reclaimed():
    memory, given = core.Memory(), settings({NODE_FS: "10Gi"}, reclaim={NODE_FS: "5Gi"})
    at = [core.observe(node(available=size * Gi)) for size in (9, 14, 15, 14)]
    acting = [bool(core.look(memory, given, seen, float(i)).acting) for i, seen in enumerate(at)]
    assert acting == [True, True, False, False], "what was never exceeded has nothing to regain"


def test_memory_comes_before_disk_and_the_first_shortage_is_told():
    memory, given = core.Memory(), settings({NODE_FS: "60%", PIDS: "2k", MEMORY: "5Gi"})
    verdict = core.look(memory, given, core.observe(node()), 0.0)
    assert [one.signal for one in verdict.acting] == [MEMORY, NODE_FS, PIDS]
    assert set(verdict.conditions) == {"MemoryPressure", "DiskPressure", "PIDPressure"}
    seen = core.observe(node())
    assert core.shortage("memory", verdict.acting, seen) == ("5Gi", "4Gi")
    assert core.shortage("pids", verdict.acting, seen) == ("2k", "1k")


def names(pods):
    return [one.metadata.name for one in pods]


def test_order_for_memory():
    pods = [
        pod("within", requests={"memory": "1Gi"}),
        pod("over-high", requests={"memory": "100Mi"}, priority=10),
        pod("over-little", requests={"memory": "100Mi"}),
        pod("over-much"),
        pod("unknown"),
    ]
    used = {"within": 900, "over-high": 800, "over-little": 110, "over-much": 500}
    found = {f"u-{name}": figures(name, memory=mib * Mi) for name, mib in used.items()}
    order = names(ranking.rank(MEMORY, pods, found, split=False))
    assert order == ["unknown", "over-much", "over-little", "over-high", "within"]


def test_order_for_processes_and_disk():
    pods = [pod("a", priority=5), pod("b"), pod("c", requests={"ephemeral-storage": "10Gi"})]
    found = {
        "u-a": figures("a", disk=3 * Gi, processes=9, inodes=5),
        "u-b": figures("b", disk=2 * Gi, processes=3, inodes=7),
        "u-c": figures("c", disk=9 * Gi, processes=5, inodes=1),
    }
    assert names(ranking.rank(PIDS, pods, found, split=False)) == ["c", "b", "a"]
    assert names(ranking.rank(NODE_FS, pods, found, split=False)) == ["b", "a", "c"]
    assert names(ranking.rank(IMAGE_FS, pods, found, split=True)) == ["b", "c", "a"], "Pods use nothing of it"


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, False),
        ({"priority": 1_999_999_999}, False),
        ({"priority": 2_000_000_000}, True),
        ({"annotations": {"kubernetes.io/config.mirror": "x"}}, True),
        ({"annotations": {"kubernetes.io/config.source": "file"}}, True),
        ({"annotations": {"kubernetes.io/config.source": "api"}}, False),
    ],
)
def test_critical(spec, expected):
    assert ranking.critical(pod("p", **spec)) is expected


def test_an_annotation_in_the_api_makes_nothing_critical():
    claimed = pod("p", annotations={"kubernetes.io/config.source": "file"})
    claimed.metadata.resource_version = "7"
    assert not ranking.critical(claimed)


def test_messages():
    one = pod("p", requests={"memory": "100Mi"})
    text = messages.node_low("memory", one, figures("p", memory=150 * Mi), ("100Mi", "99Mi"))
    assert text == (
        "The node was low on resource: memory. Threshold quantity: 100Mi, available: 99Mi. "
        "Container main was using 150Mi, request is 100Mi, has larger consumption of memory. "
    )
    disk = messages.node_low("ephemeral-storage", pod("p"), figures("p", disk=20 * 1024), ("1Gi", "1023Mi"))
    assert disk.endswith("Container main was using 20Ki, request is 0, has larger consumption of ephemeral-storage. ")
    assert messages.node_low("pids", one, None, None) == "The node was low on resource: pids. "
    assert messages.node_condition(("MemoryPressure", "DiskPressure")) == (
        "The node had condition: [MemoryPressure DiskPressure]. "
    )


def test_limits_of_local_storage():
    volumes = [{"name": "scratch", "emptyDir": {"sizeLimit": "1Mi"}}]
    small, large = pod("p", volumes=volumes), figures("p")
    large.volumes = [VolumeUsage("scratch", fs(Mi + 1))]
    assert limits.has_limits(small)
    assert limits.excess(small, large) == (
        "emptydirfs.limit",
        'Usage of EmptyDir volume "scratch" exceeds the limit "1Mi". ',
    )
    large.volumes = [VolumeUsage("scratch", fs(Mi))]
    assert limits.excess(small, large) is None
    limited = pod("p", limits={"ephemeral-storage": "1Gi"})
    assert limits.excess(limited, figures("p", disk=Gi)) is None
    assert limits.excess(limited, figures("p", disk=Gi + 1)) == (
        "ephemeralpodfs.limit",
        "Pod ephemeral local storage usage exceeds the total limit of containers 1Gi. ",
    )
    without_sum = figures("p", disk=Gi + 1)
    without_sum.ephemeral = None
    assert limits.excess(limited, without_sum) == (
        "ephemeralcontainerfs.limit",
        'Container main exceeded its local ephemeral storage limit "1Gi". ',
    )
    assert not limits.has_limits(pod("p", limits={"memory": "1Gi"}))
