"""Plugins of other packages, against a real API server: found by entry point, and harmless when they are wrong."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
import yaml

from nodewright.kube.resources import NODES, PODS
from nodewright.scheduler.plugin import FilterResult, OnlyNodes, Plugin
from nodewright.scheduler.registry import Registry

from .conftest import enabling, eventually, verdict

pytestmark = pytest.mark.needs_cluster

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "examples/scheduler-plugin"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The example, built and installed as its README says, into a folder of its own."""
    source, target = tmp_path_factory.mktemp("plugin") / "source", tmp_path_factory.mktemp("target")
    shutil.copytree(EXAMPLE, source)
    pip = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--no-deps", "--no-index"]
    done = subprocess.run(
        [*pip, "--no-build-isolation", "--target", str(target), str(source)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return target


def nodewright(lab, target, *arguments):
    """A command of ours with the package on its path, logging into the cluster's folder."""
    argv = [sys.executable, "-m", "nodewright.cli.main", *arguments]
    return argv, {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(target), *filter(None, [os.environ.get("PYTHONPATH")])]),
    }


@pytest.fixture
def process(lab, installed):
    """The scheduler as users run it, with the package installed."""
    kubeconfig = str(lab.layout.kubeconfig("scheduler"))
    argv, env = nodewright(lab, installed, "scheduler", "--no-leader-elect", "--kubeconfig", kubeconfig)
    with (lab.dir / "plugin-test.log").open("ab") as log:
        running = subprocess.Popen(argv, env=env, stdout=log, stderr=log)
    yield running
    running.send_signal(signal.SIGTERM)
    assert running.wait(15) == 0


async def test_the_example_is_found_by_entry_point_and_decides(space, client, profile, lab, installed, process):
    await space.node("loud", "64", labels={"example.com/noise": "loud"})
    await space.node("busy", "8")
    await space.node("quiet", "4")
    manifest = yaml.safe_load((EXAMPLE / "profile.yaml").read_text())
    spec = manifest["spec"]
    assert spec.pop("schedulerName") == manifest["metadata"]["name"] == "quiet"
    await profile("quiet", **spec)
    assert (await verdict(client, "quiet"))["reason"] == "Served"
    for number in range(8):
        await space.pod(f"neighbour-{number}", nodeSelector={"kubernetes.io/hostname": "busy"})
    await space.bound(*(f"neighbour-{number}" for number in range(8)))

    # The default plugins alone would take the emptiest node, which is loud, and then the largest, which is busy.
    await space.pod("light", {"cpu": "1"}, schedulerName="quiet")
    assert await space.bound("light") == {"light": "quiet"}
    await space.pod("heavy", {"cpu": "16"}, schedulerName="quiet")
    message = (await space.refused("heavy"))["message"]
    assert message.startswith("0/3 nodes are available: 1 node(s) were too loud, 2 Insufficient cpu.")
    # What the plugin names as its events lets the Pod through: the node gets quiet.
    await space.pod("picky", {"cpu": "1"}, schedulerName="quiet", nodeSelector={"kubernetes.io/hostname": "loud"})
    await space.refused("picky")
    await client.patch(NODES, "loud", {"metadata": {"labels": {"example.com/noise": None}}})
    assert await space.bound("picky") == {"picky": "loud"}

    argv, env = nodewright(lab, installed, "explain", "pod", f"{space.namespace}/light", "-o", "json")
    asked = await asyncio.create_subprocess_exec(
        *argv, "--kubeconfig", str(lab.kubeconfig), env=env, stdout=subprocess.PIPE
    )
    answer = msgspec.json.decode((await asked.communicate())[0])
    scores = {node["node"]: node["scores"]["QuietNodes"] for node in answer["nodes"] if node["fits"]}
    assert scores["busy"] == {"raw": 92, "normalized": 92, "weight": 5, "weighted": 460}


def packaged(folder, name, module, text):
    """A package of somebody else, installed the usual way."""
    (folder / f"{module}.py").write_text(text)
    info = folder / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[nodewright.scheduler.plugins]\n{name} = {module}:{name}\n")


CLASS = "from nodewright.scheduler.plugin import Plugin\n\n\nclass {name}(Plugin):\n    name = '{name}'\n{body}"


async def test_plugins_that_cannot_be_loaded_make_their_profiles_invalid(
    space, start, profile, client, tmp_path, monkeypatch
):
    bad = {
        "Missing": ("import no_such_module\n", "cannot be loaded: ModuleNotFoundError"),
        "Exits": ("import sys\n\nsys.exit('not today')\n", "cannot be loaded: SystemExit('not today')"),
        "Absent": ("Other = 1\n", "cannot be loaded: AttributeError"),
        "Number": ("Number = 1\n", "is not a subclass of nodewright.scheduler.plugin.Plugin"),
        "Renamed": (CLASS.format(name="Renamed", body="    name = 'Other'\n"), "calls itself 'Other'"),
        "Scoped": (CLASS.format(name="Scoped", body="    scope = 'nodes'\n"), "has scope = 'nodes', which is no Scope"),
        "Awaits": (
            CLASS.format(name="Awaits", body="    async def filter(self, ctx):\n        return None\n"),
            "has an async filter; only pre_bind may await",
        ),
        "Explodes": (
            CLASS.format(name="Explodes", body="    def __init__(self, args=None):\n        raise OSError('bang')\n"),
            "plugin 'Explodes' cannot be made: OSError: bang",
        ),
    }
    for name, (text, _) in bad.items():
        packaged(tmp_path, name, f"nodewright_test_{name.lower()}", text)
    monkeypatch.syspath_prepend(str(tmp_path))
    start()
    for name in bad:
        await profile(name.lower(), plugins=enabling(name))
    await profile("fine")
    for name, (_, reason) in bad.items():
        condition = await verdict(client, name.lower())
        assert (condition["status"], condition["reason"]) == ("False", "Invalid"), name
        assert reason in condition["message"]
    await space.node("n")
    await space.pod("p", schedulerName="fine")
    await space.pod("q")
    await space.bound("p", "q")


class Faulty(Plugin):
    """Does what the Pod's label `fault` says, and nothing for Pods without."""

    name = "Faulty"

    def _raise_at(self, point, pod):
        if pod.pod.metadata.labels.get("fault") == point:
            raise ZeroDivisionError(f"in {point}")

    def prepare(self, ctx):
        self._raise_at("prepare", ctx.pod)
        match ctx.pod.pod.metadata.labels.get("fault"):
            case "prepare-kind":
                return ["a"]
            case "prepare-names":
                return OnlyNodes(["a"])
        return None

    def filter(self, ctx):
        self._raise_at("filter", ctx.pod)
        size = len(ctx.nodes)
        match ctx.pod.pod.metadata.labels.get("fault"):
            case "filter-kind":
                return np.ones(size, dtype=np.bool_)
            case "filter-shape":
                return FilterResult(np.ones(size + 1, dtype=np.bool_), "no")
            case "filter-dtype":
                return FilterResult(np.ones(size, dtype=np.int64), "no")
            case "filter-reason":
                return FilterResult(np.zeros(size, dtype=np.bool_), [5])
        return None

    def score(self, ctx):
        self._raise_at("score", ctx.pod)
        size = len(ctx.nodes)
        match ctx.pod.pod.metadata.labels.get("fault"):
            case "score-kind":
                return [1] * size
            case "score-shape":
                return np.zeros(size - 1, dtype=np.int64)
            case "score-dtype":
                return np.zeros(size, dtype=np.float64)
            case None:
                return None
        return np.full(size, 7, dtype=np.int64)

    def normalize(self, ctx, scores):
        self._raise_at("normalize", ctx.pod)
        match ctx.pod.pod.metadata.labels.get("fault"):
            case "normalize-range":
                return scores + 100
            case "normalize-below":
                return scores - 100
            case "normalize-in-place":
                scores += 1
            case "normalize-none":
                return None
        return scores

    def shares(self, pod):
        self._raise_at("shares", pod)
        return True

    def reserve(self, pod, node, state):
        self._raise_at("reserve", pod)

    def unreserve(self, pod, node, state):
        raise LookupError("there is nothing")

    def wants_pre_bind(self, pod):
        raise LookupError("no idea")

    async def pre_bind(self, pod, node, state, client):
        self._raise_at("pre_bind", pod)


FAULTS = {
    "prepare": "prepare plugin: ZeroDivisionError: in prepare",
    "prepare-kind": "prepare plugin: TypeError: returned an object of type list; expected Rejected, OnlyNodes or None",
    "prepare-names": "prepare plugin: TypeError: returned OnlyNodes with an object of type list; expected a set of",
    "filter": "filter plugin: ZeroDivisionError: in filter",
    "filter-kind": "filter plugin: TypeError: returned an object of type ndarray; expected FilterResult or None",
    "filter-shape": "filter plugin: ValueError: the mask has shape",
    "filter-dtype": "filter plugin: TypeError: the mask has dtype int64; expected booleans",
    "filter-reason": "filter plugin: TypeError: gave an object of type int as a reason; expected text or Reason",
    "score": "score plugin: ZeroDivisionError: in score",
    "score-kind": "score plugin: TypeError: returned an object of type list; expected an array of integers",
    "score-shape": "score plugin: ValueError: the answer has shape",
    "score-dtype": "score plugin: TypeError: the scores have dtype float64; expected integers",
    "normalize": "normalize plugin: ZeroDivisionError: in normalize",
    "normalize-range": "normalize plugin: ValueError: the score 107 is not in the range of 0 to 100 after normalizing",
    "normalize-below": "normalize plugin: ValueError: the score -93 is not in the range of 0 to 100 after normalizing",
    "normalize-in-place": "normalize plugin: ValueError: output array is read-only",
    "normalize-none": "normalize plugin: TypeError: returned an object of type NoneType; expected an array of integers",
    "shares": "shares plugin: ZeroDivisionError: in shares",
    "reserve": 'running Reserve plugin "Faulty": ZeroDivisionError: in reserve',
    "pre_bind": 'running PreBind plugin "Faulty": ZeroDivisionError: in pre_bind',
}


async def test_a_faulty_plugin_fails_its_pods_and_no_others(space, start, profile, client):
    await space.node("a", "64")
    await space.node("b", "64")
    start(registry=Registry({"Faulty": Faulty}))
    await profile("faulty", plugins=enabling("Faulty"))
    await verdict(client, "faulty")
    names = {fault: f"bad-{fault.replace('_', '-')}" for fault in FAULTS}

    async def make(name, fault=""):
        labels = {"labels": {"fault": fault}} if fault else {}
        body = {
            "metadata": {"name": name, **labels},
            "spec": {"schedulerName": "faulty", "containers": [{"name": "c", "image": "x"}]},
        }
        await client.create(PODS, body, space.namespace)

    for fault, name in names.items():
        await make(name, fault)
        await make(f"good-{name}")
    await space.bound(*(f"good-{name}" for name in names.values()))
    for fault, name in names.items():
        text = FAULTS[fault] if FAULTS[fault].startswith("running") else f'running "Faulty" {FAULTS[fault]}'
        condition = await space.refused(name)
        assert (condition["reason"], condition["message"][: len(text)]) == ("SchedulerError", text)

        async def told(name=name, text=text):
            return [e for e in await space.events(name, "FailedScheduling") if e["note"].startswith(text)]

        assert await eventually(told)
    # They were bound nowhere, and the scheduler goes on.
    assert not any([await space.node_of(name) for name in names.values()])
    await make("last")
    await space.bound("last")
