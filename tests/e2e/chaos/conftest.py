"""A workload on every node behind a Service, clients that ask it all the time, and machines to break."""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from support.live import Live, is_ready, node_ready
from support.live_facts import Facts
from support.live_objects import Traffic, server_spec, service, workload
from support.machines import Machines


@pytest.fixture(scope="session")
def machines() -> Machines:
    """The kind cluster's machines."""
    cluster = os.environ.get("NODEWRIGHT_E2E_KIND")
    if not cluster:
        pytest.skip("NODEWRIGHT_E2E_KIND names no kind cluster: there are no machines to break")
    return Machines(cluster)


@dataclass
class Scene:
    """What runs while something breaks, and how to see that all is right again."""

    live: Live
    facts: Facts
    namespace: str
    traffic: Traffic
    figures: Callable[[str], None]

    def is_right(self) -> bool:
        """Every Node is Ready, has a Ready Pod of the DaemonSet, and each of them is behind the Service."""
        pods = [pod for pod in self.live.pods(self.namespace, "app=web") if is_ready(pod)]
        slices = self.live.discovery.list_namespaced_endpoint_slice(
            self.namespace, label_selector="kubernetes.io/service-name=web"
        ).items
        ready = {e.target_ref.name for each in slices for e in each.endpoints or [] if e.conditions.ready}
        return (
            all(node_ready(node) for node in self.live.core.list_node().items)
            and {pod.spec.node_name for pod in pods} == set(self.facts.nodes)
            and ready == {pod.metadata.name for pod in pods}
        )

    def recovers(self, what: str, within: float, probe: Callable[[], object] | None = None) -> list[str]:
        """Wait until `probe` and everything else is right again and traffic flows; note the time and the errors."""
        began = time.monotonic()
        if probe is not None:
            self.live.wait(what, probe, within)
        self.live.wait(f"all right after: {what}", self.is_right, max(within - (time.monotonic() - began), 1))
        self.traffic.flows(max(within - (time.monotonic() - began), 5))
        errors = self.traffic.errors()
        self.figures(
            f"{what}: right again after {time.monotonic() - began:.1f} s (bound {within:.0f} s), "
            f"{len(errors)} errors in {self.traffic.answers()} requests"
        )
        return errors


@pytest.fixture
def scene(
    machines: Machines, live: Live, facts: Facts, namespace: str, figures: Callable[[str], None]
) -> Iterator[Scene]:
    """One Pod on each node, a Service, a client on each node."""
    live.apply(
        workload("nodewright.dev/v1alpha1", "DaemonSet", "web", namespace, server_spec()),
        service("web", namespace, {"app": "web"}, facts.service_labels),
    )

    def complete() -> bool:
        pods = live.pods(namespace, "app=web")
        return {pod.spec.node_name for pod in pods if is_ready(pod)} == set(facts.nodes)

    live.wait("a web Pod on each node", complete, 90)
    address = live.core.read_namespaced_service("web", namespace).spec.cluster_ip
    return Scene(live, facts, namespace, Traffic.start(live, namespace, f"http://{address}/", facts.nodes), figures)
