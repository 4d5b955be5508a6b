"""A running cluster from outside: by the official client (the independent eye) and by kubectl (the user's hand)."""

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from kubernetes import client, config

T = TypeVar("T")


class Live:
    """Any cluster, by its kubeconfig."""

    def __init__(self, kubeconfig: Path, kubectl: Path) -> None:
        self.kubeconfig, self._kubectl = kubeconfig, kubectl
        self.api = config.new_client_from_config(str(kubeconfig))
        self.core = client.CoreV1Api(self.api)
        self.apps = client.AppsV1Api(self.api)
        self.custom = client.CustomObjectsApi(self.api)
        self.discovery = client.DiscoveryV1Api(self.api)
        self.coordination = client.CoordinationV1Api(self.api)

    def kubectl(self, *words: str, stdin: str | None = None, check: bool = True, timeout: float = 120) -> str:
        """Run kubectl; return what it wrote (both streams when it may fail)."""
        done = subprocess.run(
            [self._kubectl, f"--kubeconfig={self.kubeconfig}", *words],
            input=stdin, capture_output=True, text=True, timeout=timeout, check=False,
            env={**os.environ, "HTTPS_PROXY": "", "NO_COLOR": "1"},
        )  # fmt: skip
        assert not check or done.returncode == 0, f"kubectl {' '.join(words)}: {done.returncode}\n{done.stderr}"
        return done.stdout if check else done.stdout + done.stderr

    def apply(self, *objects: dict[str, Any]) -> None:
        """Apply objects, all in one go."""
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
        self.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=text)

    def refused(self, obj: dict[str, Any]) -> str:
        """What the API server says to an object that it must not take."""
        said = self.kubectl("create", "-f", "-", stdin=json.dumps(obj), check=False)
        assert "created" not in said, said
        return said

    def wait(self, what: str, predicate: Callable[[], T | None], timeout: float = 60, every: float = 0.3) -> T:
        """Wait until `predicate` answers something true, and return that.

        An API server that cannot be reached is no answer: it may be what the test waits for.
        """
        deadline = time.monotonic() + timeout
        last: object = None
        while time.monotonic() < deadline:
            try:
                if last := predicate():
                    return last
            except (client.ApiException, OSError) as error:
                last = error
            except Exception as error:
                if "urllib3" not in type(error).__module__:
                    raise
                last = error
            time.sleep(every)
        pytest.fail(f"waited {timeout:.0f} s for: {what} (last answer: {last!r})")

    def pods(self, namespace: str, selector: str = "") -> list[Any]:
        """The Pods that are not being deleted."""
        found = self.core.list_namespaced_pod(namespace, label_selector=selector).items
        return [pod for pod in found if pod.metadata.deletion_timestamp is None]

    def wait_ready(self, namespace: str, names: Iterable[str], timeout: float = 90) -> dict[str, Any]:
        """Wait until these Pods are Ready; return them by name."""
        wanted = set(names)

        def all_ready() -> dict[str, Any] | None:
            found = {pod.metadata.name: pod for pod in self.pods(namespace) if is_ready(pod)}
            return {name: found[name] for name in wanted} if wanted <= found.keys() else None

        return self.wait(f"Pods Ready in {namespace}: {', '.join(sorted(wanted))}", all_ready, timeout)

    def log(self, pod: str, namespace: str) -> str:
        """A Pod's log; empty before its container has started."""
        try:
            return str(self.core.read_namespaced_pod_log(pod, namespace))
        except client.ApiException as error:
            if error.status in (400, 404):
                return ""
            raise

    def events(self, namespace: str, name: str) -> list[tuple[str, str]]:
        """Reasons and messages of an object's events."""
        found = self.core.list_namespaced_event(namespace, field_selector=f"involvedObject.name={name}").items
        return [(event.reason or "", event.message or "") for event in found]

    def containers(self, namespace: str, selector: str = "") -> dict[str, tuple[str, int]]:
        """Container id and restart count by Pod: what must not change when a part of ours is replaced."""
        return {
            f"{pod.metadata.name}/{status.name}": (status.container_id or "", status.restart_count)
            for pod in self.pods(namespace, selector)
            for status in pod.status.container_statuses or []
        }


def is_ready(pod: Any) -> bool:
    """Whether the Pod's condition Ready is True."""
    return any(c.type == "Ready" and c.status == "True" for c in pod.status.conditions or [])


def node_ready(node: Any) -> bool:
    """Whether the Node's condition Ready is True."""
    return any(c.type == "Ready" and c.status == "True" for c in node.status.conditions or [])
