"""Who reaches whom: Pods and hosts of both kinds, by Pod address, ClusterIP, DNS name, NodePort and host network.

The agent has no exec yet, so each client is a Pod that tries all targets by itself and writes what came to its log.
"""

import pytest

from support.live import Live
from support.live_facts import Facts
from support.live_objects import pod, script_spec, server_spec, service

HOST_PORT = 18080
# Rules and routes come within seconds of the objects: each target gets SECONDS, and every try is one second apart.
SECONDS = 30
_TRY = f"""
try() {{  # NAME EXPECTED URL
  for i in $(seq {SECONDS}); do
    got=$(busybox timeout 4 wget --no-check-certificate -q -O - "$3" 2>&1)
    if echo "$got" | grep -q "$2"; then echo "reached $1"; return; fi
    sleep 1
  done
  echo "MISSED $1: $got"
}}
"""


@pytest.fixture
def targets(live: Live, facts: Facts, namespace: str) -> list[tuple[str, str, str]]:
    """(name, what the answer must hold, URL) of everything there is to reach."""
    nodes = {f"server-{number}": node for number, node in enumerate(facts.nodes)}
    hosts = {f"host-{number}": node for number, node in enumerate(_one_per_machine(facts))}
    live.apply(
        *(pod(name, namespace, server_spec(node), {"app": "server"}) for name, node in nodes.items()),
        *(pod(name, namespace, server_spec(node, True, HOST_PORT), {"app": "host"}) for name, node in hosts.items()),
        service("matrix", namespace, {"app": "server"}, facts.service_labels, "NodePort"),
    )
    ready = live.wait_ready(namespace, [*nodes, *hosts])
    made = live.core.read_namespaced_service("matrix", namespace).spec
    port = made.ports[0].node_port
    found = [
        (f"{name} on {node}", f"pod={name} ", f"http://{ready[name].status.pod_ip}:8080/")
        for name, node in nodes.items()
    ]
    found += [
        (f"{name} on {node}", f"pod={name} ", f"http://{facts.addresses[node]}:{HOST_PORT}/")
        for name, node in hosts.items()
    ]
    found += [("the ClusterIP", "pod=server-", f"http://{made.cluster_ip}/")]
    found += [
        (f"the NodePort of {node}", "pod=server-", f"http://{facts.addresses[node]}:{port}/") for node in hosts.values()
    ]
    # 401 or 403 are the API server's answers too, where anonymous requests are not let in
    found += [
        (
            "the API server's Service",
            "ok\\|40[13]\\|TLS error from peer",
            "https://$KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT/healthz",
        )
    ]
    if facts.dns:
        found += [("a DNS name", "pod=server-", f"http://matrix.{namespace}.svc.cluster.local/")]
        found += [("a short DNS name", "pod=server-", f"http://matrix.{namespace}/")]
    return found


def _one_per_machine(facts: Facts) -> tuple[str, ...]:
    """Host ports are the machine's: one server each, on the kubelet's Node and, in kind, on one Nodewright Node."""
    if not facts.kubelet_nodes:
        return facts.nodewright_nodes
    ours = [node for node in facts.nodewright_nodes if facts.hosts[node] == facts.kubelet_nodes[0]][:1]
    taken = {facts.hosts[node] for node in ours}
    return (*ours, *(node for node in facts.kubelet_nodes if node not in taken))


def test_everybody_reaches_everybody(
    live: Live, facts: Facts, namespace: str, targets: list[tuple[str, str, str]]
) -> None:
    script = _TRY + "".join(f'try "{name}" "{expected}" "{url}"\n' for name, expected, url in targets) + "echo done\n"
    clients = {
        f"client-{kind}-{number}": (node, kind == "host")
        for kind in ("pod", "host")
        for number, node in enumerate(facts.nodes)
    }
    live.apply(
        *(
            pod(name, namespace, script_spec(node, script, host_network=on_host))
            for name, (node, on_host) in clients.items()
        )
    )

    def finished() -> dict[str, str] | None:
        logs = {name: live.log(name, namespace) for name in clients}
        return logs if all(text.rstrip().endswith("done") for text in logs.values()) else None

    logs = live.wait("all clients to finish", finished, 240, every=1)
    missed = [
        f"{name} on {clients[name][0]}: {line}"
        for name, text in logs.items()
        for line in text.splitlines()
        if line.startswith("MISSED")
    ]
    assert missed == []
    assert all(text.count("reached ") == len(targets) for text in logs.values())


def test_logs_of_every_node_can_be_read_and_followed(live: Live, facts: Facts, namespace: str) -> None:
    script = "for i in 1 2 3; do echo line $i; sleep 0.5; done; echo end"
    names = {f"talker-{number}": node for number, node in enumerate(facts.nodes)}
    live.apply(*(pod(name, namespace, script_spec(node, script)) for name, node in names.items()))
    for name in names:
        live.wait(f"a first line of {name}", lambda name=name: live.log(name, namespace))
        followed = live.kubectl("logs", "-f", "-n", namespace, name)
        assert followed.splitlines() == ["line 1", "line 2", "line 3", "end"], name
        assert live.kubectl("logs", "--tail=1", "-n", namespace, name) == "end\n"
