"""Pods on one node, through the official client: an independent view of what the agent writes."""

import json
import os
import ssl
import subprocess
import urllib.request
import uuid
from collections.abc import Iterator
from typing import Any, Self

from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from nodewright.controlplane.cluster import LocalCluster
from support.agent_node import IMAGE, AgentNode, wait_until

STAY = ["/bin/sh", "-c", "trap 'exit 0' TERM; sleep 1000000 & wait $!"]


class PodLab:
    """A namespace with its ServiceAccount, and Pods bound to the node under test."""

    def __init__(self, cluster: LocalCluster, node: AgentNode) -> None:
        self.cluster, self.node = cluster, node
        self.api = client.CoreV1Api(config.new_client_from_config(str(cluster.kubeconfig)))
        self.namespace = f"t-{uuid.uuid4().hex[:8]}"

    def __enter__(self) -> Self:
        self.api.create_namespace({"metadata": {"name": self.namespace}})
        try:
            self.api.create_namespaced_service_account(self.namespace, {"metadata": {"name": "default"}})
        except ApiException as error:
            if error.status != 409:  # kube-controller-manager was faster
                raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self.node.process is None:
                self.node.start()
            for pod in self.api.list_namespaced_pod(self.namespace).items:
                self.delete(pod.metadata.name, grace=0)
            wait_until("no pod is left on the node", lambda: not self.on_host(), 30)
        finally:
            self.api.api_client.close()

    def wait_ready(self) -> None:
        def ready() -> bool:
            try:
                node = self.api.read_node(self.node.name)
            except ApiException as error:
                if error.status == 404:
                    return False
                raise
            return any(c.type == "Ready" and c.status == "True" for c in node.status.conditions or [])

        wait_until(f"node {self.node.name} is Ready\n{self.node.text()}", ready)

    def create(self, name: str, command: list[str] | None = None, **spec: Any) -> str:
        """Create a Pod with one container (unless `containers` says otherwise); return its UID."""
        container = {"name": "main", "image": IMAGE, "command": STAY if command is None else command}
        container |= spec.pop("container", {})
        body = {
            "metadata": {"name": name, "annotations": spec.pop("annotations", {}), "labels": spec.pop("labels", {})},
            "spec": {
                "nodeName": self.node.name,
                "automountServiceAccountToken": False,
                "terminationGracePeriodSeconds": 1,
                "containers": [container],
                **spec,
            },
        }
        return str(self.api.create_namespaced_pod(self.namespace, body).metadata.uid)

    def get(self, name: str) -> Any:
        try:
            return self.api.read_namespaced_pod(name, self.namespace)
        except ApiException as error:
            if error.status == 404:
                return None
            raise

    def wait(self, name: str, what: str, predicate: Any, timeout: float = 30.0) -> Any:
        """Wait until the Pod satisfies the predicate; return it."""
        last: list[Any] = [None]

        def answer() -> Any:
            last[0] = self.get(name)
            return last[0] if last[0] is not None and predicate(last[0]) else None

        try:
            return wait_until(what, answer, timeout)
        except AssertionError as error:
            status = last[0].status if last[0] is not None else "the pod is gone"
            raise AssertionError(f"{error}\n{status}\n{self.events(name)}\n{self.node.text()[-4000:]}") from None

    def wait_phase(self, name: str, phase: str, timeout: float = 30.0) -> Any:
        return self.wait(name, f"{name} {phase}", lambda pod: pod.status.phase == phase, timeout)

    def wait_waiting(self, name: str, reason: str, timeout: float = 30.0) -> Any:
        def waits(pod: Any) -> bool:
            statuses = pod.status.container_statuses or []
            return any(s.state.waiting is not None and s.state.waiting.reason == reason for s in statuses)

        return self.wait(name, f"{name} waits for {reason}", waits, timeout)

    def delete(self, name: str, grace: int | None = None) -> None:
        try:
            self.api.delete_namespaced_pod(name, self.namespace, grace_period_seconds=grace)
        except ApiException as error:
            if error.status != 404:
                raise

    def wait_gone(self, name: str, timeout: float = 30.0) -> None:
        wait_until(f"{name} is gone\n{self.node.text()[-4000:]}", lambda: self.get(name) is None, timeout)

    def logs(self, name: str, container: str = "main") -> str:
        return str(self.api.read_namespaced_pod_log(name, self.namespace, container=container))

    def events(self, name: str) -> list[tuple[str, str, str]]:
        found = self.api.list_namespaced_event(self.namespace, field_selector=f"involvedObject.name={name}").items
        return [(event.type, event.reason, event.message) for event in found]

    def wait_event(self, name: str, reason: str, text: str = "") -> None:
        def there() -> bool:
            return any(reason == r and text in message for _, r, message in self.events(name))

        try:
            wait_until(f"event {reason}", there)
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.events(name)}") from None

    def ask_node(self, path: str) -> str:
        """What the node's API answers to the cluster's administrator; the API server goes to no loopback address."""
        access = self.api.api_client.configuration
        context = ssl.create_default_context(cafile=access.ssl_ca_cert)
        context.check_hostname = False
        context.load_cert_chain(access.cert_file, access.key_file)
        url = f"https://127.0.0.1:{self.node.settings['port']}/{path}"
        with urllib.request.urlopen(url, context=context, timeout=30) as answer:
            return bytes(answer.read()).decode()

    def stats_summary(self) -> dict[str, Any]:
        """The node's /stats/summary."""
        found = json.loads(self.ask_node("stats/summary"))
        assert isinstance(found, dict)
        return found

    def on_host(self) -> list[str]:
        """What pods of this node have on the host: sandboxes, cgroups, records, addresses."""
        node = self.node
        found = [str(path) for path in (node.run / "sb").glob("*")]
        found += [str(path) for path in (node.state / "pods").glob("*")]
        found += [str(path) for path in (node.state / "pods-logs").glob("*")]
        found += [path for path, _, _ in walk_cgroups(node.cgroup_root) if "/pod" in path.partition("kubepods/")[2]]
        links = subprocess.run(["ip", "-o", "-br", "link"], capture_output=True, text=True, check=True).stdout
        found += [line for line in links.splitlines() if "@if" in line]
        return found


def walk_cgroups(root: str) -> Iterator[tuple[str, list[str], list[str]]]:
    """Directories below a cgroup in every hierarchy; those that vanish meanwhile are left out."""
    for mount in ["/sys/fs/cgroup", *(entry.path for entry in os.scandir("/sys/fs/cgroup") if entry.is_dir())]:
        yield from os.walk(f"{mount}{root}")


def main_status(pod: Any) -> Any:
    """The status of the first container."""
    return pod.status.container_statuses[0]


def restarts(pod: Any) -> int:
    """How often the first container was restarted; 0 while there is no status yet."""
    return int(main_status(pod).restart_count) if pod.status.container_statuses else 0
