"""`nodewright rollout` and `nodewright explain daemonset` on real Pods, for DaemonSets of both kinds."""

import json
import os
import subprocess
from typing import Any

import pytest

from support.cluster import NODEWRIGHT
from support.live import Live, is_ready
from support.live_facts import Facts
from support.live_objects import server_spec, workload

KINDS = [("nodewright.dev/v1alpha1", "nds"), ("apps/v1", "ds")]
# A rollout over some nodes; a status that takes longer has lost its way.
PATIENCE = "240s"


def nodewright(live: Live, *words: str, code: int = 0) -> str:
    """What a command says; of one that is to fail, its standard error."""
    argv = [*NODEWRIGHT, *words, f"--kubeconfig={live.kubeconfig}"]
    env = {**os.environ, "NO_COLOR": "1", "COLUMNS": "200"}
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == code, f"{' '.join(words)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout if code == 0 else done.stderr


def created(live: Live, facts: Facts, namespace: str, api: str, **spec: Any) -> None:
    live.apply(workload(api, "DaemonSet", "web", namespace, server_spec(), **spec))
    live.wait(
        "a Pod on each node",
        lambda: len(pods := live.pods(namespace, "app=web")) == len(facts.nodes) and all(map(is_ready, pods)),
        120,
    )


def mark(live: Live, namespace: str, kind: str, value: str) -> None:
    """Change the template."""
    patch = {"spec": {"template": {"metadata": {"annotations": {"round": value}}}}}
    live.kubectl("patch", kind, "web", "-n", namespace, "--type=merge", "-p", json.dumps(patch))


def marks(live: Live, namespace: str) -> set[str | None]:
    return {(pod.metadata.annotations or {}).get("round") for pod in live.pods(namespace, "app=web")}


@pytest.mark.parametrize(("api", "kind"), KINDS)
def test_a_rollout_is_followed_looked_back_at_and_undone(
    live: Live, facts: Facts, namespace: str, api: str, kind: str
) -> None:
    name = f"{kind}/{namespace}/web"
    created(live, facts, namespace, api)
    assert "successfully rolled out" in nodewright(live, "rollout", "status", name, "--timeout", PATIENCE)
    mark(live, namespace, kind, "two")
    said = nodewright(live, "rollout", "status", name, "--timeout", PATIENCE)
    assert said.endswith('daemon set "web" successfully rolled out\n')
    assert marks(live, namespace) == {"two"}

    history = json.loads(nodewright(live, "rollout", "history", name, "-o", "json"))
    assert [(entry["revision"], entry["pods"]) for entry in history] == [(1, 0), (2, len(facts.nodes))]
    assert "-    round: two" in nodewright(live, "rollout", "undo", name, "--dry-run")
    assert nodewright(live, "rollout", "undo", name).endswith("/web rolled back\n")
    nodewright(live, "rollout", "status", name, "--timeout", PATIENCE)
    assert marks(live, namespace) == {None}

    before = {pod.metadata.uid for pod in live.pods(namespace, "app=web")}
    nodewright(live, "rollout", "restart", name)
    nodewright(live, "rollout", "status", name, "--timeout", PATIENCE)
    assert before.isdisjoint({pod.metadata.uid for pod in live.pods(namespace, "app=web")})


def test_a_paused_rollout_stands_still_until_it_is_resumed(live: Live, facts: Facts, namespace: str) -> None:
    name = f"nds/{namespace}/web"
    created(live, facts, namespace, KINDS[0][0])
    before = {pod.metadata.uid for pod in live.pods(namespace, "app=web")}
    nodewright(live, "rollout", "pause", name)
    mark(live, namespace, "nds", "two")
    process = [*NODEWRIGHT, "rollout", "status", name, "--timeout", PATIENCE, f"--kubeconfig={live.kubeconfig}"]
    done = subprocess.run(process, capture_output=True, text=True, timeout=280, check=False)
    assert (done.returncode, "rollout is paused: 0 out of" in done.stdout) == (3, True), done.stdout + done.stderr
    answer = json.loads(nodewright(live, "explain", "daemonset", name, "-o", "json"))
    assert [wait["kind"] for wait in answer["waits"]] == ["paused"]
    assert {pod.metadata.uid for pod in live.pods(namespace, "app=web")} == before
    nodewright(live, "rollout", "resume", name)
    nodewright(live, "rollout", "status", name, "--timeout", PATIENCE)
    assert marks(live, namespace) == {"two"}


@pytest.mark.parametrize(("api", "kind"), KINDS)
def test_explain_says_why_pods_are_where_they_are(
    live: Live, facts: Facts, namespace: str, api: str, kind: str
) -> None:
    name = f"{kind}/{namespace}/web"
    live.apply(workload(api, "DaemonSet", "web", namespace, server_spec() | {"nodeSelector": {"no-such": "label"}}))
    live.wait("a revision", lambda: json.loads(nodewright(live, "rollout", "history", name, "-o", "json")))
    table = nodewright(live, "explain", "daemonset", name)
    assert "node selector no-such=label" in table  # long sentences are broken into lines
    patch = [{"op": "remove", "path": "/spec/template/spec/nodeSelector"}]
    live.kubectl("patch", kind, "web", "-n", namespace, "--type=json", "-p", json.dumps(patch))
    nodewright(live, "rollout", "status", name, "--timeout", PATIENCE)
    answer = json.loads(nodewright(live, "explain", "daemonset", name, "-o", "json"))
    assert (answer["complete"], answer["waits"], answer["next"]) == (True, [], [])
    reasons = {line["node"]: line["reason"] for line in answer["nodes"]}
    assert {reasons[node] for node in facts.nodes} == {"new template, available"}
    assert all(reasons[node].startswith("untolerated taint") for node in facts.control_plane_nodes)
