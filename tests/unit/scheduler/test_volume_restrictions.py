"""VolumeRestrictions: in-tree disks at one node, and claims that one Pod may use."""

import pytest

from nodewright.scheduler.evaluator import Evaluator
from nodewright.scheduler.events import Event
from nodewright.scheduler.plugins.node_volume_limits import NodeVolumeLimits
from nodewright.scheduler.plugins.volume_binding import VolumeBinding
from nodewright.scheduler.plugins.volume_restrictions import VolumeRestrictions
from nodewright.scheduler.preemption.budgets import Budgets
from nodewright.scheduler.preemption.choice import Candidate
from nodewright.scheduler.preemption.finder import Finder
from nodewright.scheduler.preemption.limits import Limits
from nodewright.scheduler.profile import Profile
from support.scheduler_builders import info, make_node, make_pod
from support.storage_builders import Verdict, claim_pod, cluster, make_claim, make_volume, put

DISK = "node(s) had no available disk"
IN_USE = (
    "node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod"
)


def gce(name, read_only=False):
    return {"gcePersistentDisk": {"pdName": name, "readOnly": read_only}}


def aws(name, read_only=False):
    return {"awsElasticBlockStore": {"volumeID": name, "readOnly": read_only}}


def iscsi(name, read_only=False):
    return {"iscsi": {"iqn": name, "readOnly": read_only}}


def rbd(monitors, image="i", pool="p", read_only=False):
    return {"rbd": {"monitors": monitors.split(), "image": image, "pool": pool, "readOnly": read_only}}


@pytest.mark.parametrize(
    ("there", "wanted", "conflict"),
    [
        (gce("a"), gce("a"), True),
        (gce("a"), gce("b"), False),
        (gce("a", True), gce("a"), True),
        (gce("a", True), gce("a", True), False),
        (aws("a"), aws("a"), True),
        (aws("a", True), aws("a", True), True),
        (aws("a"), aws("b"), False),
        (aws("a"), gce("a"), False),
        (iscsi("a"), iscsi("a"), True),
        (iscsi("a", True), iscsi("a", True), False),
        (iscsi("a"), iscsi("b"), False),
        (rbd("a b"), rbd("b c"), True),
        (rbd("a b"), rbd("c d"), False),
        (rbd("a"), rbd("a", image="j"), False),
        (rbd("a"), rbd("a", pool="q"), False),
        (rbd("a", read_only=True), rbd("a", read_only=True), False),
        (rbd("a", read_only=True), rbd("a"), True),
    ],
)
def test_disks(there, wanted, conflict):
    holder = make_pod(node="n", volumes=[{"name": "x", **there}])
    state = cluster(make_node("n"), make_node("m"), holder)
    verdict = Verdict(state, make_pod(volumes=[{"name": "y", **wanted}]))
    assert verdict.fits == ({"m"} if conflict else {"n", "m"})
    assert verdict.reason == (f"1 {DISK}" if conflict else "")
    assert verdict.unresolvable == set()
    state.remove_pod(holder.metadata.uid)
    assert Verdict(state, make_pod(volumes=[{"name": "y", **wanted}])).fits == {"n", "m"}


def test_one_of_two_holders_leaves():
    pods = [make_pod(node="n", volumes=[{"name": "x", **gce("a", True)}]) for _ in range(2)]
    state = cluster(make_node("n"), *pods)
    writer = make_pod(volumes=[{"name": "x", **gce("a")}])
    state.remove_pod(pods[0].metadata.uid)
    assert Verdict(state, writer).fits == set()
    state.remove_pod(pods[1].metadata.uid)
    assert Verdict(state, writer).fits == {"n"}


def rwop(name):
    return make_claim(name, volume=f"pv-{name}", modes=("ReadWriteOncePod",))


def test_a_claim_for_one_pod_is_free_once_that_pod_is_gone():
    holder = claim_pod("c", node="n")
    state = cluster(make_node("n"), make_node("m"), rwop("c"), make_volume("pv-c", claim="c"), holder)
    verdict = Verdict(state, claim_pod("c"))
    assert (verdict.fits, verdict.reason, verdict.unresolvable) == (set(), f"2 {IN_USE}", set())
    assert verdict.plugins == {"VolumeRestrictions"}
    # The Pod itself, and Pods of another namespace, are no conflict.
    assert Verdict(state, claim_pod("c", uid=holder.metadata.uid)).fits == {"n", "m"}
    put(state, make_claim("c", volume="pv-d", modes=("ReadWriteOncePod",), namespace="other"))
    put(state, make_volume("pv-d"))
    assert Verdict(state, claim_pod("c", namespace="other")).fits == {"n", "m"}
    state.remove_pod(holder.metadata.uid)
    assert Verdict(state, claim_pod("c")).fits == {"n", "m"}


def test_other_access_modes_are_no_restriction():
    state = cluster(
        make_node("n"), make_claim("c", volume="pv"), make_volume("pv", claim="c"), claim_pod("c", node="n")
    )
    assert Verdict(state, claim_pod("c")).fits == {"n"}


def test_disk_and_claim_at_once_give_each_node_its_first_reason():
    holder = make_pod(
        node="n",
        volumes=[{"name": "d", **aws("a")}, {"name": "c", "persistentVolumeClaim": {"claimName": "c"}}],
    )
    state = cluster(make_node("n"), make_node("m"), rwop("c"), make_volume("pv-c", claim="c"), holder)
    pod = make_pod(volumes=holder.spec.volumes)
    assert Verdict(state, pod).reason == f"1 {DISK}, 1 {IN_USE}"


def test_a_missing_claim_is_said_before_any_node():
    verdict = Verdict(cluster(make_node("n")), claim_pod("nope"))
    assert verdict.reason == 'persistentvolumeclaim "nope" not found'
    assert verdict.plugins == {"VolumeRestrictions"}


@pytest.mark.parametrize(
    ("gone", "wakes"),
    [
        (claim_pod("c"), True),
        (claim_pod("d"), False),
        (claim_pod("c", namespace="other"), False),
        (make_pod(volumes=[{"name": "x", **gce("a")}]), True),
        (make_pod(volumes=[{"name": "x", **gce("b")}]), False),
        (make_pod(), False),
    ],
)
def test_which_pods_were_in_the_way(gone, wakes):
    waiting = make_pod(volumes=[{"name": "d", **gce("a")}, *claim_pod("c").spec.volumes])
    state = cluster()
    assert VolumeRestrictions().wakes(info(waiting), Event.POD_DELETE, info(gone), state) == wakes
    had_claims = bool(gone.spec.volumes and gone.spec.volumes[0].persistent_volume_claim)
    assert NodeVolumeLimits().wakes(info(waiting), Event.POD_DELETE, info(gone), state) == had_claims
    assert VolumeBinding().wants_pre_bind(info(gone)) == had_claims


def test_evicting_the_user_of_a_claim_for_one_pod_helps_only_at_its_node():
    holder = claim_pod("c", node="n", priority=1)
    idle = make_pod(node="m", priority=1)
    state = cluster(make_node("n"), make_node("m"), rwop("c"), make_volume("pv-c", claim="c"), holder, idle)
    evaluator, pod = Evaluator(Profile(), state), info(claim_pod("c", priority=5))
    found = Finder(state, Budgets()).find(evaluator, pod, evaluator.place(pod), Limits())
    assert isinstance(found, Candidate)
    assert (found.node, [victim.uid for victim in found.victims]) == ("n", [holder.metadata.uid])
    assert Verdict(state, claim_pod("c")).reason == f"2 {IN_USE}"
