"""PodSecurity, privileges with their reasons, and the other promises of the Pods."""

from __future__ import annotations

import re
from typing import Any

import pytest

from support.chart import CHART, containers, find, pod_specs, render

PRIVILEGED = {"DaemonSet/nodewright-agent", "DaemonSet/nodewright-proxy", "DaemonSet/nodewright-cleanup"}
HOST_NETWORK = {*PRIVILEGED, "Job/nodewright-uninstall"}
SPECS = dict(pod_specs(render()))
RESTRICTED = sorted(set(SPECS) - HOST_NETWORK)


def test_these_are_all_pods() -> None:
    assert set(SPECS) == HOST_NETWORK | {
        "Deployment/nodewright-operator",
        "Deployment/nodewright-scheduler",
        "Pod/nodewright-selftest",
    }


@pytest.mark.parametrize("where", RESTRICTED)
def test_what_talks_to_the_api_only_is_restricted(where: str) -> None:
    """The rules of the PodSecurity Standard "restricted", one by one."""
    spec = SPECS[where]
    assert not any(spec.get(field) for field in ("hostNetwork", "hostPID", "hostIPC"))
    allowed = {
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    }
    assert all(set(volume) - {"name"} <= allowed for volume in spec.get("volumes", ()))
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] != 0
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in containers(spec):
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context.get("privileged") is not True
        assert not any("hostPort" in port for port in container.get("ports", ()))


@pytest.mark.parametrize("where", sorted(SPECS))
def test_every_pod(where: str) -> None:
    spec = SPECS[where]
    assert spec["automountServiceAccountToken"] is (where != "DaemonSet/nodewright-cleanup")
    assert spec["nodeSelector"]["kubernetes.io/os"] == "linux", (
        "the Nodes of agents lack it, so that ours do not follow"
    )
    for container in containers(spec):
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
        assert "memory" in container["resources"]["limits"]
        assert "cpu" not in container["resources"]["limits"], "throttling a control loop makes it late, not lean"
        assert container["imagePullPolicy"] == "IfNotPresent"
    privileged = any(container["securityContext"].get("privileged") for container in containers(spec))
    assert privileged == (where in PRIVILEGED)
    assert bool(spec.get("hostNetwork")) == (where in HOST_NETWORK)
    assert "hostIPC" not in spec


@pytest.mark.parametrize("where", ["Deployment/nodewright-operator", "Deployment/nodewright-scheduler"])
def test_two_that_elect_a_leader(where: str) -> None:
    kind, name = where.split("/")
    deployment = find(render(), kind, name)
    assert deployment["spec"]["replicas"] == 2
    spec = SPECS[where]
    assert spec["priorityClassName"] == "system-cluster-critical"
    (spread,) = spec["topologySpreadConstraints"]
    assert spread["labelSelector"] == deployment["spec"]["selector"]
    (container,) = spec["containers"]
    assert "--leader-elect" in container["args"]
    assert "--leader-elect-namespace=$(POD_NAMESPACE)" in container["args"]
    assert container["livenessProbe"]["httpGet"]["path"] == "/livez"
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    budget = find(render(), "PodDisruptionBudget", name)
    assert budget["spec"]["selector"] == deployment["spec"]["selector"]
    assert budget["spec"]["maxUnavailable"] == 1
    part = name.removeprefix("nodewright-")
    alone = render({f"{part}.replicas": 1})
    # one that must not be disrupted would hold up every drain
    assert ("PodDisruptionBudget", name) not in {(obj["kind"], obj["metadata"]["name"]) for obj in alone}


@pytest.mark.parametrize("name", ["nodewright-agent", "nodewright-proxy"])
def test_host_components(name: str) -> None:
    daemonset = find(render(), "DaemonSet", name)
    assert daemonset["spec"]["updateStrategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}}
    spec = SPECS[f"DaemonSet/{name}"]
    assert spec["priorityClassName"] == "system-node-critical"
    assert spec["tolerations"] == [{"operator": "Exists"}]
    assert spec["dnsPolicy"] == "Default", "cluster DNS may need the very proxy that starts here"
    (container,) = spec["containers"]
    assert {"livenessProbe", "readinessProbe"} <= container.keys()


def test_agents_keep_off_control_planes_by_default() -> None:
    (term,) = SPECS["DaemonSet/nodewright-agent"]["affinity"]["nodeAffinity"][
        "requiredDuringSchedulingIgnoredDuringExecution"
    ]["nodeSelectorTerms"]
    assert term["matchExpressions"] == [{"key": "node-role.kubernetes.io/control-plane", "operator": "DoesNotExist"}]
    everywhere = dict(pod_specs(render({"agent.affinity": None})))
    assert "affinity" not in everywhere["DaemonSet/nodewright-agent"]
    assert "affinity" not in SPECS["DaemonSet/nodewright-proxy"]


TEMPLATES = sorted(path for path in (CHART / "templates").rglob("*.yaml") if path.parent.name != "crds")


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_each_privilege_and_host_path_has_its_reason_beside_it(path: Any) -> None:
    lines = path.read_text().splitlines()
    host_volumes = set(re.findall(r"- name: (\S+)\n\s+hostPath:", path.read_text()))
    for number, line in enumerate(lines):
        text = line.strip()
        is_mount = text.startswith("- name: ") and text[8:] in host_volumes and "mountPath" in lines[number + 1]
        if is_mount or text in ("hostNetwork: true", "hostPID: true", "privileged: true"):
            # hostPID may follow hostNetwork where one comment stands for both
            before = lines[number - 1].strip()
            reason = before.startswith("#") or (before == "hostNetwork: true" and lines[number - 2].strip()[:1] == "#")
            assert reason, f"{path.name}:{number + 1}: {text} has no reason above it"


def test_the_mount_that_a_helper_makes_has_its_reason() -> None:
    text = (CHART / "templates/_helpers.tpl").read_text()
    assert re.search(r"# Only its `server` line is read.*\n- name: kubelet-kubeconfig", text)


def test_only_the_agent_and_the_clean_up_see_the_hosts_mounts_both_ways() -> None:
    both_ways = {
        (where, mount["name"])
        for where, spec in SPECS.items()
        for container in containers(spec)
        for mount in container.get("volumeMounts", ())
        if mount.get("mountPropagation") == "Bidirectional"
    }
    assert both_ways == {
        (f"DaemonSet/nodewright-{name}", mount) for name in ("agent", "cleanup") for mount in ("state", "run")
    }
