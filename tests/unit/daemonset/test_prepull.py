import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nodewright.controllers.daemonset import prepull
from nodewright.controllers.daemonset.caches import owner_index, puller_index
from nodewright.controllers.daemonset.claims import claim
from nodewright.controllers.daemonset.decide import decide
from nodewright.controllers.daemonset.eligibility import default_tolerations
from nodewright.controllers.daemonset.model import Pod
from nodewright.controllers.daemonset.pods import group
from nodewright.kube.resources import DAEMONSETS
from nodewright.kube.times import parse_rfc3339
from support.daemonset_objects import LEAVE, NOW, RUN, STAY, daemonset, pod, targets, view

TEMPLATE = {
    "metadata": {"labels": {"app": "a"}, "annotations": {"x": "y"}},
    "spec": {
        "hostNetwork": True,
        "serviceAccountName": "puller",
        "imagePullSecrets": [{"name": "s"}],
        "priorityClassName": "system-node-critical",
        "runtimeClassName": "kata",
        "securityContext": {"runAsNonRoot": True},
        "tolerations": [{"operator": "Exists", "key": "dedicated"}],
        "nodeSelector": {"a": "b"},
        "volumes": [{"name": "v", "emptyDir": {}}],
        "initContainers": [{"name": "first", "image": "a:1"}],
        "containers": [
            {
                "name": "c",
                "image": "b:1",
                "command": ["serve"],
                "ports": [{"containerPort": 1, "hostPort": 1}],
                "volumeMounts": [{"name": "v", "mountPath": "/v"}],
                "securityContext": {"privileged": True, "runAsUser": 7},
            },
            {"name": "d", "image": "a:1", "imagePullPolicy": "Always"},
        ],
    },
}
AT = parse_rfc3339(NOW)
ROLLING = {"prePull": {"maxParallel": 2}}


def made(ds=None, template=TEMPLATE, hash="new", node="n1"):
    return prepull.puller_for(DAEMONSETS, ds or daemonset(template), template, hash, node)


def status(**more):
    return {"name": "image-0", **more}


def waits(reason, **more):
    return status(state={"waiting": {"reason": reason, "message": "why"}}, **more)


def puller(name, node="n1", *statuses, hash="new", phase="Pending", deleting=False):
    wire = made(hash=hash, node=node)
    wire["metadata"] |= {"name": name, "uid": f"uid-{name}"}
    if deleting:
        wire["metadata"]["deletionTimestamp"] = "2026-03-01T12:00:00Z"
    wire["status"] = {"phase": phase, "containerStatuses": list(statuses)}
    return msgspec.convert(wire, Pod)


DONE = status(imageID="sha256:1")


def test_a_puller_has_each_image_once_and_nothing_of_what_the_pods_do():
    wire = made()
    spec = wire["spec"]
    assert [(c["image"], c["command"], c.get("imagePullPolicy")) for c in spec["containers"]] == [
        ("a:1", ["true"], "Always"),
        ("b:1", ["true"], None),
    ]
    for container in spec["containers"]:
        assert container.keys() <= {"name", "image", "command", "resources", "securityContext", "imagePullPolicy"}
        assert not container["securityContext"].get("privileged")
    assert spec["containers"][1]["securityContext"]["runAsUser"] == 7
    assert "volumes" not in spec
    assert "nodeSelector" not in spec


def test_a_puller_gets_to_the_node_with_the_credentials_of_the_pods():
    wire = made(node="n7")
    spec = wire["spec"]
    for field in ("hostNetwork", "serviceAccountName", "imagePullSecrets", "priorityClassName", "runtimeClassName"):
        assert spec[field] == TEMPLATE["spec"][field]
    assert (spec["restartPolicy"], spec["automountServiceAccountToken"]) == ("Never", False)
    assert len(spec["tolerations"]) == 1 + len(default_tolerations(True))
    assert msgspec.convert({**wire, "status": {}}, Pod).target_node == "n7"


def test_a_puller_is_the_daemonsets_and_none_of_its_pods():
    ds = daemonset(TEMPLATE, selector={"matchExpressions": [{"key": "other", "operator": "DoesNotExist"}]})
    wire = made(ds)
    (owner,) = wire["metadata"]["ownerReferences"]
    assert (owner["uid"], owner["controller"]) == ("uid", False)
    assert wire["metadata"]["labels"] == {"nodewright.dev/pre-pull-of": "ds", "nodewright.dev/pre-pull-revision": "new"}
    found = msgspec.convert({**wire, "status": {}}, Pod)
    assert list(owner_index(found)) == []  # not even by a selector that would match it
    assert list(puller_index(found)) == ["uid"]
    found.metadata.owner_references = []  # the DaemonSet was deleted, and left its pods as orphans
    assert list(puller_index(found)) == ["orphans/ns"]
    assert list(puller_index(pod("p"))) == []
    assert list(owner_index(pod("p"))) == ["uid"]
    assert claim(daemonset(), [found]).adopt == []


def test_long_names_make_valid_labels():
    ds = daemonset(TEMPLATE)
    ds.metadata.name = "a" * 62 + ".b"
    assert made(ds)["metadata"]["labels"]["nodewright.dev/pre-pull-of"] == "a" * 62


@pytest.mark.parametrize(
    ("statuses", "done", "error"),
    [
        pytest.param([], False, "", id="not started"),
        pytest.param([waits("ContainerCreating")], False, "", id="under way"),
        pytest.param([DONE], True, "", id="pulled"),
        pytest.param([status(state={"running": {}})], True, "", id="runs"),
        pytest.param([waits("CreateContainerConfigError")], True, "", id="pulled, and may not run as root"),
        pytest.param([waits("RunContainerError")], True, "", id="pulled, and has no such command"),
        pytest.param([DONE, waits("ContainerCreating")], False, "", id="one of two"),
        pytest.param([waits("ErrImagePull")], False, "ErrImagePull: why", id="failed"),
        pytest.param([DONE, waits("ImagePullBackOff")], False, "ImagePullBackOff: why", id="the second failed"),
    ],
)
def test_when_a_pull_is_done(statuses, done, error):
    one = puller("x", "n1", *statuses)
    assert prepull.is_done(one) is done
    found = prepull.survey([one], "new", {}, AT)
    assert found.pulled == ({"n1"} if done else set())
    assert found.errors == ({"n1": error} if error else {})


def test_what_was_evicted_or_refused_has_pulled_nothing():
    assert prepull.is_lost(puller("x", phase="Failed"))
    assert not prepull.is_lost(puller("x", "n1", DONE, phase="Failed"))
    assert not prepull.is_lost(puller("x"))


def test_a_puller_that_is_not_scheduled_for_a_minute_fails():
    one = puller("x")
    one.metadata.creation_timestamp = "2026-03-01T11:59:30Z"
    assert prepull.survey([one], "new", {}, AT).errors == {}
    assert prepull.seconds_to_schedule(one, AT) == 30
    one.metadata.creation_timestamp = "2026-03-01T11:59:00Z"
    assert prepull.survey([one], "new", {}, AT).errors == {"n1": "pod x is not scheduled"}
    one.spec.node_name = "n1"
    assert prepull.survey([one], "new", {}, AT).errors == {}


def test_a_puller_gets_past_the_taints_that_its_daemonset_looks_past():
    wire = prepull.puller_for(DAEMONSETS, daemonset(TEMPLATE), TEMPLATE, "new", "n1", ["startup.nodewright.dev/x"])
    assert {"key": "startup.nodewright.dev/x", "operator": "Exists"} in wire["spec"]["tolerations"]


def test_pullers_of_other_revisions_tell_nothing_and_pods_of_this_one_all():
    pods = {"n3": [pod("p", "n3")], "n4": [pod("q", "n4", hash="old")]}
    found = prepull.survey([puller("x", "n1", DONE, hash="old"), puller("y", "n2", DONE)], "new", pods, AT)
    assert found.pulled == {"n2", "n3"}


def obsolete(pullers, pods=(), verdicts=None, rolling=ROLLING, **more):
    seen = view(pods, verdicts or {"n1": RUN, "n2": RUN}, rolling=rolling, **more)
    return [p.metadata.name for p in prepull.obsolete(seen, targets(seen), pullers)]


def test_what_is_of_no_use_any_more():
    old = pod("p", "n1", hash="old")
    assert obsolete([puller("x")], [old]) == []
    assert obsolete([puller("x", "n1", DONE)], [old]) == []
    assert obsolete([puller("x", "n1", DONE)]) == []  # between the old pod and the new one
    assert obsolete([puller("x")], [pod("p", "n1")]) == ["x"]
    assert obsolete([puller("x", hash="old")], [old]) == ["x"]
    assert obsolete([puller("x", "gone")], [old]) == ["x"]
    assert obsolete([puller("x")], [old], {"n1": LEAVE}) == ["x"]
    assert obsolete([puller("x")], [old], rolling={}) == ["x"]
    assert obsolete([puller("x"), puller("y", "n1", DONE)], [old]) == ["x"]
    assert obsolete([puller("x", hash="old", deleting=True)], [old]) == []


def test_a_pause_stops_pulls_and_keeps_what_was_pulled():
    pullers = [puller("x"), puller("y", "n2", DONE)]
    assert obsolete(pullers, [pod("p", "n1", hash="old"), pod("q", "n2", hash="old")], paused=True) == ["x"]


def test_one_puller_per_node():
    there = [puller("x"), puller("y", "n2", deleting=True)]
    assert prepull.missing(["n1", "n2", "n3"], there) == ["n3"]


@given(data=st.data(), parallel=st.integers(1, 3), unavailable=st.integers(1, 3))
@settings(max_examples=60)
def test_no_pod_goes_before_its_images_are_there_and_all_go_in_the_end(data, parallel, unavailable):
    names = [f"n{i}" for i in range(6)]
    rolling = {"maxUnavailable": unavailable, "prePull": {"maxParallel": parallel}}
    daemons = {name: pod(f"p-{name}", name, hash="old") for name in names}
    pullers: dict[str, Pod] = {}
    failing = data.draw(st.sets(st.sampled_from(names), max_size=parallel - 1))  # as many may be stuck for good

    def look():
        pods = group(daemons.values())
        pulls = prepull.survey(pullers.values(), "new", pods, AT)
        seen = view(daemons.values(), dict.fromkeys(names, RUN), rolling=rolling, pulled=pulls.pulled)
        return msgspec.structs.replace(seen, pull_errors=pulls.errors)

    for _ in range(60):
        seen = look()
        decision = decide(seen, lambda _node: 0.0)
        for gone in decision.plan.delete:
            assert prepull.is_done(pullers[gone.target_node])
            del daemons[gone.target_node]
        for name in decision.plan.create:
            daemons[name] = pod(f"q-{name}", name, ready=False)
        for name in prepull.missing(decision.plan.pre_pull, pullers.values()):
            pullers[name] = puller(f"x-{name}", name)
        for gone in prepull.obsolete(look(), decision.targets, pullers.values()):
            del pullers[gone.target_node]
        assert sum(not prepull.is_done(each) for each in pullers.values()) <= 2 * parallel
        under_way = [name for name, each in pullers.items() if not each.status.container_statuses]
        if under_way:
            name = data.draw(st.sampled_from(under_way))
            report = waits("ErrImagePull") if name in failing else DONE
            pullers[name] = puller(f"x-{name}", name, report)
        for name, found in daemons.items():
            if not any(c.status == "True" for c in found.status.conditions):
                daemons[name] = pod(found.metadata.name, name)
                break
    updated = {name for name, found in daemons.items() if found.metadata.labels["controller-revision-hash"] == "new"}
    assert updated == set(names) - failing
    assert set(pullers) == failing


@pytest.mark.parametrize("verdicts", [{"n1": RUN, "n2": STAY}, {"n1": RUN}], ids=["keeps its old pod", "is gone"])
def test_nothing_is_pulled_where_no_new_pod_comes(verdicts):
    pods = [pod("a", "n1", hash="old"), pod("b", "n2", hash="old")]
    found = decide(view(pods, verdicts, rolling={**ROLLING, "maxUnavailable": 2}), lambda _node: 0.0).plan
    assert (found.pre_pull, [p.metadata.name for p in found.delete]) == (["n1"], ["b"])
