from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from typing import Any

import pytest

from nodewright.cli import selftestobjects as objects
from nodewright.cli.output import RichProgress
from nodewright.cli.selftest import SelfTest
from nodewright.kube.errors import NotFound

PLAN = objects.Plan(name="t", namespace="ns", image="image:1", pull_secrets=("a",))


def pod(node: str = "", *conditions: tuple[str, str, str], waiting: str = "") -> dict[str, Any]:
    return {
        "spec": {"nodeName": node},
        "status": {
            "phase": "Pending",
            "conditions": [{"type": t, "status": s, "message": m} for t, s, m in conditions],
            "containerStatuses": [{"state": {"waiting": {"reason": waiting, "message": "why"}}}] if waiting else [],
        },
    }


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (None, "it is not there"),
        ({"spec": {}}, "no node yet: no scheduler has looked at it"),
        (pod("", ("PodScheduled", "False", "0/3 nodes are available")), "no node yet: 0/3 nodes are available"),
        (pod("n1", ("Ready", "False", "x"), waiting="ErrImagePull"), "on n1: ErrImagePull why"),
        (pod("n1", ("Ready", "False", "containers with unready status")), "on n1: containers with unready status"),
        (pod("n1"), "on n1: Pending"),
        (pod("n1", ("Ready", "True", "")), ""),
    ],
)
def test_trouble_of_a_pod(found: dict[str, Any] | None, words: str) -> None:
    assert objects.trouble(found) == words


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (None, "it is not there"),
        ({"metadata": {"generation": 1}}, "no operator has looked at it"),
        (
            {"metadata": {"generation": 2}, "status": {"observedGeneration": 1, "desiredNumberScheduled": 1}},
            "no operator has looked at it",
        ),
        ({"metadata": {"generation": 1}, "status": {"observedGeneration": 1}}, "no node suits it"),
        (
            {
                "metadata": {"generation": 1},
                "status": {"observedGeneration": 1, "desiredNumberScheduled": 3, "numberReady": 2},
            },
            "2 of 3 Pods are Ready",
        ),
        (
            {
                "metadata": {"generation": 1},
                "status": {"observedGeneration": 1, "desiredNumberScheduled": 3, "numberReady": 3},
            },
            "",
        ),
    ],
)
def test_what_a_daemonset_lacks(found: dict[str, Any] | None, words: str) -> None:
    assert objects.missing(found) == words


def test_the_service_selects_the_pods_of_the_daemonset_and_not_the_other_one() -> None:
    selector = objects.service(PLAN)["spec"]["selector"]
    template = objects.daemonset(PLAN)["spec"]["template"]["metadata"]["labels"]
    assert selector.items() <= template.items()
    assert not selector.items() <= objects.pod(PLAN)["metadata"]["labels"].items()
    assert objects.daemonset(PLAN)["spec"]["selector"]["matchLabels"] == template


def test_the_pod_is_for_our_scheduler_and_the_daemonset_names_none() -> None:
    assert objects.pod(PLAN)["spec"]["schedulerName"] == "nodewright"
    assert "schedulerName" not in objects.daemonset(PLAN)["spec"]["template"]["spec"]


def test_the_service_is_labelled_for_a_scoped_proxy_only() -> None:
    scoped = objects.service(objects.Plan(name="t", namespace="ns", image="i", proxy_name="nodewright"))
    assert scoped["metadata"]["labels"]["service.kubernetes.io/service-proxy-name"] == "nodewright"
    assert "service.kubernetes.io/service-proxy-name" not in objects.service(PLAN)["metadata"]["labels"]


class NothingWorks:
    """A cluster in which objects can be made and never become ready."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Any]] = {}

    async def create(self, res: Any, obj: dict[str, Any], **_: Any) -> dict[str, Any]:
        self.objects[res.plural] = obj
        return obj

    async def delete(self, res: Any, name: str, namespace: str, **_: Any) -> None:
        assert (name, namespace) == ("t", "ns")
        if self.objects.pop(res.plural, None) is None:
            raise NotFound(404, "NotFound", "gone")

    async def list(self, res: Any, namespace: str, **_: Any) -> Any:
        from nodewright.kube.client import ObjectList

        return ObjectList([self.objects[res.plural]] if res.plural in self.objects else [], "1")

    async def watch(self, *_: Any, **__: Any) -> Any:
        await asyncio.Event().wait()
        yield None


async def test_what_does_not_work_is_named_and_removed() -> None:
    from nodewright.cli.output import TIMED_OUT, CliError

    cluster = NothingWorks()
    with pytest.raises(CliError, match=r"Pod ns/t: no node yet: no scheduler has looked at it") as caught:
        await SelfTest(cluster, PLAN, RichProgress()).run(0.05)  # type: ignore[arg-type]
    assert caught.value.exit_code == TIMED_OUT
    assert cluster.objects == {}


def test_the_server_says_where_it_runs_and_ends_when_told() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    argv = [sys.executable, "-m", "nodewright.cli.main", "selftest", "--serve", str(port)]
    server = subprocess.Popen(argv, env={"NODE_NAME": "worker", "PATH": "/usr/bin:/bin"})
    try:
        assert _ask(port) == "worker\n"
        server.send_signal(signal.SIGTERM)
        assert server.wait(10) == 0
    finally:
        server.kill()
        server.wait()


def _ask(port: int) -> str:
    import time

    for _ in range(150):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
                return str(answer.read().decode())
        except urllib.error.URLError:
            time.sleep(0.1)
    raise AssertionError("no answer")
