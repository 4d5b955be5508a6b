import random
import re

import msgspec
import pytest

from nodewright.controllers.daemonset.eligibility import judge
from nodewright.controllers.daemonset.model import Template
from nodewright.controllers.daemonset.owntaints import DRAIN_TAINT, OwnTaints, startup_key, startup_name
from nodewright.controllers.daemonset.readiness import Held, Release, is_passing, order, removal, review, wants
from nodewright.kube.objects import Taint
from nodewright.kube.times import parse_rfc3339
from support.daemonset_objects import NOW, daemonset, node, pod

KEY = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
ANY = msgspec.convert({}, Template)
A, B, C = (f"startup.nodewright.dev/ns.{name}" for name in "abc")


def ready_ds(name, *, namespace="ns", after=(), effect="NoSchedule", deleting=False, **spec):
    found = daemonset(nodeReadiness={"effect": effect, "after": list(after)}, deleting=deleting, **spec)
    meta = msgspec.structs.replace(found.metadata, name=name, namespace=namespace, uid=f"uid-{name}")
    return msgspec.structs.replace(found, metadata=meta)


# -- names --------------------------------------------------------------------------------------------------------


def test_the_taint_is_named_after_the_daemonset():
    assert startup_key("kube-system", "cni.v2") == "startup.nodewright.dev/kube-system.cni.v2"


@pytest.mark.parametrize("length", [59, 60, 61, 100, 253])
@pytest.mark.parametrize("filler", ["x", "x-", "x."])
def test_long_names_are_cut_to_what_a_key_may_be_and_stay_apart(length, filler):
    name = (filler * length)[: length - 1] + "x"
    short = startup_name("ns", name)
    assert KEY.fullmatch(short), short
    assert short.startswith("ns.x")
    assert short != startup_name("ns", name + "y")
    assert (short == f"ns.{name}") == (len(name) <= 60)


# -- the order ----------------------------------------------------------------------------------------------------


def test_daemonsets_ignore_each_others_taints_save_those_they_wait_for():
    found = order([ready_ds("a"), ready_ds("b", after=["a"], effect="NoExecute"), daemonset()])
    assert found.effects == {"ns.a": "NoSchedule", "ns.b": "NoExecute"}
    assert found.owners == {A: "ns/a", B: "ns/b"}
    assert found.own["ns/a"] == OwnTaints(startup=True, drain=True, known=(A, B))
    assert found.own["ns/b"] == OwnTaints(startup=True, waits_for=frozenset({A}), drain=True, known=(B,))
    assert not found.circular


@pytest.mark.parametrize(
    ("after", "waits"),
    [(["other/a"], {"startup.nodewright.dev/other.a"}), (["a"], set()), (["ns/a"], set()), (["gone"], set())],
)
def test_names_in_after_are_of_the_own_namespace_unless_they_say_so(after, waits):
    found = order([ready_ds("a", namespace="other"), ready_ds("b", after=after)])
    assert found.own["ns/b"].waits_for == waits


def test_without_readiness_or_on_its_way_out_a_daemonset_holds_nothing():
    assert order([ready_ds("a", deleting=True), daemonset()]).effects == {}
    found = order([ready_ds("a", deleting=True), ready_ds("b", after=["a"])])
    assert found.own["ns/b"].waits_for == set()


@pytest.mark.parametrize(
    ("after", "circular", "waits"),
    [
        pytest.param({"a": ["a"], "b": ["a"]}, {"ns/a": ("ns/a",)}, {"a": set(), "b": {A}}, id="itself"),
        pytest.param(
            {"a": ["b"], "b": ["a"], "c": ["a"]},
            {"ns/a": ("ns/b",), "ns/b": ("ns/a",)},
            {"a": set(), "b": set(), "c": {A}},
            id="each other",
        ),
        pytest.param(
            {"a": ["b"], "b": ["c"], "c": ["a"]},
            {"ns/a": ("ns/b",), "ns/b": ("ns/c",), "ns/c": ("ns/a",)},
            {"a": set(), "b": set(), "c": set()},
            id="in a ring",
        ),
        pytest.param({"a": ["b", "c"], "b": ["c"]}, {}, {"a": {B, C}, "b": {C}, "c": set()}, id="no circle"),
    ],
)
def test_circles_are_ignored_and_told(after, circular, waits):
    names = sorted({*after, *(other for others in after.values() for other in others)})
    found = order([ready_ds(name, after=after.get(name, ())) for name in names])
    assert found.circular == circular
    assert {name: found.own[f"ns/{name}"].waits_for for name in names} == {n: waits[n] for n in names}


@pytest.mark.parametrize("seed", range(20))
def test_no_order_is_ever_a_deadlock(seed):
    rng = random.Random(seed)
    names = "abcdef"
    found = order([ready_ds(n, after=rng.sample(names, rng.randint(0, 4))) for n in names])
    left = set(found.owners)
    while left:
        free = {key for key in left if not found.own[found.owners[key]].waits_for & left}
        assert free, f"{left} wait for each other"
        left -= free


# -- verdicts -----------------------------------------------------------------------------------------------------

TOLERATES_ALL = msgspec.convert({"spec": {"tolerations": [{"operator": "Exists"}]}}, Template)


@pytest.mark.parametrize(
    ("own", "taints", "expected"),
    [
        pytest.param(OwnTaints(), (f"{A}:NoSchedule",), (False, True), id="without readiness: as any taint"),
        pytest.param(OwnTaints(startup=True), (f"{A}:NoSchedule", f"{B}:NoExecute"), (True, True), id="ignored"),
        pytest.param(
            OwnTaints(startup=True, waits_for=frozenset({B})), (f"{A}:NoSchedule",), (True, True), id="other taint"
        ),
        pytest.param(
            OwnTaints(startup=True, waits_for=frozenset({B})), (f"{B}:NoSchedule",), (False, True), id="waits"
        ),
        pytest.param(OwnTaints(startup=True), ("x:NoSchedule",), (False, True), id="other taints count"),
        pytest.param(OwnTaints(), (f"{DRAIN_TAINT}:NoSchedule",), (False, True), id="apps/v1 and the drain"),
        pytest.param(OwnTaints(drain=True), (f"{DRAIN_TAINT}:NoSchedule",), (True, True), id="stays at a drain"),
    ],
)
def test_verdicts_on_our_own_taints(own, taints, expected):
    verdict = judge(ANY, node("n1", taints=taints), own)
    assert (verdict.should_run, verdict.should_continue) == expected


def test_who_tolerates_everything_still_waits_for_those_it_named():
    own = OwnTaints(startup=True, waits_for=frozenset({B}))
    verdict = judge(TOLERATES_ALL, node("n1", taints=(f"{B}:NoExecute",)), own)
    assert (verdict.should_run, verdict.should_continue) == (False, True)
    assert verdict.reason == f"waits for another DaemonSet: startup taint {B}:NoExecute"


def test_pods_tolerate_what_is_known_and_what_their_node_has():
    own = OwnTaints(startup=True, waits_for=frozenset({B}), drain=True, known=(A,))
    taints = node("n1", taints=(f"{B}:NoSchedule", f"{C}:NoExecute", "x:NoSchedule", f"{DRAIN_TAINT}:NoSchedule"))
    assert own.tolerated(taints.spec.taints) == [DRAIN_TAINT, A, C]
    assert OwnTaints(drain=True).tolerated(node("n1", taints=(f"{A}:NoSchedule",)).spec.taints) == []


# -- when a taint may go ------------------------------------------------------------------------------------------

HELD = node("n1", taints=("node.kubernetes.io/not-ready:NoSchedule", f"{A}:NoSchedule"))


def look(ds, pods=(), on=HELD, template=ANY, now=NOW):
    return review(Taint(A, "NoSchedule"), ds, template, on, pods, parse_rfc3339(now))


def test_it_stays_until_the_pod_is_available():
    ds = ready_ds("a")
    assert look(ds) == Held(A, "ns/a")
    assert look(ds, [pod("p", ready=False)]) == Held(A, "ns/a")
    assert look(ds, [pod("p", deleting=True)]) == Held(A, "ns/a")
    assert look(ds, [pod("p", "n2")]) == Held(A, "ns/a")
    assert look(ds, [pod("p", scheduled=False)]) == Held(A, "ns/a")
    assert look(ds, [pod("old", ready=False), pod("p")]) == Release(A, "ns/a", "ns/p")


def test_min_ready_seconds_are_waited_for():
    ds = ready_ds("a", minReadySeconds=30)
    held = look(ds, [pod("p")], now="2026-03-01T12:00:10Z")
    assert held.retry_after == pytest.approx(20, abs=0.1)
    assert look(ds, [pod("p")], now="2026-03-01T12:00:30Z") == Release(A, "ns/a", "ns/p")


def test_run_once_counts_from_its_end_on():
    ds = ready_ds("a", runOnce=True)
    assert look(ds, [pod("p")]) == Held(A, "ns/a")
    assert look(ds, [pod("p", phase="Failed", ready=False)]) == Held(A, "ns/a")
    assert look(ds, [pod("p", phase="Succeeded", ready=False)]) == Release(A, "ns/a", "ns/p")


@pytest.mark.parametrize("ds", [None, daemonset(), ready_ds("a", deleting=True)])
def test_nobody_behind_it_and_it_goes(ds):
    assert look(ds) == Release(A)


@pytest.mark.parametrize(
    ("spec", "taints", "wanted"),
    [
        pytest.param({}, (), True, id="any node"),
        pytest.param({"nodeSelector": {"a": "b"}}, (), False, id="another node"),
        pytest.param({}, ("dedicated=x:NoSchedule",), False, id="a taint that lasts"),
        pytest.param({}, (f"{B}:NoSchedule",), True, id="waits for another one"),
        pytest.param({}, ("node.kubernetes.io/not-ready:NoSchedule",), True, id="not ready yet"),
        pytest.param({}, ("node.cloudprovider.kubernetes.io/uninitialized=true:NoSchedule",), True, id="cloud"),
        pytest.param({}, ("node.cilium.io/agent-not-ready:NoExecute",), True, id="network driver"),
        pytest.param({}, ("karpenter.sh/unregistered:NoExecute",), True, id="karpenter"),
        pytest.param({}, (f"{DRAIN_TAINT}:NoSchedule",), True, id="a drain"),
    ],
)
def test_a_node_that_is_not_wanted_is_not_held(spec, taints, wanted):
    found = node("n1", taints=(f"{A}:NoSchedule", *taints))
    template = msgspec.convert({"spec": spec}, Template)
    assert wants(template, found) == wanted
    assert isinstance(look(ready_ds("a"), on=found, template=template), Held) == wanted


def test_only_known_taints_pass():
    assert not is_passing(Taint("node.kubernetes.io", "NoSchedule"))
    assert not is_passing(Taint("node-role.kubernetes.io/control-plane", "NoSchedule"))


def test_the_patch_tests_what_it_removes_and_touches_nothing_else():
    found = node("n1", taints=("x:NoSchedule", f"{A}:NoSchedule", "y:NoExecute", f"{A}:NoExecute")).spec.taints
    assert removal(found, [A]) == [
        {"op": "test", "path": "/spec/taints/3/key", "value": A},
        {"op": "remove", "path": "/spec/taints/3"},
        {"op": "test", "path": "/spec/taints/1/key", "value": A},
        {"op": "remove", "path": "/spec/taints/1"},
    ]
