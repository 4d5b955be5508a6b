import copy
import json

import msgspec
import pytest

from nodewright.controllers.daemonset.availability import is_available, is_ready, ready_since
from nodewright.controllers.daemonset.decide import decide
from nodewright.controllers.daemonset.inplace import changed_images, patch
from nodewright.controllers.daemonset.model import Pod
from nodewright.controllers.daemonset.pods import ready_since as condition_since
from support.daemonset_objects import NOW, node, pod, revision, targets, view

OLD = {
    "metadata": {"labels": {"app": "a"}},
    "spec": {
        "initContainers": [{"name": "first", "image": "i:1"}],
        "containers": [
            {"name": "c", "image": "i:1", "ports": [{"containerPort": 80}]},
            {"name": "d", "image": "j:1"},
        ],
    },
}
POLICY = {"podUpdate": "InPlaceIfPossible", "maxUnavailable": 2}
BOTH = ("c", "d")


def template(*changes):
    """`changes` are (path, value); value None removes."""
    out = copy.deepcopy(OLD)
    for path, value in changes:
        place = out
        for step in path[:-1]:
            place = place[step] if isinstance(step, int) else place.setdefault(step, {})
        if value is None:
            del place[path[-1]]
        else:
            place[path[-1]] = value
    return out


C, D, FIRST = ("spec", "containers", 0), ("spec", "containers", 1), ("spec", "initContainers", 0)
NEW = template(((*C, "image"), "i:2"))


def running(name, node="n1", *, counts=None, waiting="", noted=None, node_class="", started=None, **more):
    """A pod with container statuses: restart counts by name, all running but for what `waiting` says of c."""
    wire = msgspec.to_builtins(pod(name, node, **{"hash": "old", **more}))
    statuses = []
    for container, count in (counts or dict.fromkeys(BOTH, 0)).items():
        state = {"running": {"startedAt": started}}
        if waiting and container == "c":
            state = {"waiting": {"reason": waiting}}
        statuses.append({"name": container, "restartCount": count, "state": state})
    wire["status"]["containerStatuses"] = statuses
    annotations = {"nodewright.dev/in-place-update": json.dumps(noted)} if noted is not None else {}
    if node_class:
        annotations["nodewright.dev/node-class"] = node_class
    wire["metadata"] |= {"annotations": annotations, "resourceVersion": "7"}
    return msgspec.convert(wire, Pod)


def seen(pods, new=NEW, rolling=POLICY, **more):
    found = view(pods, rolling=rolling, **more)
    revisions = {"old": revision("ds-old", OLD, hash="old"), "new": revision("ds-new", new, number=2, hash="new")}
    return msgspec.structs.replace(found, revisions=revisions, update=revisions["new"])


def plan(*args, **more):
    found = decide(seen(*args, **more), lambda _node: 0.0).plan
    return [p.metadata.name for p in found.delete], [p.metadata.name for p in found.in_place]


def test_what_differs_in_images_alone_is_updated_in_place_as_far_as_the_budget_goes():
    pods = [running(f"p{i}", f"n{i}") for i in range(4)]
    assert plan(pods) == ([], ["p0", "p1"])
    assert plan(pods, rolling={**POLICY, "podUpdate": "Recreate"}) == (["p0", "p1"], [])
    assert plan(pods, rolling=POLICY | {"maxUnavailable": 0, "maxSurge": 1}) == ([], [])


@pytest.mark.parametrize(
    ("new", "images"),
    [
        pytest.param(NEW, {"c": "i:2"}, id="one image"),
        pytest.param(
            template(((*C, "image"), "i:2"), ((*D, "image"), "j:2")), {"c": "i:2", "d": "j:2"}, id="both images"
        ),
        pytest.param(
            template(((*C, "image"), "i:2"), (("spec", "dnsPolicy"), "ClusterFirst")), {"c": "i:2"}, id="and a default"
        ),
        pytest.param(template(((*FIRST, "image"), "i:2")), None, id="an init container"),
        pytest.param(template(((*C, "image"), "i:2"), ((*C, "args"), ["x"])), None, id="and arguments"),
        pytest.param(
            template(((*C, "image"), "i:2"), (("metadata", "annotations"), {"restartedAt": "x"})), None, id="a restart"
        ),
        pytest.param(template(((*C, "image"), "i:2"), (D, None)), None, id="one container less"),
        pytest.param(template(((*C, "name"), "e")), None, id="another name"),
        pytest.param(template(((*C, "image"), "i:latest")), None, id="another default of the pull policy"),
        pytest.param(
            template(((*C, "image"), "i:latest"), ((*C, "imagePullPolicy"), "IfNotPresent")),
            {"c": "i:latest"},
            id="the same pull policy, now written down",
        ),
    ],
)
def test_what_counts_as_images_alone(new, images):
    assert changed_images(seen([running("p")], new), "old", "new") == images
    assert plan([running("p")], new) == (([], ["p"]) if images else (["p"], []))


def test_an_unknown_revision_is_not_compared():
    assert changed_images(seen([]), "lost", "new") is None
    assert plan([running("p", hash="lost")]) == (["p"], [])


@pytest.mark.parametrize(
    "trouble",
    [
        pytest.param({"phase": "Pending"}, id="not started"),
        pytest.param({"waiting": "ImagePullBackOff", "ready": False}, id="a bad image"),
        pytest.param({"counts": {"d": 0}}, id="nothing known of the container"),
        pytest.param({"noted": {"c": 0}}, id="in the middle of another update"),
    ],
)
def test_a_pod_in_trouble_is_replaced(trouble):
    assert plan([running("p", **trouble)]) == (["p"], [])


def test_a_pod_for_another_node_class_is_replaced():
    overrides = [
        {
            "name": "big",
            "nodeSelector": {"matchLabels": {"size": "big"}},
            "containers": [{"name": "c", "env": [{"name": "A", "value": "1"}]}],
        }
    ]
    nodes = {"n1": node("n1", {"size": "big"})}
    name = targets(seen([], nodes=nodes, nodeOverrides=overrides)).classes["n1"]
    assert plan([running("p", node_class=name)], nodes=nodes, nodeOverrides=overrides) == ([], ["p"])
    assert plan([running("p")], nodes=nodes, nodeOverrides=overrides) == (["p"], [])


def test_what_manage_deletes_stays_deleted():
    both = [running("p"), running("q", created="2026-03-01T11:30:00Z")]
    assert plan(both) == (["q"], [])


def test_the_patch():
    found = running("p", counts={"c": 3, "d": 1})
    assert patch(found, {"c": "i:2"}, "new") == {
        "metadata": {
            "uid": "uid-p",
            "resourceVersion": "7",
            "labels": {"controller-revision-hash": "new"},
            "annotations": {"nodewright.dev/in-place-update": '{"c":3}'},
        },
        "spec": {"containers": [{"name": "c", "image": "i:2"}]},
    }


@pytest.mark.parametrize(
    ("found", "ready"),
    [
        (running("p", hash="new", noted={"c": 3}, counts={"c": 3, "d": 1}), False),
        (running("p", hash="new", noted={"c": 3}, counts={"c": 4, "d": 1}), True),
        (running("p", hash="new", noted={"c": 3}, counts={"c": 4, "d": 1}, ready=False), False),
        (running("p", hash="new", noted={"c": 3, "d": 1}, counts={"c": 4, "d": 1}), False),
        (running("p", hash="new", noted={"c": 3}, counts={"d": 1}), False),
        (running("p", hash="new"), True),
        (running("p", hash="new", noted="not by us"), True),
    ],
)
def test_it_is_ready_again_once_its_changed_containers_were_restarted(found, ready):
    world = seen([found])
    assert is_ready(world, found) is is_available(world, found) is ready


def test_a_restart_that_the_ready_condition_does_not_show_starts_min_ready_seconds_anew():
    since, restarted = "2026-03-01T11:00:00Z", "2026-03-01T11:59:55Z"
    found = running("p", hash="new", noted={"c": 0}, counts={"c": 1, "d": 0}, since=since, started=restarted)
    assert condition_since(found) == since
    assert ready_since(seen([found]), found) == restarted
    assert is_available(seen([found], minReadySeconds=5), found)
    assert not is_available(seen([found], minReadySeconds=6), found)
    plain = running("p", since=since, started=restarted)
    assert ready_since(seen([plain]), plain) == since


def test_an_update_under_way_uses_up_the_budget():
    pods = [running("p0", "n0", hash="new", noted={"c": 0}), *(running(f"p{i}", f"n{i}") for i in (1, 2, 3))]
    assert plan(pods) == ([], ["p1"])
    assert plan(pods, rolling={**POLICY, "maxUnavailable": 1}) == ([], [])


def test_a_rollout_in_place_converges_and_replaces_nothing():
    pods = {f"n{i}": running(f"p{i}", f"n{i}", since=NOW) for i in range(5)}
    for _ in range(20):
        world = seen(pods.values())
        found = decide(world, lambda _node: 0.0).plan
        assert found.is_empty
        lacking = sum(not is_available(world, p) for p in pods.values())
        assert lacking + len(found.in_place) <= 2
        for name, one in pods.items():
            if not is_available(world, one):  # its node has restarted it
                pods[name] = running(one.metadata.name, name, hash="new", noted={"c": 0}, counts={"c": 1, "d": 0})
        for one in found.in_place:
            pods[one.target_node] = running(one.metadata.name, one.target_node, hash="new", noted={"c": 0})
    assert all(p.metadata.labels["controller-revision-hash"] == "new" for p in pods.values())
    assert all(is_available(seen(pods.values()), p) for p in pods.values())
