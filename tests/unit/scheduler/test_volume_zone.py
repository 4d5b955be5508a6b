"""VolumeZone: zone and region labels of bound volumes."""

import pytest

from nodewright.scheduler.profile import profile_from_object
from support.scheduler_builders import make_node
from support.storage_builders import Verdict, claim_pod, cluster, make_claim, make_class, make_volume

ZONE, REGION = "topology.kubernetes.io/zone", "topology.kubernetes.io/region"
OLD_ZONE = "failure-domain.beta.kubernetes.io/zone"
REASON = "node(s) had no available volume zone"


@pytest.mark.parametrize(
    ("volume", "node", "fits"),
    [
        ({ZONE: "a"}, {ZONE: "a"}, True),
        ({ZONE: "a"}, {ZONE: "b"}, False),
        ({ZONE: "a"}, {}, True),
        ({ZONE: "a"}, {REGION: "r"}, False),
        ({ZONE: "a", REGION: "r"}, {ZONE: "a", REGION: "r"}, True),
        ({ZONE: "a", REGION: "r"}, {ZONE: "a", REGION: "s"}, False),
        ({ZONE: "a__b"}, {ZONE: "b"}, True),
        ({ZONE: "a__b"}, {ZONE: "c"}, False),
        ({ZONE: "a__"}, {ZONE: "c"}, True),
        ({OLD_ZONE: "a"}, {ZONE: "a"}, True),
        ({OLD_ZONE: "a"}, {OLD_ZONE: "a", ZONE: "b"}, True),
        ({OLD_ZONE: "a"}, {OLD_ZONE: "b", ZONE: "a"}, False),
        ({ZONE: "a"}, {OLD_ZONE: "a"}, False),
        ({}, {ZONE: "a"}, True),
    ],
)
def test_labels(volume, node, fits):
    state = cluster(
        make_node("n", labels=node),
        make_node("elsewhere", labels={ZONE: "nowhere"}),
        make_claim("c", volume="pv"),
        make_volume("pv", claim="c", labels=volume),
    )
    verdict = Verdict(state, claim_pod("c"))
    assert ("n" in verdict.fits) == fits
    if not fits:
        assert f"2 {REASON}" == verdict.reason
        assert verdict.unresolvable == {"n", "elsewhere"}


def test_claims_without_a_volume_are_skipped_where_the_class_waits():
    state = cluster(make_node("n", labels={ZONE: "a"}), make_claim("c"), make_class("wait", "csi"))
    assert Verdict(state, claim_pod("c")).fits == {"n"}


OTHERS = [{"name": name} for name in ("VolumeRestrictions", "NodeVolumeLimits", "VolumeBinding")]
ALONE = {"plugins": {"multiPoint": {"disabled": OTHERS}}}


@pytest.mark.parametrize(
    ("claim", "reason"),
    [
        (None, 'persistentvolumeclaim "c" not found'),
        (make_claim("c", volume="gone"), 'persistentvolume "gone" not found'),
        (make_claim("c", None), "PersistentVolumeClaim had no pv name and storageClass name"),
        (make_claim("c", "nope"), 'storageclass.storage.k8s.io "nope" not found'),
        (make_claim("c", "blank"), 'VolumeBindingMode not set for StorageClass "blank"'),
        (make_claim("c", "now"), "PersistentVolume had no name"),
    ],
)
def test_what_is_missing_is_said_before_any_node(claim, reason):
    state = cluster(make_node("n"), make_class("now", "csi", "Immediate"), make_class("blank", "csi", None))
    if claim is not None:
        state.storage.on_claim(None, claim)
    assert Verdict(state, claim_pod("c"), profile_from_object(ALONE)).reason == reason


def test_a_volume_that_does_not_exist_is_missed_by_this_plugin_first():
    state = cluster(make_node("n"), make_claim("c", volume="gone"))
    verdict = Verdict(state, claim_pod("c"))
    assert (verdict.reason, verdict.plugins) == ('persistentvolume "gone" not found', {"VolumeZone"})
