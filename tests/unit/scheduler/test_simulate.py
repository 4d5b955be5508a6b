"""Simulations: the real core, run to the end on a picture; files on top of it."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nodewright.scheduler.gang import GROUP_LABEL, MIN_MEMBER
from nodewright.scheduler.simulation.documents import Document, ManifestError
from nodewright.scheduler.simulation.scenario import Scenario
from nodewright.scheduler.simulation.snapshot import from_documents

ZONE = "topology.kubernetes.io/zone"


def node(name, cpu="4", labels=None, **spec):
    amounts = {"cpu": cpu, "memory": "8Gi", "pods": "20"}
    labels = {"kubernetes.io/hostname": name, **(labels or {})}
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}, "spec": spec,
            "status": {"allocatable": amounts}}  # fmt: skip


def containers(cpu):
    return [{"name": "c", "image": "x", "resources": {"requests": {"cpu": cpu}}}]


def pod(name, cpu="1", at="", labels=None, status=None, annotations=None, **spec):
    meta = {"name": name, "namespace": "default", "labels": labels or {}, "annotations": annotations or {}}
    placed = {"nodeName": at, "schedulerName": "default-scheduler"} if at else {}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {**meta, "uid": name}, "status": status or {},
            "spec": {**placed, "containers": containers(cpu), **spec}}  # fmt: skip


def waiting(name, cpu="1", **more):
    return pod(name, cpu, schedulerName="default-scheduler", **more)


def priority(name, value, **more):
    meta = {"name": name}
    return {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": meta, "value": value, **more}


def workload(kind, name, cpu="1", labels=None, template=None, version="apps/v1", **spec):
    labels = labels or {"app": name}
    made = {"metadata": {"labels": labels}, "spec": {"containers": containers(cpu), **(template or {})}}
    spec = {"selector": {"matchLabels": labels}, "template": made, **spec}
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name}, "spec": spec}


def documents(objects):
    return [Document("test.yaml", f"document {number}", body) for number, body in enumerate(objects, 1)]


def scenario(cluster, files):
    made = Scenario(from_documents(documents(cluster)), documents(files))
    for one in made.workloads:
        made.fill_offline(one)
    return made


def simulate(cluster, *files, **options):
    return scenario(cluster, files).run(**options)


def where(result):
    return {outcome.pod.partition("/")[2]: outcome.node for outcome in result.pods}


def test_pods_fill_nodes_and_the_rest_waits_with_the_real_message():
    result = simulate([node("n1", "2"), node("n2", "2")], *(pod(name, "1500m") for name in "abc"))
    assert (result.placed, result.pending) == (2, 1)
    assert set(where(result).values()) == {"n1", "n2", ""}
    (stuck,) = [outcome for outcome in result.pods if outcome.status == "pending"]
    assert stuck.message == (
        "0/2 nodes are available: 2 Insufficient cpu. no new claims to deallocate, preemption: "
        "0/2 nodes are available: 2 No preemption victims found for incoming pod."
    )
    assert stuck.source == "test.yaml, document 3 (Pod default/c)"
    first = result.nodes[0]
    assert (first.cpu.before, first.cpu.after, first.cpu.allocatable) == ("0m", "1500m", "2000m")
    assert (first.pods.before, first.pods.after, first.pods.allocatable) == ("0", "1", "20")


def test_priority_decides_and_then_the_order_of_the_files():
    files = [pod("low", "3"), pod("first", "3", priorityClassName="high"), pod("second", "3", priorityClassName="high")]
    result = simulate([node("n"), node("m", "3"), priority("high", 10)], *files)
    assert where(result)["low"] == ""
    assert {where(result)["first"], where(result)["second"]} == {"n", "m"}


def test_victims_leave_and_the_preemptor_takes_their_place():
    cluster = [node("n"), pod("old", "3", at="n"), priority("high", 10)]
    result = simulate(cluster, pod("vip", "2", priorityClassName="high"))
    assert where(result) == {"vip": "n"}
    assert result.pods[0].victims == ["default/old"]
    (evicted,) = result.evicted
    assert (evicted.pod, evicted.node, evicted.by) == ("default/old", "n", "default/vip")
    assert (result.nodes[0].cpu.before, result.nodes[0].cpu.after) == ("3000m", "2000m")


def test_budgets_are_spent_by_evictions():
    budget = {
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "guard"},
        "spec": {"selector": {"matchLabels": {"app": "db"}}}, "status": {"disruptionsAllowed": 1},
    }  # fmt: skip
    old = [pod(f"db-{name}", "3", at=name, labels={"app": "db"}) for name in ("a", "b")]
    cluster = [node("a"), node("b"), *old, budget, priority("high", 10)]
    result = simulate(cluster, *(pod(f"vip-{n}", "3", priorityClassName="high") for n in (1, 2)))
    assert [evicted.violates for evicted in result.evicted] == [[], ["guard"]]


def near(app):
    term = {"labelSelector": {"matchLabels": {"app": app}}, "topologyKey": "kubernetes.io/hostname"}
    return {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}


def test_a_pod_of_the_files_that_others_of_them_evict():
    """The least important comes first, since the others wait for it and for each other."""
    files = [
        pod("filler", "3", labels={"app": "filler"}),
        pod("anchor", "1", labels={"app": "anchor"}, priorityClassName="high", affinity=near("filler")),
        pod("vip", "2", priorityClassName="high", affinity=near("anchor")),
    ]
    result = simulate([node("n"), priority("high", 10)], *files)
    outcomes = {outcome.pod.partition("/")[2]: outcome for outcome in result.pods}
    assert outcomes["vip"].node == outcomes["anchor"].node == "n"
    assert outcomes["filler"].status == "evicted"
    assert outcomes["filler"].evicted_by == "default/vip"
    assert result.evicted == []
    assert (result.placed, result.pending) == (2, 1)


def test_a_pod_that_waits_for_another_of_the_files_is_tried_again():
    result = simulate([node("a"), node("b")], pod("web", affinity=near("db")), pod("db", labels={"app": "db"}))
    assert where(result)["web"] == where(result)["db"] != ""


def test_gates_keep_pods_waiting():
    result = simulate([node("n")], pod("g", schedulingGates=[{"name": "x"}]))
    assert result.pods[0].message == "Scheduling is blocked due to non-empty scheduling gates"


def test_pods_that_name_their_node_are_there():
    result = simulate([node("n", "2")], pod("fixed", "2", at="n"), pod("late", "1"))
    assert where(result) == {"fixed": "n", "late": ""}
    assert result.nodes[0].cpu.before == "2000m"


def test_gangs_go_at_once_or_not_at_all():
    def member(name, group, cpu):
        return pod(name, cpu, labels={GROUP_LABEL: group}, annotations={MIN_MEMBER: "2"})

    files = [member("a1", "a", "3"), member("a2", "a", "3"), member("b1", "b", "1"), member("b2", "b", "1")]
    result = simulate([node("n")], *files)
    assert where(result) == {"a1": "", "a2": "", "b1": "n", "b2": "n"}
    assert "of at least 2 pods fit at once, so none is placed" in result.pods[0].message


# --- the cluster's own Pods ------------------------------------------------------------------------------------------


def test_pods_that_wait_in_the_cluster_are_tried_on_request():
    cluster = [node("n", "2"), waiting("here", "2")]
    assert where(simulate(cluster, pod("new", "2"))) == {"new": "n"}
    result = simulate(cluster, pod("new", "2"), schedule_pending=True)
    assert where(result) == {"here": "n", "new": ""}
    assert result.pods[0].source == "cluster"
    assert simulate(cluster, schedule_pending=True).placed == 1


def test_room_of_nominated_pods_is_kept():
    nominated = waiting("vip", "2", priority=10, status={"nominatedNodeName": "n"})
    result = simulate([node("n", "2"), nominated], pod("new", "1"))
    assert where(result) == {"new": ""}


def test_pods_that_have_ended_do_not_count():
    cluster = [node("n", "2"), pod("done", "2", at="n", status={"phase": "Succeeded"})]
    assert where(simulate(cluster, pod("new", "2"))) == {"new": "n"}


# --- profiles --------------------------------------------------------------------------------------------------------


def profile(name, **spec):
    meta = {"name": name, "uid": name}
    return {"apiVersion": "nodewright.dev/v1alpha1", "kind": "SchedulerProfile", "metadata": meta,
            "spec": {"schedulerName": name, **spec}}  # fmt: skip


def test_profiles_of_the_picture_decide():
    strategy = {"scoringStrategy": {"type": "MostAllocated", "resources": [{"name": "cpu", "weight": 1}]}}
    packed = profile("packed", pluginConfig=[{"name": "NodeResourcesFit", "args": strategy}])
    cluster = [node("empty"), node("used"), pod("old", "2", at="used"), packed]
    only = {"plugins": {"score": {"disabled": [{"name": "*"}], "enabled": [{"name": "NodeResourcesFit"}]}}}
    packed["spec"] |= only
    assert where(simulate(cluster, pod("p", schedulerName="packed"))) == {"p": "used"}
    assert where(simulate(cluster, pod("p"))) == {"p": "empty"}


def test_profiles_that_are_not_there_or_wrong_are_noted():
    wrong = profile("wrong", pluginConfig=[{"name": "NodeResourcesFit", "args": {"nonsense": 1}}])
    result = simulate([node("n"), wrong], pod("p", schedulerName="volcano"), pod("q", schedulerName="wrong"))
    assert result.placed == 2
    assert len(result.notes) == 3
    assert result.notes[0].startswith("SchedulerProfile wrong is not in use: spec: pluginConfig[NodeResourcesFit].args")
    assert result.notes[1] == "no SchedulerProfile serves schedulerName volcano: default plugins stand in for it"


# --- workloads -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "names"),
    [
        ([workload("Deployment", "web", replicas=2)], {"web-simulated-0", "web-simulated-1"}),
        ([workload("Deployment", "web")], {"web-simulated-0"}),
        ([workload("Deployment", "web", replicas=0)], set()),
        ([workload("ReplicaSet", "web", replicas=1)], {"web-simulated-0"}),
        ([workload("ReplicationController", "web", version="v1", replicas=1)], {"web-simulated-0"}),
        ([workload("StatefulSet", "db", replicas=2, ordinals={"start": 5})], {"db-5", "db-6"}),
        ([workload("Job", "j", version="batch/v1", parallelism=5, completions=2)], {"j-simulated-0", "j-simulated-1"}),
        ([workload("Job", "j", version="batch/v1", parallelism=5, suspend=True)], set()),
        ([workload("DaemonSet", "ds")], {"ds-n1", "ds-n2"}),
        ([workload("DaemonSet", "ds", version="nodewright.dev/v1alpha1")], {"ds-n1", "ds-n2"}),
    ],
)
def test_workloads_become_pods(files, names):
    cluster = [node("n1", unschedulable=True), node("n2"), node("no", taints=[{"key": "k", "effect": "NoSchedule"}])]
    result = simulate(cluster, *files)
    assert set(where(result)) == names
    assert all(where(result).values())


def test_a_cron_job_runs_once():
    job = workload("Job", "j", version="batch/v1")["spec"]
    cron = {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": "nightly"},
        "spec": {"jobTemplate": {"spec": job}},
    }
    assert where(simulate([node("n")], cron)) == {"nightly-simulated-0": "n"}


def test_each_daemon_pod_goes_to_its_own_node_or_nowhere():
    cluster = [node("n1", "1"), node("n2", "4"), node("other", labels={"os": "windows"})]
    selector = {"nodeSelector": {"kubernetes.io/hostname": "n1"}}
    result = simulate(cluster, workload("DaemonSet", "big", cpu="2"), workload("DaemonSet", "one", template=selector))
    assert where(result) == {"big-n1": "", "big-n2": "n2", "big-other": "other", "one-n1": "n1"}
    (stuck,) = [outcome for outcome in result.pods if not outcome.node]
    assert "1 Insufficient cpu" in stuck.message
    assert "2 node(s) didn't satisfy plugin(s) [NodeAffinity]" in stuck.message


def test_replicas_of_a_deployment_are_spread_by_default_and_its_own_constraints():
    cluster = [node(f"n{n}", labels={ZONE: "ab"[n % 2]}) for n in range(4)]
    result = simulate(cluster, workload("Deployment", "web", cpu="100m", replicas=4))
    assert sorted(where(result).values()) == ["n0", "n1", "n2", "n3"]
    constraint = {"maxSkew": 1, "topologyKey": ZONE, "whenUnsatisfiable": "DoNotSchedule",
                  "matchLabelKeys": ["pod-template-hash"], "labelSelector": {"matchLabels": {"app": "web"}},
                  }  # fmt: skip
    full = [pod("full", "4", at="n1"), pod("full-2", "4", at="n3")]
    spread = workload("Deployment", "web", replicas=4, template={"topologySpreadConstraints": [constraint]})
    result = simulate([*cluster, *full], spread)
    assert result.placed == 1


def test_match_label_keys_of_affinity_mean_the_pods_own_values():
    term = {"labelSelector": {"matchLabels": {"app": "web"}}, "topologyKey": "kubernetes.io/hostname"}
    one = {
        "podAntiAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": [{**term, "matchLabelKeys": ["pod-template-hash"]}]
        }
    }
    old = pod("old", "100m", at="n", labels={"app": "web", "pod-template-hash": "older"})
    made = workload("Deployment", "web", template={"affinity": one})
    assert where(simulate([node("n"), old], made)) == {"web-simulated-0": "n"}


def test_claims_of_a_stateful_set_and_ephemeral_ones_are_made():
    storage = [
        {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "provisioner": "csi",
         "metadata": {"name": "fast", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
         "volumeBindingMode": "WaitForFirstConsumer",
         "allowedTopologies": [{"matchLabelExpressions": [{"key": ZONE, "values": ["b"]}]}]},
    ]  # fmt: skip
    cluster = [node("a", labels={ZONE: "a"}), node("b", labels={ZONE: "b"}), *storage]
    template = {"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": 1}}}}
    claims = [{"metadata": {"name": "data"}, **template}]
    result = simulate(cluster, workload("StatefulSet", "db", replicas=2, volumeClaimTemplates=claims))
    assert where(result) == {"db-0": "b", "db-1": "b"}
    volume = {"name": "scratch", "ephemeral": {"volumeClaimTemplate": template}}
    assert where(simulate(cluster, pod("p", volumes=[volume]))) == {"p": "b"}


def test_volumes_of_the_files_are_free_and_given_away_once():
    files = [
        {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "local"},
         "provisioner": "kubernetes.io/no-provisioner", "volumeBindingMode": "WaitForFirstConsumer"},
        {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "pv"},
         "spec": {"capacity": {"storage": "2Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "local"}},
    ]  # fmt: skip
    spec = {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": "local",
        "resources": {"requests": {"storage": "1Gi"}},
    }
    claims = [{"metadata": {"name": "data"}, "spec": spec}]
    result = simulate([node("n")], *files, workload("StatefulSet", "db", replicas=2, volumeClaimTemplates=claims))
    assert where(result) == {"db-0": "n", "db-1": ""}
    assert "didn't find available persistent volumes to bind" in result.pods[1].message


# --- nodes that do not exist -----------------------------------------------------------------------------------------


def test_nodes_of_the_files_and_copies_of_a_node():
    taints = [{"key": "node.kubernetes.io/not-ready", "effect": "NoExecute"}, {"key": "own", "effect": "NoSchedule"}]
    made = scenario([node("n", "1", unschedulable=True, taints=taints)], [node("extra", "1")])
    made.add_nodes(2, "n")
    result = made.run()
    assert [(use.node, use.simulated) for use in result.nodes] == [
        ("extra", True), ("n", False), ("n-simulated-1", True), ("n-simulated-2", True),
    ]  # fmt: skip
    made = scenario([node("n", "1", unschedulable=True)], [pod(name) for name in "abc"])
    made.add_nodes(2, "n")
    assert sorted(where(made.run()).values()) == ["", "n-simulated-1", "n-simulated-2"]
    with pytest.raises(ManifestError, match="there is no node m \\(there are: n"):
        made.add_nodes(1, "m")


# --- defaults --------------------------------------------------------------------------------------------------------


def test_limits_are_requests_and_pod_level_ones_too():
    limited = {"containers": [{"name": "c", "image": "x", "resources": {"limits": {"cpu": "2"}}}]}
    whole = {"containers": [{"name": "c", "image": "x"}], "resources": {"limits": {"cpu": "1"}}}
    bodies = [{**pod(name), "spec": spec} for name, spec in (("a", limited), ("b", whole))]
    result = simulate([node("n")], *bodies)
    assert result.nodes[0].cpu.after == "3000m"


def test_the_hosts_network_takes_host_ports():
    spec = {"hostNetwork": True, "containers": [{"name": "c", "image": "x", "ports": [{"containerPort": 80}]}]}
    result = simulate([node("n")], *({**pod(name), "spec": spec} for name in "ab"))
    assert sorted(where(result).values()) == ["", "n"]


def test_a_default_priority_class_and_one_that_nobody_has():
    cluster = [node("n"), pod("old", "4", at="n", priority=3), priority("usual", 5, globalDefault=True)]
    assert where(simulate(cluster, pod("p"))) == {"p": "n"}
    lazy = [node("n"), pod("old", "4", at="n"), priority("lazy", 5, preemptionPolicy="Never")]
    assert "preemptionPolicy=Never" in simulate(lazy, pod("p", priorityClassName="lazy")).pods[0].message
    assert simulate([node("n")], pod("p", priorityClassName="system-node-critical")).pods[0].priority == 2000001000
    with pytest.raises(ManifestError, match='priorityClassName: no PriorityClass with name "x" was found'):
        simulate([], pod("p", priorityClassName="x"))


def test_what_takes_no_part_is_counted():
    result = simulate([], {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}})
    assert result.notes == ["left out, as they take no part in scheduling: 1 ConfigMap"]


# --- mistakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (pod("p", cpu="lots"), "(Pod default/p): spec.containers[0].resources.requests.cpu: not a quantity: 'lots'"),
        (pod("p", cpu=[1]), "(Pod default/p): spec.containers[0].resources.requests.cpu: must be a quantity, not [1]"),
        (workload("Deployment", "w", cpu="x"), "(Deployment w): spec.template.spec.containers[0].resources.requests"),
        (workload("Deployment", "w", replicas=-1), "(Deployment w): spec.replicas: must be a whole number"),
        (workload("Deployment", "w", replicas="2"), "spec.replicas: must be a whole number of at least 0, not '2'"),
        (workload("Deployment", "w", template={"nodeSelector": {"a": 1}}), "spec.template.spec.nodeSelector[...]: Exp"),
        (workload("Deployment", "w", template={"containers": []}), "spec.template.spec.containers: Required value"),
        ({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "w"}}, "(Deployment w): spec: Required"),
        ({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": []}, "(Pod p): spec: must be a map"),
        ({"apiVersion": "v1", "kind": "Pod", "metadata": [1], "spec": {}}, "metadata: must be a mapping"),
        ({"apiVersion": "v1", "kind": "Pod", "spec": {}}, "(Pod): metadata.name: Required value"),
        ({"apiVersion": "v1", "kind": "Node", "metadata": {}}, "(Node): metadata.name: Required value"),
        ({**node("n"), "status": {"allocatable": {"cpu": "?"}}}, "status.allocatable.cpu: not a quantity"),
    ],
)  # fmt: skip
def test_mistakes_name_the_document_and_the_field(body, message):
    with pytest.raises(ManifestError) as raised:
        simulate([node("n")], {"kind": "Secret"}, body)
    assert str(raised.value).startswith("test.yaml, document 2 (")
    assert message in str(raised.value)


# --- for all clusters ------------------------------------------------------------------------------------------------

sizes = st.sampled_from(["500m", "1", "1500m", "3"])


@settings(deadline=None)
@given(
    nodes=st.lists(st.sampled_from(["1", "2", "4"]), min_size=1, max_size=4),
    old=st.lists(st.tuples(st.integers(0, 3), sizes, st.integers(0, 2)), max_size=6),
    new=st.lists(st.tuples(sizes, st.integers(0, 3), st.booleans()), max_size=8),
)
def test_nothing_is_overcommitted_lost_or_without_a_reason(nodes, old, new):
    cluster = [node(f"n{index}", size) for index, size in enumerate(nodes)]
    cluster += [priority(f"p{value}", value) for value in range(4)]
    free = {f"n{index}": int(size) * 1000 for index, size in enumerate(nodes)}
    for index, (at, cpu, value) in enumerate(old):
        amount = int(cpu.removesuffix("m")) * (1 if cpu.endswith("m") else 1000)
        if free.get(f"n{at}", 0) >= amount:
            free[f"n{at}"] -= amount
            cluster.append(pod(f"old-{index}", cpu, at=f"n{at}", priority=value))
    gate = {"schedulingGates": [{"name": "g"}]}
    files = [
        pod(f"new-{i}", cpu, priorityClassName=f"p{p}", **(gate if g else {})) for i, (cpu, p, g) in enumerate(new)
    ]
    result = simulate(cluster, *files)
    assert len(result.pods) == len(new)
    assert result.placed + result.pending == len(new)
    for use in result.nodes:
        assert int(use.cpu.after.removesuffix("m")) <= int(use.cpu.allocatable.removesuffix("m"))
    for outcome in result.pods:
        assert bool(outcome.node) != bool(outcome.message)
    counted = sum(int(use.pods.after) for use in result.nodes)
    before = sum(int(use.pods.before) for use in result.nodes)
    assert counted == before - len(result.evicted) + result.placed
    assert msgspec.json.decode(msgspec.json.encode(result))["placed"] == result.placed
