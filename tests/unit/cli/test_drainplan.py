import msgspec
import pytest

from nodewright.cli.drainplan import LOCAL_DATA, UNMANAGED, Rules, plan
from nodewright.controllers.daemonset.model import PRE_PULL_OF_LABEL
from nodewright.kube.objects import Pod


def pod(
    name="p", kind="ReplicaSet", uid="u", *, phase="Running", annotations=None, labels=None, deleting=False, volumes=()
):
    meta = {"name": name, "namespace": "ns", "annotations": annotations or {}, "labels": labels or {}}
    if kind:
        meta["ownerReferences"] = [{"apiVersion": "x/v1", "kind": kind, "name": "o", "uid": uid, "controller": True}]
    if deleting:
        meta["deletionTimestamp"] = "2026-03-01T12:00:00Z"
    raw = {"metadata": meta, "spec": {"volumes": list(volumes)}, "status": {"phase": phase}}
    return msgspec.convert(raw, Pod)


EMPTY_DIR = {"name": "v", "emptyDir": {}}


def sorted_out(one, **rules):
    found = plan([one], Rules(**rules))
    places = {name: getattr(found, name) for name in ("evict", "leave_last", "stay")}
    return [name for name, pods in places.items() if pods], list(found.refused), list(found.warned)


@pytest.mark.parametrize(
    ("one", "rules", "place", "refused", "warned"),
    [
        pytest.param(pod(), {}, ["evict"], [], [], id="ordinary"),
        pytest.param(pod(kind=""), {}, [], [UNMANAGED], [], id="unmanaged"),
        pytest.param(pod(kind=""), {"force": True}, ["evict"], [], ["Pods that declare no controller"], id="forced"),
        pytest.param(pod(kind="", phase="Succeeded"), {}, ["evict"], [], [], id="unmanaged, ended"),
        pytest.param(pod(kind="", deleting=True), {}, ["evict"], [], [], id="unmanaged, ending"),
        pytest.param(pod(volumes=[EMPTY_DIR]), {}, [], [LOCAL_DATA], [], id="data"),
        pytest.param(
            pod(volumes=[EMPTY_DIR]),
            {"delete_emptydir_data": True},
            ["evict"],
            [],
            ["Pods with local storage"],
            id="data given up",
        ),
        pytest.param(pod(volumes=[EMPTY_DIR], phase="Failed"), {}, ["evict"], [], [], id="data of one that ended"),
        pytest.param(pod(volumes=[{"name": "v", "configMap": {"name": "c"}}]), {}, ["evict"], [], [], id="no data"),
        pytest.param(pod(kind="", volumes=[EMPTY_DIR]), {}, [], [UNMANAGED, LOCAL_DATA], [], id="both"),
        pytest.param(pod(kind="DaemonSet"), {}, ["stay"], [], [], id="a daemon"),
        pytest.param(pod(kind="DaemonSet", volumes=[EMPTY_DIR]), {}, ["stay"], [], [], id="a daemon with data"),
        pytest.param(pod(kind="DaemonSet", phase="Succeeded"), {}, ["stay"], [], [], id="a run that is done"),
        pytest.param(pod(kind="DaemonSet"), {"leaving": {"u"}}, ["leave_last"], [], [], id="leaves last"),
        pytest.param(pod(kind="", annotations={"kubernetes.io/config.mirror": "x"}), {}, [], [], [], id="mirror"),
        pytest.param(pod(kind="Node", annotations={"kubernetes.io/config.mirror": "x"}), {}, [], [], [], id="mirror 2"),
    ],
)
def test_what_becomes_of_a_pod(one, rules, place, refused, warned):
    assert sorted_out(one, **rules) == (place, refused, warned)


def test_pods_that_only_pull_images_are_nobodys_loss():
    assert sorted_out(pod(kind="", labels={PRE_PULL_OF_LABEL: "x"})) == ([], [], [])
