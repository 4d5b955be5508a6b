"""An account with exactly what the chart grants the agent's ServiceAccount, as a Pod would have it mounted."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from nodewright.controlplane.cluster import LocalCluster
from nodewright.kube import config as kubeconfigs

_RBAC = "rbac.authorization.k8s.io"


def agent_rules() -> list[dict[str, object]]:
    """What the agent does with its ServiceAccount besides the bootstrap."""
    watch = ["get", "list", "watch"]
    return [
        {"apiGroups": [""], "resources": ["nodes", "services"], "verbs": watch},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": watch},
        {"apiGroups": ["nodewright.dev"], "resources": ["nodeagentconfigs"], "verbs": watch},
        {"apiGroups": ["nodewright.dev"], "resources": ["nodeagentconfigs/status"], "verbs": ["patch"]},
    ]


def account_objects(name: str, *, approved: bool) -> list[dict[str, object]]:
    """The ServiceAccount kube-system/NAME with its rights; without ``approved`` somebody has to approve by hand."""
    roles = {"agent": name, "bootstrap": "system:node-bootstrapper"}
    if approved:
        roles["approval"] = "system:certificates.k8s.io:certificatesigningrequests:nodeclient"
    subjects = [{"kind": "ServiceAccount", "name": name, "namespace": "kube-system"}]
    bindings: list[dict[str, object]] = [
        {
            "apiVersion": f"{_RBAC}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": f"{name}-{purpose}"},
            "roleRef": {"apiGroup": _RBAC, "kind": "ClusterRole", "name": role},
            "subjects": subjects,
        }
        for purpose, role in roles.items()
    ]
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": "kube-system"}},
        {"apiVersion": f"{_RBAC}/v1", "kind": "ClusterRole", "metadata": {"name": name}, "rules": agent_rules()},
        *bindings,
        {
            "apiVersion": f"{_RBAC}/v1",
            "kind": "RoleBinding",
            "metadata": {"name": name, "namespace": "kube-system"},
            "roleRef": {"apiGroup": _RBAC, "kind": "Role", "name": "extension-apiserver-authentication-reader"},
            "subjects": subjects,
        },
    ]


def mount_account(
    cluster: LocalCluster, kubectl: Callable[..., str], directory: Path, *, approved: bool = True
) -> Path:
    """Make an account, and write what the kubelet mounts into its Pods; give that directory."""
    name = f"agent-{uuid.uuid4().hex[:8]}"
    objects = {"apiVersion": "v1", "kind": "List", "items": account_objects(name, approved=approved)}
    kubectl("apply", "-f", "-", stdin=json.dumps(objects))
    directory.mkdir(parents=True)
    (directory / "token").write_text(kubectl("create", "token", name, "-n", "kube-system"))
    (directory / "ca.crt").write_bytes((cluster.layout.pki / "ca.crt").read_bytes())
    (directory / "namespace").write_text("kube-system")
    return directory


@pytest.fixture
def as_account(
    controller_manager: LocalCluster,
    kubectl: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., Path]:
    """Let this process be a Pod of a fresh account that reaches the API server at its own address."""

    def make(*, approved: bool = True) -> Path:
        directory = mount_account(controller_manager, kubectl, tmp_path / uuid.uuid4().hex, approved=approved)
        monkeypatch.setattr(kubeconfigs, "SERVICE_ACCOUNT_DIR", directory)
        monkeypatch.setenv(kubeconfigs.SERVER, controller_manager.server)
        return directory

    return make


@pytest.fixture(scope="session")
def mount_agent_account() -> Callable[..., Path]:
    return mount_account
