from __future__ import annotations

from pathlib import Path

import pytest

from nodewright.controlplane import configs, flags
from nodewright.controlplane.layout import Layout
from nodewright.controlplane.state import ClusterState, Ports

GOLDEN = Path(__file__).parent / "golden"
LAYOUT = Layout(Path("/state"), "dev")


def make_state(nodes: int) -> ClusterState:
    return ClusterState(
        name="dev", slot=1, nodes=nodes, ports=Ports(20001, 20002, 20003, 20004, 20005, 20006),
        node_cidr="10.180.1.0/24", pod_cidr="10.201.0.0/16", service_cidr="10.96.0.0/16",
        kubernetes="v1.36.3", etcd="v3.6.8",
    )  # fmt: skip


CASES = {
    "etcd": flags.etcd(LAYOUT, make_state(0)),
    "kube-apiserver": flags.kube_apiserver(LAYOUT, make_state(0)),
    "kube-apiserver-nodes": flags.kube_apiserver(LAYOUT, make_state(2)),
    "kube-controller-manager": flags.kube_controller_manager(LAYOUT, make_state(2), ["deployment-controller"]),
}


@pytest.mark.parametrize("name", CASES)
def test_command_lines_are_the_reviewed_ones(name: str) -> None:
    golden = GOLDEN / f"{name}.txt"
    assert CASES[name] == golden.read_text().splitlines(), f"if the change is meant, write it to {golden}"


def test_fsync_is_only_left_out_when_asked() -> None:
    assert "--unsafe-no-fsync=true" not in CASES["etcd"]
    assert "--unsafe-no-fsync=true" in flags.etcd(LAYOUT, make_state(0), unsafe_no_fsync=True)


def test_anonymous_requests_are_for_health_paths_only() -> None:
    anonymous = configs.authentication()["anonymous"]
    assert [condition["path"] for condition in anonymous["conditions"]] == ["/livez", "/readyz", "/healthz"]


def first_level(rules: list[dict[str, object]], **request: str) -> str:
    """The level of the first audit rule that a request matches, as kube-apiserver picks it."""
    for rule in rules:
        resources = rule.get("resources")
        group_and_name = (request.get("group", ""), request.get("resource", ""))
        checks = [
            "users" not in rule or request.get("user") in rule["users"],  # type: ignore[operator]
            "userGroups" not in rule or request.get("user_group") in rule["userGroups"],  # type: ignore[operator]
            "verbs" not in rule or request["verb"] in rule["verbs"],  # type: ignore[operator]
            "nonResourceURLs" not in rule,
            resources is None
            or any(group_and_name[0] == r["group"] and group_and_name[1] in r["resources"] for r in resources),  # type: ignore[attr-defined]
        ]
        if all(checks):
            return str(rule["level"])
    return "None"


@pytest.mark.parametrize(
    ("request_", "level"),
    [
        ({"verb": "create", "resource": "pods", "user": "alice"}, "Metadata"),
        ({"verb": "get", "resource": "secrets", "user": "alice"}, "Metadata"),
        ({"verb": "get", "resource": "pods", "user": "alice"}, "None"),
        ({"verb": "update", "group": "coordination.k8s.io", "resource": "leases", "user": "n"}, "None"),
        ({"verb": "patch", "resource": "nodes/status", "user_group": "system:nodes"}, "None"),
        ({"verb": "patch", "resource": "pods/status", "user_group": "system:nodes"}, "Metadata"),
        ({"verb": "create", "resource": "events", "user": "n"}, "None"),
        ({"verb": "create", "resource": "serviceaccounts/token", "user_group": "system:nodes"}, "Metadata"),
        ({"verb": "create", "group": "authentication.k8s.io", "resource": "tokenreviews", "user": "n"}, "Metadata"),
        ({"verb": "delete", "group": "rbac.authorization.k8s.io", "resource": "roles", "user": "a"}, "Metadata"),
    ],
)
def test_audit_policy(request_: dict[str, str], level: str) -> None:
    assert first_level(configs.audit_policy()["rules"], **request_) == level


def test_audit_never_logs_bodies() -> None:
    assert {rule["level"] for rule in configs.audit_policy()["rules"]} == {"None", "Metadata"}
