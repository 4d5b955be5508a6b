"""The scheduler and `explain` as commands: killed and restarted, asked by people, measured by the benchmark."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from nodewright.cli.main import main
from nodewright.kube.resources import PODS, PRIORITYCLASSES

from .conftest import eventually

pytestmark = pytest.mark.needs_cluster

ROOT = Path(__file__).parents[3]


def spawn(lab, *arguments):
    argv = [sys.executable, "-m", "nodewright.cli.main", "scheduler", "--no-leader-elect", *arguments]
    log = (lab.dir / "scheduler-test.log").open("ab")
    with log:
        return subprocess.Popen(
            [*argv, "--kubeconfig", str(lab.layout.kubeconfig("scheduler"))], stdout=log, stderr=log
        )


def bindings(lab, namespace):
    """Successful bindings per Pod, from the audit log."""
    counts = {}
    for line in lab.layout.audit_log.read_text().splitlines():
        entry = json.loads(line)
        ref = entry.get("objectRef", {})
        ours = ref.get("subresource") == "binding" and ref.get("namespace") == namespace
        if ours and entry["responseStatus"]["code"] < 300:
            counts[ref["name"]] = counts.get(ref["name"], 0) + 1
    return counts


async def test_killed_again_and_again_it_loses_no_pod_and_binds_none_twice(space, lab):
    for number in range(10):
        await space.node(f"n{number}", "2", "64Gi")
    names = [f"p{number}" for number in range(150)]
    await asyncio.gather(*(space.pod(name, {"cpu": "100m"}) for name in names))

    async def placed():
        pods = (await space.client.list(PODS, space.namespace)).items
        return {p["metadata"]["name"]: p["spec"]["nodeName"] for p in pods if p["spec"].get("nodeName")}

    for goal in (1, 50, 100, 150):
        process = spawn(lab)
        try:

            async def reached(goal=goal):
                return len(await placed()) >= goal

            await eventually(reached, timeout=30)
        finally:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
    # Where the kill cut off the answer, the audit log may have no success for a binding that was stored.
    stored = bindings(lab, space.namespace)
    assert set(stored.values()) == {1}
    assert set(await placed()) == set(names)
    nodes = list((await placed()).values())
    assert max(nodes.count(node) for node in nodes) <= 20


async def test_an_orderly_end_tells_what_was_not_told_yet(space, lab):
    for number in range(4):
        await space.node(f"n{number}", "64", "64Gi")
    names = [f"p{number}" for number in range(60)]
    await asyncio.gather(*(space.pod(name) for name in names))
    process = spawn(lab)
    try:
        await space.bound(*names)
    finally:
        process.terminate()
        assert process.wait(15) == 0
    told = [await space.events(name, "Scheduled") for name in (names[0], names[-1])]
    assert all(len(events) == 1 for events in told)
    found = await space.client.list(PODS, space.namespace)
    assert len(found.items) == 60


def test_bad_options_are_refused_with_a_reason(lab, capsys):
    kubeconfig = str(lab.kubeconfig)
    assert main(["scheduler", "--kubeconfig", kubeconfig, "--plugin", "Nope"]) == 1
    assert "no scheduler plugin is named 'Nope'" in capsys.readouterr().err
    assert main(["scheduler", "--kubeconfig", kubeconfig, "--metrics-bind", "nowhere"]) == 2
    assert "not HOST:PORT" in capsys.readouterr().err
    assert main(["scheduler", "--kubeconfig", "/nonexistent/config"]) != 0
    assert "/nonexistent/config" in capsys.readouterr().err


async def explain(lab, *arguments, stdin=None):
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "nodewright.cli.main", "explain", "pod", "--kubeconfig", str(lab.kubeconfig)),
        *arguments,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, err = await process.communicate(stdin.encode() if stdin else b"")
    return process.returncode, out.decode(), err.decode()


async def test_explain_pending_bound_and_hypothetical_pods(space, lab, start):
    await space.node("small", "1")
    await space.node("large", "8")
    start()
    await space.pod("placed", {"cpu": "500m"})
    await space.pod("stuck", {"cpu": "9"})
    await space.bound("placed")
    message = (await space.refused("stuck"))["message"]

    code, out, _ = await explain(lab, f"{space.namespace}/stuck")
    assert code == 0
    assert message in out
    assert "Insufficient cpu" in out

    code, out, _ = await explain(lab, f"{space.namespace}/placed", "-o", "json")
    answer = msgspec.json.decode(out)
    assert (answer["node"], answer["state"]) == ("large", "bound to large")
    first, second = answer["nodes"]
    assert (first["node"], first["bound"], first["best"]) == ("large", True, True)
    assert first["total"] == sum(score["weighted"] for score in first["scores"].values())
    assert second["node"] == "small"
    assert second["fits"]

    manifest = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "idea", "namespace": space.namespace},
        "spec": {"containers": [{"name": "c", "image": "x", "resources": {"limits": {"cpu": "2"}}}]},
    }
    code, out, _ = await explain(lab, "-f", "-", "-o", "yaml", stdin=json.dumps(manifest))
    assert code == 0
    assert f"pod: {space.namespace}/idea" in out
    assert "state: hypothetical" in out
    assert "Insufficient cpu" in out  # limits are requests by default: the API server has filled them in
    assert len((await space.client.list(PODS, space.namespace)).items) == 2


async def test_explain_says_what_is_wrong_with_a_question(space, lab):
    code, _, err = await explain(lab, f"{space.namespace}/nobody")
    assert (code, "not found" in err) == (1, True)
    code, _, err = await explain(lab)
    assert (code, "name a Pod" in err) == (2, True)
    code, _, err = await explain(lab, "-f", "-", stdin="kind: Service")
    assert (code, "kind Pod" in err) == (2, True)
    bad = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "bad", "namespace": space.namespace}}
    code, _, err = await explain(lab, "-f", "-", stdin=json.dumps({**bad, "spec": {"containers": []}}))
    assert code == 1
    assert "spec.containers" in err
    assert "Traceback" not in err
    code, _, err = await explain(lab, "-f", "-", stdin=json.dumps({**bad, "spec": []}))
    assert (code, "standard input, document 1 (Pod " in err, "spec: must be a mapping" in err) == (2, True, True)


async def test_explain_tells_what_is_missing_and_whom_preemption_would_evict(space, lab, start):
    client, key = space.client, "topology.kubernetes.io/zone"
    await space.node("a", "2", labels={key: "a"})
    await space.node("b", "2", labels={key: "b"}, taints=[{"key": "own", "value": "x", "effect": "NoSchedule"}])
    start()
    await space.pod("first", {"cpu": "1500m"})
    await space.bound("first")
    value = await client.create(PRIORITYCLASSES, {"metadata": {"name": space.namespace}, "value": 1000})
    try:
        near = {"labelSelector": {"matchLabels": {"app": "db"}}, "topologyKey": key}
        spec = {
            "schedulerName": "nodewright",
            "priorityClassName": value["metadata"]["name"],
            "containers": [{"name": "c", "image": "x", "resources": {"requests": {"cpu": 1}}}],
        }
        template = {"metadata": {"labels": {"app": "web"}}, "spec": spec}
        web = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "web", "namespace": space.namespace},
            "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}}, "template": template},
        }
        code, out, err = await explain(lab, "-f", "-", "-o", "json", stdin=json.dumps(web))
        assert code == 0, err
        answer = msgspec.json.decode(out)
        assert [node["node"] for node in answer["nodes"]] == ["a", "b"]
        assert answer["nodes"][0]["missing"][0]["details"] == ["cpu: needs 1000m, 500m free of 2000m: 500m short"]
        assert answer["nodes"][1]["missing"][0]["details"] == ["taint own=x:NoSchedule is not tolerated"]
        (candidate,) = answer["preemption"]["candidates"]
        assert (candidate["node"], candidate["victims"][0]["pod"]) == ("a", f"{space.namespace}/first")

        spec["affinity"] = {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [near]}}
        code, out, _ = await explain(lab, "-f", "-", stdin=json.dumps(web))
        assert code == 0
        text = " ".join(out.split())
        assert f"affinity to pods with app=db: none in {key}=a; no such pod is placed anywhere" in text
        assert "Preemption does not help" in text
    finally:
        await client.delete(PRIORITYCLASSES, space.namespace)


@pytest.mark.timeout(240)
def test_the_benchmark_runs_every_workload_and_finds_nothing_wrong():
    sizes = ["--nodes", "12", "--pods", "36", "--rounds", "1"]
    argv = [sys.executable, "tests/bench/scheduler_bench.py", *sizes, "--only", "nodewright", "--json"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    result = msgspec.json.decode(done.stdout)
    assert result["wrong"] == []
    rounds = {round_["workload"]: round_ for round_ in result["rounds"]}
    assert len(rounds) == 10
    assert rounds["basic"]["contender"] == "nodewright"
    assert rounds["basic"]["events"] == 36
    assert all(round_["rate"] > 0 and round_["decision_p99"] > 0 for round_ in rounds.values())
    assert rounds["anti-required"]["widest"] == 1
    assert rounds["preemption"]["victims"] == 36
