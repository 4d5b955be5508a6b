"""Install, upgrade, roll back, uninstall, with Helm 3 and with Helm 4: Pods and traffic go on, and nothing is left."""

import time

import pytest
from kubernetes import client

from support.live import is_ready
from support.live_facts import RELEASE_NAMESPACE, look
from support.live_objects import Traffic, server_spec, service, workload

# What the older release was configured with, and what the upgrade changes: agents and proxies are restarted by it.
OLD = ("--set", "agent.verbosity=0", "--set", "agent.maxPods=50", "--set", "proxy.verbosity=0")
NEW = ("--set", "agent.verbosity=1", "--set", "agent.maxPods=60", "--set", "proxy.verbosity=1")


def custom_resource_definitions(live):
    found = client.ApiextensionsV1Api(live.api).list_custom_resource_definition().items
    return {each.metadata.name for each in found if each.spec.group == "nodewright.dev"}


def capacities(live):
    return {
        node.status.capacity["pods"]
        for node in live.core.list_node().items
        if "nodewright.dev/agent" in (node.metadata.labels or {})
    }


def test_life_cycle(helm, clean, machines, live, namespace, previous_chart, chart, figures):
    name = helm("version", "--short").split()[0]
    # The run with Helm 4 takes the CustomResourceDefinitions along; that with Helm 3 keeps them, which is the default.
    keep = helm.program.name == "helm"
    crds = ("--set", f"crds.keep={str(keep).lower()}")
    before = machines.snapshot(machines.names())

    figures(f"Helm {name}: install to everything Ready {helm.apply(previous_chart, *OLD, *crds):.1f} s")
    assert "Failed" not in helm("test", "nodewright", "--timeout=180s")
    facts = look(live)
    scene = _traffic(live, facts, namespace)
    kept = live.containers(namespace)

    renamed = ("--reuse-values", "--set", "agent.nodeNameSuffix=-other")
    assert "agent.nodeNameSuffix: is" in helm("upgrade", "nodewright", str(chart), *renamed, check=False)
    figures(f"Helm {name}: upgrade {helm.apply(chart, *NEW, *crds):.1f} s")
    live.wait("agents with the new settings", lambda: capacities(live) == {"60"})
    scene.flows(15)
    assert live.containers(namespace) == kept

    helm("rollback", "nodewright", "1", "--wait", "--timeout=300s")
    live.wait("agents with the old settings", lambda: capacities(live) == {"50"} and helm.all_ready(), 120)
    scene.flows(15)
    assert live.containers(namespace) == kept
    assert scene.errors() == []
    figures(f"Helm {name}: {scene.answers()} requests through upgrade and rollback, no error")

    # Its objects are the user's to delete; the Pods on Nodewright nodes end with their agents.
    live.kubectl("delete", "nds,svc,pods", "--all", "-n", namespace, "--wait=true", "--timeout=60s")
    helm("uninstall", "nodewright", "--wait", "--timeout=300s")
    assert _left(before, machines) == {}
    assert not [n for n in live.core.list_node().items if "nodewright.dev/agent" in (n.metadata.labels or {})]
    assert bool(custom_resource_definitions(live)) == keep
    # What docs/helm.md says stays until the namespace goes: of Kubernetes and `helm test`. Secret and Leases are owned.
    stays = {"configmap/kube-root-ca.crt", "pod/nodewright-selftest"}
    live.wait("nothing else in the namespace", lambda: _objects(live) <= stays, 30)


@pytest.mark.parametrize("helm", ["helm"], indirect=True)
def test_pods_that_still_run_at_the_uninstall_are_ended(helm, clean, machines, live, namespace, chart):
    before = machines.snapshot(machines.names())
    helm.apply(chart)
    facts = look(live)
    live.apply(workload("apps/v1", "Deployment", "web", namespace, server_spec(facts.nodewright_nodes[0]), replicas=2))
    live.wait("two Pods", lambda: sum(map(is_ready, live.pods(namespace))) == 2)
    helm("uninstall", "nodewright", "--wait", "--timeout=300s")
    live.kubectl("delete", "deployment", "web", "-n", namespace)
    assert _left(before, machines) == {}


def _left(before, machines, seconds=45):
    """What the machines have that they had not before. Helm does not wait for the Pods of what it deletes: they may
    still be ending."""
    deadline = time.monotonic() + seconds
    while (left := _difference(before, machines.snapshot(machines.names()))) and time.monotonic() < deadline:
        time.sleep(1)
    return left


def _objects(live):
    """What is in the release's namespace, events aside."""
    kinds = "pods,services,serviceaccounts,deployments.apps,daemonsets.apps,jobs.batch,configmaps,secrets"
    kinds += ",leases.coordination.k8s.io"
    names = live.kubectl("get", kinds, "-n", RELEASE_NAMESPACE, "-o", "name").split()
    return {name for name in names if name != "serviceaccount/default"}


def _traffic(live, facts, namespace):
    live.apply(
        workload("nodewright.dev/v1alpha1", "DaemonSet", "web", namespace, server_spec()),
        service("web", namespace, {"app": "web"}, facts.service_labels),
    )
    live.wait(
        "a web Pod on each node",
        lambda: {p.spec.node_name for p in live.pods(namespace, "app=web") if is_ready(p)} == set(facts.nodes),
        90,
    )
    address = live.core.read_namespaced_service("web", namespace).spec.cluster_ip
    return Traffic.start(live, namespace, f"http://{address}/", facts.nodes)


def _difference(before, after):
    """What came and did not go, by machine and kind."""
    return {
        f"{machine}: {kind}": new
        for machine, kinds in after.items()
        for kind, lines in kinds.items()
        if (new := sorted(set(lines) - set(before[machine][kind])))
    }
