"""CoreDNS as the cluster's DNS: the embedded cluster has none of its own."""

from __future__ import annotations

import json
from typing import Any

from conformance.images import COREDNS_IMAGE

_COREFILE = """.:53 {
    errors
    health
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa {
        pods insecure
        fallthrough in-addr.arpa ip6.arpa
        ttl 5
    }
    prometheus :9153
    cache 5
    reload
}
"""
_LABELS = {"k8s-app": "kube-dns"}


def manifest(service_ip: str) -> str:
    """The objects of the cluster DNS behind `service_ip`, as JSON."""
    items = [*_account(), _config(), _deployment(), _service(service_ip)]
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": items})


def _named(name: str, namespace: str = "kube-system") -> dict[str, Any]:
    return {"name": name, "namespace": namespace} if namespace else {"name": name}


def _account() -> list[dict[str, Any]]:
    read = ["list", "watch"]
    rules = [
        {"apiGroups": [""], "resources": ["services", "pods", "namespaces", "endpoints"], "verbs": read},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": read},
    ]
    rbac = "rbac.authorization.k8s.io"
    role = {"apiGroup": rbac, "kind": "ClusterRole", "name": "system:coredns"}
    subject = {"kind": "ServiceAccount", "name": "coredns", "namespace": "kube-system"}
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": _named("coredns")},
        {"apiVersion": f"{rbac}/v1", "kind": "ClusterRole", "metadata": _named("system:coredns", ""), "rules": rules},
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": _named("system:coredns", ""),
            "roleRef": role,
            "subjects": [subject],
        },
    ]


def _config() -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": _named("coredns"), "data": {"Corefile": _COREFILE}}


def _deployment() -> dict[str, Any]:
    container = {
        "name": "coredns",
        "image": COREDNS_IMAGE,
        "args": ["-conf", "/etc/coredns/Corefile"],
        "ports": [{"containerPort": 53, "name": "dns", "protocol": "UDP"}, {"containerPort": 53, "name": "dns-tcp"}],
        "readinessProbe": {"httpGet": {"path": "/ready", "port": 8181}, "periodSeconds": 2},
        "resources": {"requests": {"cpu": "50m", "memory": "40Mi"}},
        "volumeMounts": [{"name": "config", "mountPath": "/etc/coredns", "readOnly": True}],
    }
    spec = {
        "serviceAccountName": "coredns",
        "priorityClassName": "system-cluster-critical",
        "dnsPolicy": "Default",
        "tolerations": [{"key": "CriticalAddonsOnly", "operator": "Exists"}],
        "containers": [container],
        "volumes": [{"name": "config", "configMap": {"name": "coredns"}}],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _named("coredns") | {"labels": _LABELS},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": _LABELS},
            "template": {"metadata": {"labels": _LABELS}, "spec": spec},
        },
    }


def _service(address: str) -> dict[str, Any]:
    ports = [{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53, "protocol": "TCP"}]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _named("kube-dns") | {"labels": _LABELS | {"kubernetes.io/name": "CoreDNS"}},
        "spec": {"selector": _LABELS, "clusterIP": address, "ports": ports},
    }
