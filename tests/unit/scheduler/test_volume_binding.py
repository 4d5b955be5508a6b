"""VolumeBinding before any write: which nodes can have a Pod's claims, and what is set aside for it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodewright.scheduler.plugins.volume_binding import VolumeBinding
from nodewright.scheduler.plugins.volume_claims import ClaimError
from nodewright.scheduler.plugins.volume_matching import match_volumes, size_of
from nodewright.scheduler.profile import ProfileError, profile_from_object
from nodewright.scheduler.requests import nano
from nodewright.scheduler.state import NodeView
from support.scheduler_builders import info, make_node, make_pod
from support.storage_builders import (
    Verdict,
    claim_pod,
    cluster,
    ephemeral_pod,
    make_capacity,
    make_claim,
    make_class,
    make_driver,
    make_volume,
    put,
    term,
)

AFFINITY = "node(s) didn't match PersistentVolume's node affinity"
NO_VOLUME = "node(s) didn't find available persistent volumes to bind"
NO_ROOM = "node(s) did not have enough free storage"
LOST = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)"
HOST = "kubernetes.io/hostname"


def at(host):
    return {HOST: host}


def reserve(state, pod, node):
    pod = info(pod)
    VolumeBinding().reserve(pod, node, state)
    found = state.storage.reservations.get(pod.uid)
    return (found.bindings, found.provisions) if found else None


# --- before any node ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("claim", "reason"),
    [
        (
            make_claim("c", volume="v", phase="Lost"),
            'persistentvolumeclaim "c" bound to non-existent persistentvolume "v"',
        ),
        (make_claim("c", deleting=True), 'persistentvolumeclaim "c" is being deleted'),
        (make_claim("c", "now"), "pod has unbound immediate PersistentVolumeClaims"),
        (make_claim("c", None), "pod has unbound immediate PersistentVolumeClaims"),
        (make_claim("c", "nope"), "pod has unbound immediate PersistentVolumeClaims"),
        (make_claim("c", volume="v", bound=False), "pod has unbound immediate PersistentVolumeClaims"),
    ],
)
def test_claims_that_no_node_can_help(claim, reason):
    verdict = Verdict(
        cluster(make_node("n"), make_class(), make_class("now", "csi", "Immediate"), claim), claim_pod("c")
    )
    assert (verdict.reason, verdict.plugins) == (reason, {"VolumeBinding"})


def test_an_ephemeral_claim_must_be_there_and_be_the_pods_own():
    pod = ephemeral_pod("data", name="p", uid="u")
    state = cluster(make_node("n"), make_class("wait", "csi"))
    waiting = 'waiting for ephemeral volume controller to create the persistentvolumeclaim "p-data"'
    assert Verdict(state, pod).reason == waiting
    put(state, make_claim("p-data", owner="another"))
    assert Verdict(state, pod).reason == "PVC default/p-data was not created for pod default/p (pod is not owner)"
    put(state, make_claim("p-data", owner="u"))
    assert Verdict(state, pod).fits == {"n"}


def test_the_class_of_old_days_takes_precedence():
    old = {"volume.beta.kubernetes.io/storage-class": "now"}
    state = cluster(
        make_node("n"), make_class(), make_class("now", "csi", "Immediate"), make_claim("c", annotations=old)
    )
    assert Verdict(state, claim_pod("c")).reason == "pod has unbound immediate PersistentVolumeClaims"


# --- bound claims ---------------------------------------------------------------------------------------------------


def test_bound_volumes_hold_the_pod_where_they_are():
    state = cluster(make_node("a"), make_node("b"), make_claim("c", volume="v"))
    put(state, make_volume("v", claim="c", affinity=at("a")))
    verdict = Verdict(state, claim_pod("c"))
    assert (verdict.fits, verdict.reason, verdict.unresolvable) == ({"a"}, f"1 {AFFINITY}", {"b"})
    put(state, make_claim("d", volume="w"), make_volume("w", claim="d", affinity=at("b")))
    assert Verdict(state, claim_pod("c", "d")).reason == f"2 {AFFINITY}"


def test_affinity_on_node_names_sees_no_name():
    fields = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["a"]}]}
    state = cluster(make_node("a"), make_claim("c", volume="v"), make_volume("v", claim="c", affinity=[fields]))
    assert Verdict(state, claim_pod("c")).fits == set()
    fields["matchFields"][0]["operator"] = "NotIn"
    put(state, make_volume("v", claim="c", affinity=[{**fields, **term(at("a"))}]))
    assert Verdict(state, claim_pod("c")).fits == {"a"}


def test_a_lost_volume_is_told_after_mismatches_of_earlier_claims():
    off = {"plugins": {"multiPoint": {"disabled": [{"name": "VolumeZone"}]}}}
    state = cluster(make_node("a"), make_node("b"), make_claim("c", volume="v"), make_claim("d", volume="gone"))
    put(state, make_volume("v", claim="c", affinity=at("a")))
    verdict = Verdict(state, claim_pod("c", "d"), profile_from_object(off))
    assert verdict.reason == f"1 {AFFINITY}, 1 {LOST}"
    assert verdict.unresolvable == {"a", "b"}


# --- volumes that exist ---------------------------------------------------------------------------------------------


def test_the_smallest_volume_that_suits_is_set_aside():
    state = cluster(make_node("a"), make_node("b"), make_class(), make_claim("c", size="2Gi"))
    put(state, make_volume("big", size="9Gi"), make_volume("small", size="1Gi"))
    put(state, make_volume("fit", size="3Gi", affinity=at("a")))
    assert Verdict(state, claim_pod("c")).fits == {"a", "b"}
    assert reserve(state, claim_pod("c"), "a") == ({"default/c": "fit"}, [])


@pytest.mark.parametrize(
    ("volume", "claim"),
    [
        (make_volume("v", size="1Mi"), {}),
        (make_volume("v", "other"), {}),
        (make_volume("v", phase="Released"), {}),
        (make_volume("v", phase="Pending"), {}),
        (make_volume("v", deleting=True), {}),
        (make_volume("v", claim="another"), {}),
        (make_volume("v", claim="c", claim_uid="of-an-older-c"), {}),
        (make_volume("v", claim="c", size="1Mi"), {}),
        (make_volume("v", volumeMode="Block"), {}),
        (make_volume("v", volumeAttributesClassName="gold"), {}),
        (make_volume("v"), {"volumeAttributesClassName": "gold"}),
        (make_volume("v"), {"volumeMode": "Block"}),
        (make_volume("v"), {"modes": ("ReadWriteOnce", "ReadWriteMany")}),
        (make_volume("v"), {"selector": {"matchLabels": {"tier": "fast"}}}),
        (make_volume("v", affinity=at("elsewhere")), {}),
        (make_volume("v", claim="c", affinity=at("elsewhere")), {}),
        (make_volume("v", affinity=[]), {}),
    ],
)
def test_volumes_that_do_not_suit(volume, claim):
    state = cluster(make_node("n"), make_class(), make_claim("c", **claim), volume)
    verdict = Verdict(state, claim_pod("c"))
    assert (verdict.fits, verdict.reason, verdict.unresolvable) == (set(), f"1 {NO_VOLUME}", {"n"})


@pytest.mark.parametrize(
    ("volume", "claim"),
    [
        (make_volume("v"), {}),
        (make_volume("v", modes=("ReadWriteOnce", "ReadOnlyMany")), {"modes": ("ReadOnlyMany",)}),
        (make_volume("v", labels={"tier": "fast"}), {"selector": {"matchLabels": {"tier": "fast"}}}),
        (make_volume("v", volumeMode="Filesystem"), {}),
        (make_volume("v", claim="c"), {}),
        # Set aside: phase, labels and modes do not matter then.
        (make_volume("v", claim="c", phase="Pending", modes=()), {"selector": {"matchLabels": {"tier": "fast"}}}),
        (make_volume("v", claim="c", claim_uid="uid-c"), {}),
        (make_volume("v", affinity=[term({"x": "y"}), term(at("n"))]), {}),
        (make_volume("v", affinity={HOST: ["m", "n"]}), {}),
        (make_volume("v", affinity={HOST: "n", "disk": "ssd"}), {}),
    ],
)
def test_volumes_that_suit(volume, claim):
    state = cluster(make_node("n", labels={"disk": "ssd"}), make_class(), make_claim("c", **claim), volume)
    assert Verdict(state, claim_pod("c")).fits == {"n"}
    assert reserve(state, claim_pod("c"), "n") == ({"default/c": "v"}, [])


def test_a_volume_set_aside_that_the_node_does_not_reach_is_not_replaced():
    state = cluster(make_node("a"), make_node("b"), make_class(), make_claim("c"))
    put(state, make_volume("free"), make_volume("aside", claim="c", affinity=at("a")))
    assert Verdict(state, claim_pod("c")).fits == {"a"}


def test_two_claims_need_two_volumes():
    state = cluster(make_node("a"), make_node("b"), make_class(), make_claim("c"), make_claim("d", size="2Gi"))
    put(state, make_volume("v", size="2Gi"), make_volume("w", size="3Gi", affinity=at("a")))
    assert Verdict(state, claim_pod("c", "d")).fits == {"a"}
    # Smaller claims choose first.
    assert reserve(state, claim_pod("d", "c"), "a") == ({"default/c": "v", "default/d": "w"}, [])


def test_what_is_set_aside_for_one_pod_no_other_gets():
    state = cluster(make_node("n"), make_class(), make_claim("c"), make_claim("d"), make_volume("v"))
    pod, told = claim_pod("c"), []
    state.storage.on_released = lambda: told.append(True)
    before = state.storage.generation
    assert reserve(state, pod, "n") == ({"default/c": "v"}, [])
    assert state.storage.generation > before
    assert Verdict(state, claim_pod("d")).reason == f"1 {NO_VOLUME}"
    with pytest.raises(ClaimError, match="not to be had"):
        reserve(state, claim_pod("d"), "n")
    # Another Pod with the same claim gets the same volume.
    assert Verdict(state, claim_pod("c")).fits == {"n"}
    VolumeBinding().unreserve(info(pod), "n", state)
    VolumeBinding().unreserve(info(pod), "n", state)
    assert told == [True]
    assert Verdict(state, claim_pod("d")).fits == {"n"}


def test_the_api_is_right_where_it_contradicts():
    state = cluster(make_node("n"), make_class(), make_claim("c"), make_claim("d"), make_volume("v"))
    pod = claim_pod("c")
    reserve(state, pod, "n")
    put(state, make_volume("v", claim="d", claim_uid="uid-d"))
    assert Verdict(state, claim_pod("d")).fits == {"n"}
    assert Verdict(state, claim_pod("c")).fits == set()
    VolumeBinding().unreserve(info(pod), "n", state)
    assert Verdict(state, claim_pod("d")).fits == {"n"}


def test_a_volume_that_goes_takes_what_was_assumed_with_it():
    state = cluster(make_node("n"), make_class(), make_claim("c"), make_claim("d"), make_volume("v"))
    reserve(state, claim_pod("c"), "n")
    state.storage.on_volume(state.storage.volumes["v"], None)
    assert Verdict(state, claim_pod("c")).reason == f"1 {NO_VOLUME}"
    put(state, make_volume("v"))
    assert Verdict(state, claim_pod("d")).fits == {"n"}


# --- volumes that are to be made ------------------------------------------------------------------------------------


def test_a_volume_is_made_where_none_is_found():
    state = cluster(make_node("a"), make_node("b"), make_class("wait", "csi"), make_claim("c"), make_volume("v"))
    put(state, make_volume("v", affinity=at("a")))
    assert Verdict(state, claim_pod("c")).fits == {"a", "b"}
    assert reserve(state, claim_pod("c"), "b") == ({}, ["default/c"])


@pytest.mark.parametrize(
    ("topologies", "fits"),
    [
        ([], {"a", "b", "c"}),
        ([{"zone": ["x"]}], {"a"}),
        ([{"zone": ["x", "y"]}], {"a", "b"}),
        ([{"zone": ["x"]}, {"zone": ["y"]}], {"a", "b"}),
        ([{"zone": ["x"], "rack": ["1"]}], set()),
        ([{}], set()),
    ],
)
def test_the_class_says_where_volumes_can_be_made(topologies, fits):
    state = cluster(make_class("wait", "csi", "WaitForFirstConsumer", *topologies), make_claim("c"))
    put(state, make_node("a", labels={"zone": "x"}), make_node("b", labels={"zone": "y"}), make_node("c"))
    verdict = Verdict(state, claim_pod("c"))
    assert verdict.fits == fits
    assert verdict.reason == (f"{3 - len(fits)} {NO_VOLUME}" if len(fits) < 3 else "")


ALL = {"matchLabels": {}}


@pytest.mark.parametrize(
    ("capacities", "fits"),
    [
        ([], set()),
        ([("wait", ALL, "5Gi", None)], {"a", "b"}),
        ([("wait", ALL, "1Gi", None)], set()),
        ([("wait", ALL, None, None)], set()),
        ([("wait", ALL, "9Gi", "1Gi")], set()),
        ([("wait", ALL, "1Gi", "9Gi")], {"a", "b"}),
        ([("wait", None, "9Gi", None)], set()),
        ([("other", ALL, "9Gi", None)], set()),
        ([("wait", {"matchLabels": {"zone": "x"}}, "9Gi", None)], {"a"}),
        (
            [("wait", {"matchLabels": {"zone": "x"}}, "9Gi", None), ("wait", {"matchLabels": at("b")}, "9Gi", None)],
            None,
        ),
        ([("wait", {"matchExpressions": [{"key": "zone", "operator": "NotIn", "values": ["x"]}]}, "9Gi", None)], {"b"}),
        ([("wait", {"matchLabels": {"zone": "x", **at("a")}}, "9Gi", None)], {"a"}),
    ],
)
def test_free_storage_counts_where_the_driver_publishes_it(capacities, fits):
    fits = {"a", "b"} if fits is None else fits
    state = cluster(make_class("wait", "csi"), make_claim("c", size="3Gi"), make_driver("csi"))
    put(state, make_node("a", labels={"zone": "x"}), make_node("b", labels={"zone": "y"}))
    put(state, *(make_capacity(f"cap{i}", *capacity) for i, capacity in enumerate(capacities)))
    verdict = Verdict(state, claim_pod("c"))
    assert verdict.fits == fits
    assert verdict.reason == (f"{2 - len(fits)} {NO_ROOM}" if len(fits) < 2 else "")
    put(state, make_driver("csi", storage_capacity=False))
    assert Verdict(state, claim_pod("c")).fits == {"a", "b"}


def test_a_volume_that_is_being_made_holds_the_pod_at_its_node():
    state = cluster(make_node("a"), make_node("b"), make_class("wait", "csi"), make_claim("c", selected="a"))
    verdict = Verdict(state, claim_pod("c"))
    assert (verdict.fits, verdict.reason) == ({"a"}, f"1 {NO_VOLUME}")
    put(state, make_claim("c"))
    assert reserve(state, claim_pod("c"), "b") == ({}, ["default/c"])
    assert Verdict(state, claim_pod("c")).fits == {"b"}
    # The API has caught up; later the provisioner gives up on that node.
    put(state, make_claim("c", selected="b"))
    put(state, make_claim("c"))
    assert Verdict(state, claim_pod("c")).fits == {"a", "b"}


def test_a_node_has_each_reason_of_bound_and_unbound_claims():
    state = cluster(make_node("a"), make_node("b"), make_class(), make_claim("c", volume="v"), make_claim("d"))
    put(state, make_volume("v", claim="c", affinity=at("a")))
    assert Verdict(state, claim_pod("c", "d")).reason == f"1 {AFFINITY}, 2 {NO_VOLUME}"


def test_topology_is_told_before_room():
    state = cluster(make_node("a", labels={"zone": "x"}), make_node("b"), make_claim("c"), make_driver("csi"))
    put(state, make_class("wait", "csi", "WaitForFirstConsumer", {"zone": ["x"]}))
    assert Verdict(state, claim_pod("c")).reason == f"1 {NO_ROOM}, 1 {NO_VOLUME}"


def test_pods_without_claims_are_none_of_its_business():
    state, pod = cluster(make_node("n")), make_pod()
    assert reserve(state, pod, "n") is None
    assert VolumeBinding().shares(info(pod))
    assert not VolumeBinding().shares(info(claim_pod("c")))
    assert not VolumeBinding().shares(info(ephemeral_pod("c")))


def test_bound_claims_need_no_reservation():
    state = cluster(make_node("n"), make_claim("c", volume="v"), make_volume("v", claim="c"))
    assert reserve(state, claim_pod("c"), "n") is None


@pytest.mark.parametrize("args", [{"bindTimeoutSeconds": -1}, {"bindTimeout": 1}, {"shape": []}])
def test_arguments_that_make_no_sense(args):
    with pytest.raises(ProfileError, match="VolumeBinding"):
        profile_from_object({"pluginConfig": [{"name": "VolumeBinding", "args": args}]})


# --- against upstream's rule, volume by volume ----------------------------------------------------------------------

AFFINITIES = st.one_of(
    st.none(),
    st.builds(at, st.sampled_from(["n0", "n1", "n2", "nx"])),
    st.builds(lambda *values: {"zone": list(values)}, *[st.sampled_from("xyz")] * 2),
    st.builds(lambda h, z: [term(at(h)), term({"zone": z})], st.sampled_from(["n0", "n3"]), st.sampled_from("xyz")),
    st.just([{"matchExpressions": [{"key": "zone", "operator": "Exists"}]}]),
)
VOLUMES = st.tuples(st.integers(1, 4), AFFINITIES, st.sampled_from(["", "", "", "c0", "c1", "other"]))


def expected(state, claims, node):
    """FindMatchingVolume for one node, the way it is written down upstream."""
    chosen, picks = set(), []
    labels = state.nodes[state.rows[node]].metadata.labels

    def reaches(volume):
        affinity = volume.affinity
        return affinity is None or any(
            all(labels.get(e.key) in e.values if e.operator == "In" else e.key in labels for e in one.match_expressions)
            for one in affinity.node_selector_terms
        )

    for claim in claims:
        best = None
        for name in sorted(state.storage.volumes):
            volume = state.storage.volumes[name]
            ref, size = volume.spec.claim_ref, nano(volume.spec.capacity["storage"])
            if name in chosen or (ref is not None and not ref.is_for(claim)) or size < size_of(claim):
                continue
            if ref is not None:
                best = (0, volume) if reaches(volume) else None
                break
            if reaches(volume) and (best is None or size < best[0]):
                best = (size, volume)
        picks.append(best[1].key if best else None)
        chosen.add(picks[-1])
    return picks


@given(st.lists(VOLUMES, max_size=8), st.lists(st.integers(1, 4), min_size=1, max_size=3))
def test_tables_find_what_looking_at_every_volume_finds(volumes, sizes):
    nodes = [make_node(f"n{i}", labels={"zone": "xyz"[i]} if i < 3 else {}) for i in range(4)]
    claims = sorted((make_claim(f"c{i}", size=f"{size}Gi") for i, size in enumerate(sizes)), key=size_of)
    state = cluster(make_class(), *nodes, *claims)
    for i, (size, affinity, claim) in enumerate(volumes):
        put(state, make_volume(f"v{i}", size=f"{size}Gi", affinity=affinity, claim=claim))
    found = match_volumes(NodeView(state), state.storage, claims)
    for row, node in enumerate(state.names):
        picks = [found.volumes[int(p[row])].key if p[row] >= 0 else None for p in found.picks]
        assert picks == expected(state, claims, node), node
