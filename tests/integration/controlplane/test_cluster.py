"""The embedded control plane as a whole: what survives, what is refused, what runs side by side."""

from __future__ import annotations

import base64
import json
import os
import signal
import ssl
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from nodewright.controlplane import certificates, state
from nodewright.controlplane.bootstrap import apply_all
from nodewright.controlplane.cluster import APISERVER, CONTROLLER_MANAGER, ETCD, LocalCluster
from nodewright.controlplane.endpoint import Endpoint
from nodewright.controlplane.errors import ControlPlaneError, PreconditionError

pytestmark = [pytest.mark.needs_cluster, pytest.mark.timeout(180)]

Make = Callable[[str], LocalCluster]
Kubectl = Callable[..., str]


def test_state_survives_down_and_up(
    make_cluster: Make, start_cluster: Callable[[LocalCluster], None], kubectl_for: Callable[[LocalCluster], Kubectl]
) -> None:
    cluster = make_cluster("keep")
    start_cluster(cluster)
    kubectl = kubectl_for(cluster)
    kubectl("create", "configmap", "kept", "--from-literal=a=b")
    token_keys = (cluster.layout.pki / "sa.pub").read_bytes()
    assert cluster.stop() == [APISERVER, ETCD]
    assert cluster.health(APISERVER) is not None

    again = LocalCluster.load(cluster.layout)
    start_cluster(again)
    assert kubectl("get", "configmap", "kept", "-o", "jsonpath={.data.a}") == "b"
    assert again.state == cluster.state
    assert (again.layout.pki / "sa.pub").read_bytes() == token_keys


def test_what_runs_is_kept(cluster: LocalCluster, binaries: dict[str, Path]) -> None:
    before = {name: cluster.component(name).record() for name in (ETCD, APISERVER)}
    cluster.prepare()
    assert not cluster.start_etcd(binaries[ETCD], unsafe_no_fsync=True)
    assert not cluster.start_apiserver(binaries[APISERVER])
    assert {name: cluster.component(name).record() for name in (ETCD, APISERVER)} == before


@pytest.mark.parametrize("victim", [ETCD, APISERVER])
def test_a_killed_component_is_resumed(
    make_cluster: Make,
    start_cluster: Callable[[LocalCluster], None],
    kubectl_for: Callable[[LocalCluster], Kubectl],
    victim: str,
) -> None:
    cluster = make_cluster("crash")
    start_cluster(cluster)
    kubectl_for(cluster)("create", "configmap", "kept", "--from-literal=a=b")
    record = cluster.component(victim).running()
    assert record is not None
    os.kill(record.pid, signal.SIGKILL)
    assert cluster.component(victim).wait_exit(record, 10)

    start_cluster(cluster)
    replaced = cluster.component(victim).running()
    assert replaced is not None
    assert replaced.pid != record.pid
    assert kubectl_for(cluster)("get", "configmap", "kept", "-o", "jsonpath={.data.a}") == "b"


def test_two_clusters_side_by_side_know_nothing_of_each_other(
    make_cluster: Make, start_cluster: Callable[[LocalCluster], None], kubectl_for: Callable[[LocalCluster], Kubectl]
) -> None:
    one, two = make_cluster("one"), make_cluster("two")
    start_cluster(one)
    start_cluster(two)
    kubectl_for(one)("create", "configmap", "mine")
    assert "mine" in kubectl_for(one)("get", "configmap", "-o", "name")
    assert "mine" not in kubectl_for(two)("get", "configmap", "-o", "name")
    stranger = Endpoint(
        two.state.address, two.state.ports.apiserver, two.layout.pki / "ca.crt",
        certificates.Certificates(one.layout, one.state).pair("user-admin"),
    )  # fmt: skip
    status, _ = stranger.get("/api/v1/namespaces")
    assert status == 401
    one.stop()
    assert two.health(APISERVER) is None


def test_secrets_are_encrypted_in_etcd(cluster: LocalCluster, kubectl: Kubectl, namespace: str) -> None:
    plain = "correct-horse-battery-staple"
    kubectl("create", "secret", "generic", "s", "-n", namespace, f"--from-literal=p={plain}")
    kubectl("create", "configmap", "c", "-n", namespace, f"--from-literal=p=readable-{namespace}")
    assert (
        base64.b64decode(kubectl("get", "secret", "s", "-n", namespace, "-o", "jsonpath={.data.p}")).decode() == plain
    )

    stored = read_etcd(cluster, f"/registry/secrets/{namespace}/s")
    assert stored.startswith(b"k8s:enc:secretbox:v1:key1:")
    assert plain.encode() not in stored
    assert f"readable-{namespace}".encode() in read_etcd(cluster, f"/registry/configmaps/{namespace}/c")
    for path in cluster.layout.etcd.rglob("*"):
        assert not path.is_file() or plain.encode() not in path.read_bytes(), f"{path} holds the secret in plain text"


def read_etcd(cluster: LocalCluster, key: str) -> bytes:
    """The stored value of a key, through etcd's JSON gateway and with kube-apiserver's own certificate."""
    context = ssl.create_default_context(cafile=str(cluster.layout.pki / "etcd-ca.crt"))
    pair = certificates.Certificates(cluster.layout, cluster.state).pair("apiserver-etcd-client")
    context.load_cert_chain(pair.cert, pair.key)
    request = urllib.request.Request(
        f"https://127.0.0.1:{cluster.state.ports.etcd_client}/v3/kv/range",
        data=json.dumps({"key": base64.b64encode(key.encode()).decode()}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, context=context, timeout=10) as response:
        [found] = json.load(response)["kvs"]
    return base64.b64decode(found["value"])


def test_etcd_wants_a_certificate_of_its_own_authority(cluster: LocalCluster) -> None:
    ports, pki = cluster.state.ports, cluster.layout.pki
    admin = certificates.Certificates(cluster.layout, cluster.state).pair("user-admin")
    for client in (None, admin):
        with pytest.raises(OSError):  # noqa: PT011 - the TLS stack names it in several ways
            Endpoint("127.0.0.1", ports.etcd_client, pki / "etcd-ca.crt", client).get("/version")


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/livez", 200),
        ("/readyz", 200),
        ("/healthz", 200),
        ("/readyz/etcd", 401),
        ("/version", 401),
        ("/api", 401),
        ("/metrics", 401),
        ("/api/v1/secrets", 401),
        ("/api/v1/nodes", 401),
    ],
)
def test_anonymous_requests_reach_health_only(cluster: LocalCluster, path: str, status: int) -> None:
    anonymous = Endpoint(cluster.state.address, cluster.state.ports.apiserver, cluster.layout.pki / "ca.crt")
    assert anonymous.get(path)[0] == status


def test_only_loopback_listens(cluster: LocalCluster, controller_manager: LocalCluster) -> None:
    wanted = {getattr(cluster.state.ports, name) for name in cluster.state.ports.__struct_fields__}
    listening = {}
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            fields = line.split()
            address, port = fields[1].split(":")
            if fields[3] == "0A" and int(port, 16) in wanted:
                listening[int(port, 16)] = address
    assert set(listening.values()) == {"0100007F"}  # 127.0.0.1
    assert len(listening) == 4  # etcd twice, kube-apiserver, kube-controller-manager


def test_the_audit_log_tells_who_and_never_what(cluster: LocalCluster, kubectl: Kubectl, namespace: str) -> None:
    kubectl("create", "secret", "generic", "audited", "-n", namespace, "--from-literal=p=never-in-the-log")
    lines = [json.loads(line) for line in cluster.layout.audit_log.read_text().splitlines()]
    mine = [line for line in lines if line.get("objectRef", {}).get("name") == "audited" and line["verb"] == "create"]
    assert [line["user"]["username"] for line in mine] == ["kubernetes-admin"]
    assert mine[0]["level"] == "Metadata"
    assert "never-in-the-log" not in cluster.layout.audit_log.read_text()
    assert cluster.layout.audit_log.stat().st_mode & 0o077 == 0


def test_a_port_taken_meanwhile_is_named(make_cluster: Make, binaries: dict[str, Path]) -> None:
    import socket

    cluster = make_cluster("ports")
    cluster.prepare()
    with socket.socket() as thief:
        thief.bind(("127.0.0.1", cluster.state.ports.etcd_client))
        thief.listen()
        with pytest.raises(PreconditionError, match=f"port {cluster.state.ports.etcd_client} on 127.0.0.1") as error:
            cluster.start_etcd(binaries[ETCD], unsafe_no_fsync=True)
    assert error.value.exit_code == 3
    assert cluster.component(ETCD).record() is None
    assert cluster.start_etcd(binaries[ETCD], unsafe_no_fsync=True)


def test_a_process_that_ends_at_its_start_shows_the_end_of_its_log(make_cluster: Make, tmp_path: Path) -> None:
    bad = tmp_path / "etcd"
    bad.write_text("#!/bin/sh\necho this is why >&2\nexit 1\n")
    bad.chmod(0o755)
    cluster = make_cluster("bad")
    cluster.prepare()
    with pytest.raises(ControlPlaneError, match="this is why") as error:
        cluster.start_etcd(bad)
    assert str(cluster.component(ETCD).log_path) in error.value.hint


def test_a_renewed_certificate_restarts_only_who_uses_it(
    make_cluster: Make, start_cluster: Callable[[LocalCluster], None]
) -> None:
    cluster = make_cluster("renew")
    start_cluster(cluster)
    before = {name: cluster.component(name).record() for name in (ETCD, APISERVER)}
    (cluster.layout.pki / "apiserver.crt").unlink()
    start_cluster(cluster)
    assert cluster.component(ETCD).record() == before[ETCD]
    assert cluster.component(APISERVER).record() != before[APISERVER]


def test_roles_of_our_identities(kubectl: Kubectl) -> None:
    def can(user: str, verb: str, group: str, resource: str, subresource: str = "", user_group: str = "") -> bool:
        attributes = {"verb": verb, "group": group, "resource": resource, "subresource": subresource}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {"user": user, "groups": [user_group] if user_group else [], "resourceAttributes": attributes},
        }
        answer = json.loads(kubectl("create", "-f", "-", "-o", "json", stdin=json.dumps(review)))
        return bool(answer["status"]["allowed"])

    operator, scheduler, node = certificates.OPERATOR_USER, certificates.SCHEDULER_USER, "system:node:n"
    assert can(operator, "create", "", "pods")
    assert can(operator, "patch", "nodewright.dev", "daemonsets", "status")
    assert not can(operator, "get", "", "secrets")
    assert can(operator, "patch", "", "nodes")  # takes startup taints away
    assert not can(operator, "delete", "", "nodes")
    assert not can(operator, "patch", "", "nodes", "status")
    assert can(scheduler, "create", "", "pods", "binding")
    assert not can(scheduler, "create", "", "pods")
    assert not can(scheduler, "get", "", "secrets")
    assert can(node, "list", "discovery.k8s.io", "endpointslices", user_group="system:nodes")
    assert not can(node, "list", "", "secrets", user_group="system:nodes")
    assert can(certificates.KUBELET_CLIENT_USER, "get", "", "nodes", "proxy")


def test_applying_our_objects_again_changes_nothing(cluster: LocalCluster, kubectl: Kubectl) -> None:
    def versions() -> str:
        line = "{range .items[*]}{.kind} {.metadata.name} {.metadata.resourceVersion}{'\\n'}{end}"
        kinds = "clusterroles,clusterrolebindings,roles,rolebindings,crds"
        listed = kubectl("get", kinds, "-A", "-o", f"jsonpath={line}")
        return "\n".join(sorted(entry for entry in listed.splitlines() if "nodewright" in entry))

    before = versions()
    assert "CustomResourceDefinition daemonsets.nodewright.dev" in before
    assert apply_all(cluster.kubeconfig) > 10
    assert versions() == before


def test_controller_manager_runs_without_the_replaced_controllers(
    make_cluster: Make, start_cluster: Callable[[LocalCluster], None], binaries: dict[str, Path],
    kubectl_for: Callable[[LocalCluster], Kubectl],
) -> None:  # fmt: skip
    cluster = make_cluster("kcm")
    start_cluster(cluster)
    cluster.start_controller_manager(binaries[CONTROLLER_MANAGER], replaced=["deployment-controller"])
    kubectl = kubectl_for(cluster)
    kubectl("create", "namespace", "x")
    kubectl("wait", "--for=create", "serviceaccount/default", "-n", "x", "--timeout=30s")
    kubectl("create", "deployment", "d", "--image=i", "-n", "x")
    log = cluster.component(CONTROLLER_MANAGER).log_path.read_text()
    assert "deployment-controller" in log
    assert 'Starting controller" controller="deployment-controller"' not in log
    assert kubectl("get", "replicasets", "-n", "x", "-o", "name") == ""


def test_the_api_server_is_told_apart_from_an_impostor(cluster: LocalCluster, make_cluster: Make) -> None:
    """A client that trusts another authority does not talk to it."""
    other = make_cluster("other")
    other.prepare()
    wrong = Endpoint(cluster.state.address, cluster.state.ports.apiserver, other.layout.pki / "ca.crt")
    with pytest.raises(ssl.SSLCertVerificationError):
        wrong.get("/livez")


def test_chosen_ports_avoid_what_listens(cluster: LocalCluster) -> None:
    used = {getattr(cluster.state.ports, name) for name in ("apiserver", "etcd_client", "etcd_peer")}
    for _ in range(5):
        chosen = state.choose_ports()
        assert not used & {getattr(chosen, name) for name in chosen.__struct_fields__}
