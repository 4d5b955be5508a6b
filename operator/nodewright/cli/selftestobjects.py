"""The objects that `nodewright selftest` makes. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

PORT = 8080
LABEL = "nodewright.dev/selftest"
PROXY_NAME = "service.kubernetes.io/service-proxy-name"


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is tested, and with what. `name` is that of the objects; `proxy_name` labels the Service when not empty."""

    name: str
    namespace: str
    image: str
    scheduler: str = "nodewright"
    proxy_name: str = ""
    pull_policy: str = "IfNotPresent"
    pull_secrets: Sequence[str] = ()


def pod(plan: Plan) -> dict[str, Any]:
    """A Pod that only our scheduler places."""
    spec = _pod_spec(plan) | {"schedulerName": plan.scheduler}
    return {"metadata": _metadata(plan, "pod"), "spec": spec}


def daemonset(plan: Plan) -> dict[str, Any]:
    """A DaemonSet of our kind: one Pod on every node without taints, a kubelet's or an agent's."""
    labels = _metadata(plan, "daemonset")["labels"]
    return {
        "metadata": _metadata(plan, "daemonset"),
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": _pod_spec(plan)},
        },
    }


def service(plan: Plan) -> dict[str, Any]:
    """A Service in front of the DaemonSet's Pods."""
    metadata = _metadata(plan, "service")
    if plan.proxy_name:
        metadata["labels"][PROXY_NAME] = plan.proxy_name
    selector = _metadata(plan, "daemonset")["labels"]
    return {"metadata": metadata, "spec": {"selector": selector, "ports": [{"port": 80, "targetPort": PORT}]}}


def trouble(found: dict[str, Any] | None) -> str:
    """Why a Pod is not Ready, in words; empty when it is."""
    if found is None:
        return "it is not there"
    status = found.get("status") or {}
    conditions = {c["type"]: c for c in status.get("conditions") or ()}
    if (conditions.get("Ready") or {}).get("status") == "True":
        return ""
    scheduled = conditions.get("PodScheduled") or {}
    if not (found.get("spec") or {}).get("nodeName"):
        return f"no node yet: {scheduled.get('message') or 'no scheduler has looked at it'}"
    for container in status.get("containerStatuses") or ():
        waiting = (container.get("state") or {}).get("waiting")
        if waiting:
            where = found["spec"]["nodeName"]
            return f"on {where}: {waiting.get('reason')} {waiting.get('message') or ''}".rstrip()
    return f"on {found['spec']['nodeName']}: {(conditions.get('Ready') or {}).get('message') or status.get('phase')}"


def missing(found: dict[str, Any] | None) -> str:
    """What a DaemonSet lacks to run on all of its nodes, in words; empty when nothing."""
    if found is None:
        return "it is not there"
    status = found.get("status") or {}
    if status.get("observedGeneration") != found["metadata"].get("generation"):
        return "no operator has looked at it"
    desired, ready = int(status.get("desiredNumberScheduled") or 0), int(status.get("numberReady") or 0)
    if not desired:
        return "no node suits it"
    return "" if ready == desired else f"{ready} of {desired} Pods are Ready"


def _metadata(plan: Plan, part: str) -> dict[str, Any]:
    return {"name": plan.name, "namespace": plan.namespace, "labels": {LABEL: plan.name, f"{LABEL}-part": part}}


def _pod_spec(plan: Plan) -> dict[str, Any]:
    """A web server that says on which node it runs, within PodSecurity's "restricted"."""
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 2,
        "imagePullSecrets": [{"name": name} for name in plan.pull_secrets],
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "runAsGroup": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                "name": "web",
                "image": plan.image,
                "imagePullPolicy": plan.pull_policy,
                "command": ["nodewright", "selftest", "--serve", str(PORT)],
                "env": [{"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}],
                "ports": [{"name": "http", "containerPort": PORT}],
                "readinessProbe": {"httpGet": {"path": "/", "port": PORT}, "periodSeconds": 1, "timeoutSeconds": 5},
                "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "128Mi"}},
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                },
            }
        ],
    }
