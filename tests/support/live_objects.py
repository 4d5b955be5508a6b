"""Objects that the end-to-end tests apply, as plain dictionaries; and a client Pod that counts its errors."""

from dataclasses import dataclass
from typing import Any

from support.live import Live

IMAGE = "localhost/nodewright-demo:1"
NEXT_IMAGE = "localhost/nodewright-demo:2"  # the same under another name
PORT = 8080
# The tests place Pods themselves; whatever keeps ordinary Pods away from Nodewright nodes is not their subject.
_TOLERATIONS = [{"key": "nodewright.dev/agent", "operator": "Exists"}]

# Asks URL over and over; each line of the log is one answer, or begins with ERROR. busybox's wget has no time limit of
# its own. The last lines are what a rolling update's test reads, so nothing is buffered away: each echo is a write.
_COUNTING = """
trap 'exit 0' TERM
n=0
# A Service without an endpoint refuses: the clients may be up before its Pods are.
until busybox timeout 5 wget -q -O - "$URL" >/dev/null 2>&1; do sleep 0.1; done
while :; do
  n=$((n + 1))
  answer=$(busybox timeout 5 wget -q -O - "$URL" 2>&1) && echo "ok $n $answer" || echo "ERROR $n $(date +%T) $answer"
  sleep 0.05
done
"""


def server_spec(node: str = "", host_network: bool = False, port: int = PORT, drain: int = 0) -> dict[str, Any]:
    """Spec of a Pod that answers HTTP with its name; `drain` seconds pass between its deletion and its end."""
    container: dict[str, Any] = {
        "name": "web",
        "image": IMAGE,
        "env": [
            {"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "PORT", "value": str(port)},
        ],
        "ports": [{"name": "http", "containerPort": port}],
        "readinessProbe": {"httpGet": {"path": "/", "port": port}, "periodSeconds": 1},
        "resources": {"requests": {"cpu": "5m", "memory": "8Mi"}},
    }
    if drain:
        container["lifecycle"] = {"preStop": {"sleep": {"seconds": drain}}}
    spec: dict[str, Any] = {
        "terminationGracePeriodSeconds": drain + 5,
        "tolerations": _TOLERATIONS,
        "containers": [container],
    }
    if node:
        spec["nodeName"] = node
    if host_network:
        spec |= {"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"}
    return spec


def script_spec(
    node: str, script: str, env: dict[str, str] | None = None, host_network: bool = False
) -> dict[str, Any]:
    """Spec of a Pod that runs a shell script and is not restarted."""
    spec: dict[str, Any] = {
        "terminationGracePeriodSeconds": 1,
        "restartPolicy": "Never",
        "tolerations": _TOLERATIONS,
        "containers": [
            {
                "name": "c",
                "image": IMAGE,
                "command": ["/bin/sh", "-c", script],
                "env": [{"name": name, "value": value} for name, value in (env or {}).items()],
                "resources": {"requests": {"cpu": "5m", "memory": "8Mi"}},
            }
        ],
    }
    if node:
        spec["nodeName"] = node
    if host_network:
        spec |= {"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"}
    return spec


def pod(name: str, namespace: str, spec: dict[str, Any], labels: dict[str, str] | None = None) -> dict[str, Any]:
    """A Pod."""
    metadata = {"name": name, "namespace": namespace, "labels": labels or {}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def service(
    name: str, namespace: str, selector: dict[str, str], labels: dict[str, str] | None = None, kind: str = "ClusterIP"
) -> dict[str, Any]:
    """A Service on port 80 of the Pods' port http."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace, "labels": labels or {}},
        "spec": {"type": kind, "selector": selector, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]},
    }


def workload(
    api_version: str, kind: str, name: str, namespace: str, spec: dict[str, Any], **more: Any
) -> dict[str, Any]:
    """A Deployment or DaemonSet whose Pods have the label app=NAME."""
    labels = {"app": name}
    return {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec},
            **more,
        },
    }


@dataclass(frozen=True)
class Traffic:
    """Clients that ask a URL all the time, one on each of some nodes."""

    live: Live
    namespace: str
    names: tuple[str, ...]

    @classmethod
    def start(cls, live: Live, namespace: str, url: str, nodes: tuple[str, ...]) -> "Traffic":
        """Start one client on each node and wait until each has had an answer."""
        names = tuple(f"traffic-{number}" for number in range(len(nodes)))
        live.apply(
            *(
                pod(name, namespace, script_spec(node, _COUNTING, {"URL": url}), {"app": "traffic"})
                for name, node in zip(names, nodes, strict=True)
            )
        )
        traffic = cls(live, namespace, names)
        live.wait("an answer to each client", lambda: all(good for good, _ in traffic.counts().values()), 90)
        return traffic

    def counts(self) -> dict[str, tuple[int, list[str]]]:
        """Answers, and the lines of errors, by client."""
        lines = {name: self.live.log(name, self.namespace).splitlines() for name in self.names}
        return {
            name: (sum(line.startswith("ok ") for line in some), [line for line in some if line.startswith("ERROR")])
            for name, some in lines.items()
        }

    def errors(self) -> list[str]:
        """All errors so far, with the client's name."""
        return [f"{name}: {line}" for name, (_, errors) in self.counts().items() for line in errors]

    def answers(self) -> int:
        """How many answers came so far."""
        return sum(good for good, _ in self.counts().values())

    def flows(self, within: float) -> None:
        """Wait until each client gets answers again."""
        before = {name: good for name, (good, _) in self.counts().items()}
        self.live.wait(
            "new answers to each client",
            lambda: all(good > before[name] + 2 for name, (good, _) in self.counts().items()),
            within,
        )
