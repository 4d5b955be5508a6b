"""Resources of real Pods through an API server: resize in place, whole Pods, runtime classes, extended resources."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from kubernetes import client

from support.agent_node import wait_until
from support.pod_lab import PodLab, main_status, restarts
from support.pod_resources import (
    LARGE,
    amounts,
    conditions,
    cpu_and_memory,
    deferred,
    done,
    limits_of,
    resize,
    resources,
)

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_cluster]


def test_a_pod_is_resized_in_place(lab: PodLab) -> None:
    first = resources(amounts("100m", "32Mi"), amounts("200m", "64Mi"))
    # The probe is a runc exec: whatever it does, limits must stay as they were written.
    probe = {"exec": {"command": ["/bin/sh", "-c", "exit 0"]}, "periodSeconds": 1}
    lab.create("grow", container={"resources": first, "readinessProbe": probe})
    pod = lab.wait("grow", "grow is ready", done(first))
    assert cpu_and_memory(lab, pod) == (102, 20_000, LARGE)
    more = resources(amounts("300m", "64Mi"), amounts("400m", "128Mi"))
    assert resize(lab, "grow", main=more).metadata.generation == 2
    pod = lab.wait("grow", "grow has more", done(more))
    assert pod.status.observed_generation == 2
    assert main_status(pod).allocated_resources == more["requests"]
    assert cpu_and_memory(lab, pod) == cpu_and_memory(lab, pod, container=False) == (307, 40_000, 2 * LARGE)
    resize(lab, "grow", main=first)
    pod = lab.wait("grow", "grow has less", done(first))
    assert cpu_and_memory(lab, pod) == cpu_and_memory(lab, pod, container=False) == (102, 20_000, LARGE)
    assert restarts(pod) == 0
    lab.wait_event("grow", "ResizeStarted")
    lab.wait_event("grow", "ResizeCompleted", '"cpu":"400m"')


def test_memory_in_use_is_not_taken_away(lab: PodLab) -> None:
    first = resources(amounts(memory="48Mi"), amounts(memory="48Mi"))
    lab.create("user", container={"resources": first})
    pod = lab.wait("user", "user is ready", done(first))
    tiny = resources(amounts(memory="10Ki"), amounts(memory="10Ki"))
    resize(lab, "user", main=tiny)

    def refused(pod: Any) -> bool:
        condition = conditions(pod).get("PodResizeInProgress")
        return condition is not None and condition.reason == "Error" and "below current usage" in condition.message

    pod = lab.wait("user", "the resize has failed", refused)
    assert main_status(pod).resources.limits == first["limits"]
    assert limits_of(lab, pod).memory == 48 << 20
    resize(lab, "user", main=first)
    assert restarts(lab.wait("user", "it is taken back", done(first))) == 0


def test_a_restart_policy_is_obeyed_and_other_wishes_wait(lab: PodLab) -> None:
    first = resources(amounts("100m"), amounts("200m"))
    policy = [{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]
    lab.create("again", container={"resources": first, "resizePolicy": policy}, restartPolicy="OnFailure")
    lab.wait("again", "again is ready", done(first))
    more = resources(amounts("150m"), amounts("250m"))
    resize(lab, "again", main=more)
    pod = lab.wait("again", "again was restarted", lambda pod: restarts(pod) == 1 and done(more)(pod))
    assert cpu_and_memory(lab, pod)[:2] == (153, 25_000)
    lab.wait_event("again", "Killing", "Container main resize requires restart")

    free = lab.api.read_node(lab.node.name).status.allocatable["cpu"]
    lab.create("other", container={"resources": resources(amounts("500m"))})
    lab.wait_phase("other", "Running")
    resize(lab, "again", main=resources(amounts(free), amounts(free)))
    lab.wait("again", "it waits", deferred)
    lab.delete("other", grace=1)
    lab.wait("again", "there is room", lambda pod: not conditions(pod) and main_status(pod).ready)


def test_a_pod_as_a_whole_is_resized(lab: PodLab) -> None:
    whole = resources(amounts("200m", "32Mi"), amounts("400m", "64Mi"))
    lab.create("whole", resources=whole)
    pod = lab.wait("whole", "whole is ready", lambda pod: pod.status.phase == "Running")
    assert cpu_and_memory(lab, pod, container=False) == (204, 40_000, LARGE)
    assert limits_of(lab, pod).memory == LARGE, "a container without a limit has its pod's"
    raw = resize(lab, "whole", pod=resources(amounts("300m", "32Mi"), amounts("500m", "128Mi")))
    assert raw.metadata.generation == 2
    more = (307, 50_000, 2 * LARGE)  # written one after the other
    lab.wait("whole", "whole has more", lambda pod: cpu_and_memory(lab, pod, container=False) == more)
    lab.wait("whole", "main has more", lambda pod: limits_of(lab, pod).memory == 2 * LARGE and not conditions(pod))


@pytest.fixture
def runtime_classes(lab: PodLab) -> Iterator[Callable[[str, str], None]]:
    api = client.NodeV1Api(lab.api.api_client)
    made: list[str] = []

    def make(name: str, handler: str) -> None:
        overhead = {"podFixed": {"memory": "16Mi"}}
        api.create_runtime_class({"metadata": {"name": name}, "handler": handler, "overhead": overhead})
        made.append(name)

    yield make
    for name in made:
        api.delete_runtime_class(name)


def test_runtime_classes(lab: PodLab, runtime_classes: Callable[[str, str], None]) -> None:
    runtime_classes("built-in", "runc")
    runtime_classes("unknown", "kata")
    given = resources(amounts(memory="16Mi"), amounts(memory="32Mi"))
    lab.create("good", runtimeClassName="built-in", container={"resources": given})
    pod = lab.wait("good", "good runs", lambda pod: pod.status.phase == "Running")
    assert limits_of(lab, pod, container=False).memory == 48 << 20, "with its overhead"
    lab.create("bad", runtimeClassName="unknown")
    lab.wait_event(
        "bad", "FailedCreatePodSandBox", 'failed to get sandbox runtime: no runtime for "kata" is configured'
    )
    assert lab.get("bad").status.phase == "Pending"
    status = lab.api.read_node(lab.node.name).status
    assert [handler.name or "" for handler in status.runtime_handlers] == ["", "nodewright", "runc"]


def test_extended_resources_become_allocatable(lab: PodLab) -> None:
    name = "example.com/dongle"

    def put(value: str | None) -> None:
        patch = [{"op": "add" if value else "remove", "path": "/status/capacity/example.com~1dongle"}]
        if value:
            patch[0]["value"] = value
        lab.api.patch_node_status(lab.node.name, patch)

    def allocatable() -> Any:
        return lab.api.read_node(lab.node.name).status.allocatable.get(name)

    put("2")
    try:
        wait_until("it is allocatable", lambda: allocatable() == "2", 10)
        given = {"requests": {name: "2"}, "limits": {name: "2"}}
        lab.create("user", container={"resources": given})
        lab.wait_phase("user", "Running")
        lab.create("late", container={"resources": given})
        assert lab.wait_phase("late", "Failed").status.reason == f"OutOf{name}"
    finally:
        put(None)
    wait_until("it is gone", lambda: allocatable() is None, 10)
