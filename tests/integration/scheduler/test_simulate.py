"""`nodewright simulate` in front of a real API server: what it says, and that it changes nothing."""

import asyncio
import json
import subprocess
import sys

import msgspec
import pytest

from nodewright.kube.resources import (
    APPS_REPLICASETS,
    NODES,
    PERSISTENTVOLUMECLAIMS,
    PODDISRUPTIONBUDGETS,
    PODS,
    PRIORITYCLASSES,
)

pytestmark = pytest.mark.needs_cluster

READS = ("get", "list", "watch")


async def run(*arguments, stdin=""):
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "nodewright.cli.main", *arguments),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, err = await process.communicate(stdin.encode())
    return process.returncode, out.decode(), err.decode()


async def simulate(lab, *arguments, stdin=""):
    return await run("simulate", "--kubeconfig", str(lab.kubeconfig), *arguments, stdin=stdin)


def requests_of(lab, agent):
    """What a program has asked of the API server, from the audit log."""
    lines = map(json.loads, lab.layout.audit_log.read_text().splitlines())
    return [entry for entry in lines if entry.get("userAgent", "").startswith(agent)]


def manifests(*objects):
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})


def deployment(space, name, replicas, cpu, **spec):
    labels = {"app": name}
    containers = [{"name": "c", "image": "x", "resources": {"limits": {"cpu": cpu}}}]
    template = {"metadata": {"labels": labels}, "spec": {"containers": containers, **spec}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": space.namespace},
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template},
    }


async def everything(space):
    """All that a simulation could have changed."""
    kinds = (PODS, NODES, APPS_REPLICASETS, PERSISTENTVOLUMECLAIMS, PODDISRUPTIONBUDGETS)
    return {kind.plural: (await space.client.list(kind)).items for kind in kinds}


@pytest.fixture
async def high(space):
    name = f"high-{space.namespace}"
    await space.client.create(PRIORITYCLASSES, {"metadata": {"name": name}, "value": 1000})
    yield name
    await space.client.delete(PRIORITYCLASSES, name)


async def test_it_tells_what_would_happen_and_changes_nothing(space, lab, start, high):
    for name in ("n1", "n2"):
        await space.node(name, "4")
    start()
    await space.pod("old", {"cpu": "3"})
    node = (await space.bound("old"))["old"]
    before = await everything(space)
    files = manifests(
        deployment(space, "web", 3, "1"),
        deployment(space, "vip", 1, "4", priorityClassName=high),
        deployment(space, "huge", 1, "9"),
    )
    code, out, err = await simulate(lab, "-f", "-", "-o", "json", stdin=files)
    assert code == 3, err
    answer = msgspec.json.decode(out)
    pods = {pod["pod"].partition("/")[2]: pod for pod in answer["pods"]}
    other = {"n1": "n2", "n2": "n1"}[node]
    assert pods["vip-simulated-0"]["node"] == other
    assert pods["web-simulated-0"]["node"] == node
    assert (answer["placed"], answer["pending"]) == (2, 3)
    assert "2 Insufficient cpu" in pods["huge-simulated-0"]["message"]
    assert (
        pods["web-simulated-1"]["source"] == f"standard input, document 1, items[0] (Deployment {space.namespace}/web)"
    )

    assert await everything(space) == before
    asked = requests_of(lab, "nodewright-simulate")
    writes = [entry for entry in asked if entry["verb"] not in READS]
    assert writes
    assert all("dryRun=All" in entry["requestURI"] for entry in writes)
    assert len({entry["requestURI"].partition("?")[0] for entry in writes}) == 1


async def test_what_it_says_is_what_then_happens(space, lab, start, high):
    """The same Pods, simulated and then made: placed, pending with the same message, or evicted alike."""
    await space.node("n1", "4")
    await space.node("n2", "2", labels={"disk": "ssd"})
    start()
    await space.pod("old", {"cpu": "3"})
    assert await space.bound("old") == {"old": "n1"}
    wants = {
        "ssd": ({"cpu": "1"}, {"nodeSelector": {"disk": "ssd"}}),
        "none": ({"cpu": "1"}, {"nodeSelector": {"disk": "tape"}}),
        "vip": ({"cpu": "4"}, {"priorityClassName": high}),
    }
    bodies = []
    for name, (requests, spec) in wants.items():
        container = {"name": "c", "image": "x", "resources": {"requests": requests}}
        whole = {"schedulerName": "nodewright", "containers": [container], **spec}
        meta = {"name": name, "namespace": space.namespace}
        bodies.append({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": whole})
    code, out, err = await simulate(lab, "-f", "-", "-o", "json", stdin=manifests(*bodies))
    assert code == 3, err
    answer = msgspec.json.decode(out)
    said = {pod["pod"].partition("/")[2]: pod for pod in answer["pods"]}
    assert [evicted["pod"] for evicted in answer["evicted"]] == [f"{space.namespace}/old"]

    for name, (requests, spec) in wants.items():
        await space.pod(name, requests, **spec)
    assert await space.bound("ssd", "vip") == {name: said[name]["node"] for name in ("ssd", "vip")}
    assert (await space.refused("none"))["message"] == said["none"]["message"]
    left = {pod["metadata"]["name"] for pod in (await space.client.list(PODS, space.namespace)).items}
    assert "old" not in left


async def test_a_dump_gives_the_same_answer_as_the_live_cluster(space, lab, tmp_path):
    await space.node("n1", "4")
    await space.node("n2", "2", taints=[{"key": "k", "effect": "NoSchedule"}])
    await space.pod("waits", {"cpu": "1"})
    dump, copy = tmp_path / "dump.yaml", tmp_path / "copy.json"
    files = manifests(deployment(space, "web", 3, "2"))
    live = await simulate(lab, "-f", "-", "-o", "json", "--schedule-pending", "--save-dump", str(dump), stdin=files)
    assert live[0] == 3, live[2]
    offline = await run("simulate", "--dump", str(dump), "-f", "-", "-o", "json", "--schedule-pending", stdin=files)
    assert offline[:2] == live[:2]
    assert [pod["source"] for pod in msgspec.json.decode(live[1])["pods"]].count("cluster") == 1
    code, _, err = await run("simulate", "--dump", str(dump), "--save-dump", str(copy))
    assert code == 0, err
    assert msgspec.json.decode(copy.read_text())["kind"] == "List"


async def test_what_kubectl_prints_is_a_dump_too(space, lab, binaries, tmp_path):
    if "kubectl" not in binaries:
        pytest.skip("no kubectl here")
    await space.node("n1", "4")
    kinds = "nodes,pods,namespaces,services,replicasets,statefulsets,pv,pvc,sc,csinodes,pdb,priorityclasses"
    dump = tmp_path / "dump.yaml"
    with dump.open("wb") as out:
        argv = [str(binaries["kubectl"]), "--kubeconfig", str(lab.kubeconfig), "get", kinds, "-A", "-o", "yaml"]
        process = await asyncio.create_subprocess_exec(*argv, stdout=out)
        assert await process.wait() == 0
    files = manifests(deployment(space, "web", 3, "2"))
    code, out, err = await run("simulate", "--dump", str(dump), "-f", "-", "-o", "json", stdin=files)
    assert code == 3, err
    assert msgspec.json.decode(out)["placed"] == 2


async def test_a_pod_that_the_api_server_refuses(space, lab):
    bad = deployment(space, "web", 1, "1", restartPolicy="Sometimes")
    code, _, err = await simulate(lab, "-f", "-", stdin=manifests(bad))
    assert code == 1
    text = " ".join(err.split())
    assert f"standard input, document 1, items[0] (Deployment {space.namespace}/web): " in text
    assert "spec.restartPolicy: Unsupported value" in text
    assert "Traceback" not in err


async def test_namespaces_and_classes_that_only_the_files_have(space, lab):
    await space.node("n1", "4")
    there = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "not-there-yet"}}
    made = deployment(space, "web", 1, "1", priorityClassName="nobody-has-it")
    made["metadata"]["namespace"] = "not-there-yet"
    own = {
        "apiVersion": "scheduling.k8s.io/v1",
        "kind": "PriorityClass",
        "metadata": {"name": "nobody-has-it"},
        "value": 7,
    }
    code, out, err = await simulate(lab, "-f", "-", "-o", "json", stdin=manifests(there, own, made))
    assert code == 0, err
    answer = msgspec.json.decode(out)
    assert answer["pods"][0]["priority"] == 7
    assert answer["notes"] == [
        "Deployment not-there-yet/web: defaults are our own, as the cluster has no namespace not-there-yet"
    ]
