"""SchedulerProfiles against a real API server: what the schema refuses, what the scheduler refuses and does."""

import subprocess

import msgspec
import pytest
import yaml

from nodewright.kube.client import PatchType
from nodewright.kube.errors import ApiError
from nodewright.kube.resources import SCHEDULERPROFILES
from nodewright.scheduler.profile import profile_from_object
from support.cluster import EXAMPLES

from .conftest import verdict

pytestmark = pytest.mark.needs_cluster

# --- the schema -----------------------------------------------------------------------------------------------------


async def refusal(client, **spec):
    """What the API server says to a profile, "" when it takes it."""
    body = {
        "apiVersion": SCHEDULERPROFILES.api_version,
        "kind": "SchedulerProfile",
        "metadata": {"name": "tried"},
        "spec": {"schedulerName": "tried", **spec},
    }
    try:
        await client.request(
            "POST",
            SCHEDULERPROFILES.path(),
            params={"dryRun": "All", "fieldValidation": "Strict"},
            body=msgspec.json.encode(body),
        )
    except ApiError as error:
        return str(error)
    return ""


def args(plugin, **arguments):
    return {"pluginConfig": [{"name": plugin, "args": arguments}]}


def fit(**strategy):
    return args("NodeResourcesFit", scoringStrategy=strategy)


def ratio(*points):
    shape = [{"utilization": u, "score": s} for u, s in points]
    return fit(type="RequestedToCapacityRatio", requestedToCapacityRatio={"shape": shape})


def point(name, *enabled, disabled=()):
    return {"plugins": {name: {"enabled": [{"name": n} for n in enabled], "disabled": [{"name": n} for n in disabled]}}}


SHAPE = "spec.pluginConfig[0].args.scoringStrategy.requestedToCapacityRatio.shape"


@pytest.mark.parametrize(
    ("spec", "parts"),
    [
        ({"schedulerName": ""}, ["spec.schedulerName"]),
        ({"percentageOfNodesToScore": 101}, ["spec.percentageOfNodesToScore", "100"]),
        ({"plugins": {"filters": {}}}, ['unknown field "spec.plugins.filters"']),
        ({"plugins": {"score": {"enabled": [{"name": "A", "weight": -1}]}}}, ["spec.plugins.score.enabled[0].weight"]),
        (point("filter", "A", "A"), ["spec.plugins.filter.enabled[1]", "Duplicate value"]),
        (point("filter", disabled=("A", "A")), ["spec.plugins.filter.disabled[1]", "Duplicate value"]),
        (point("filter", "*"), ["spec.plugins.filter.enabled", "only `disabled` can mean all plugins"]),
        (point("queueSort", "Mine"), ["spec.plugins.queueSort", "only PrioritySort can be enabled"]),
        (point("bind", "Mine"), ["spec.plugins.bind", "only DefaultBinder can be enabled"]),
        (point("preEnqueue", "Mine"), ["spec.plugins.preEnqueue", "no other plugin than upstream's"]),
        (point("permit", "Mine"), ["spec.plugins.permit", "there is no such step"]),
        (point("postBind", "Mine"), ["spec.plugins.postBind", "there is no such step"]),
        ({"pluginConfig": [{"name": "A"}, {"name": "A"}]}, ["spec.pluginConfig[1]", "Duplicate value"]),
        (fit(type="Best"), ["args.scoringStrategy.type", "supported values: LeastAllocated, MostAllocated, Requested"]),
        (fit(type="RequestedToCapacityRatio"), ["args.scoringStrategy.requestedToCapacityRatio", "must be given when"]),
        (
            fit(requestedToCapacityRatio={"shape": []}),
            ["args.scoringStrategy.requestedToCapacityRatio", "and only then"],
        ),
        (fit(resources=[{"name": "cpu", "weight": 101}]), ["scoringStrategy.resources", "not in valid range (0, 100]"]),
        (ratio(), [SHAPE, "at least one point must be specified"]),
        (ratio((0, 0), (101, 10)), [SHAPE, "not in valid range"]),
        (ratio((0, 11)), [SHAPE, "not in valid range"]),
        (ratio((50, 0), (50, 10)), [SHAPE, "sorted in increasing order"]),
        (ratio((60, 0), (50, 10)), [SHAPE, "sorted in increasing order"]),
        (args("InterPodAffinity", hardPodAffinityWeight=101), ["args.hardPodAffinityWeight", "not in valid range"]),
        (args("InterPodAffinity", hardPodAffinityWeight="1"), ["args.hardPodAffinityWeight", "integer"]),
        (args("DefaultPreemption", minCandidateNodesPercentage=101), ["args.minCandidateNodesPercentage", "[0, 100]"]),
        (args("DefaultPreemption", minCandidateNodesAbsolute=-1), ["args.minCandidateNodesAbsolute", "[0, inf)"]),
        (
            args("DefaultPreemption", minCandidateNodesAbsolute=0, minCandidateNodesPercentage=0),
            ["cannot be zero at the same time"],
        ),
        (args("VolumeBinding", bindTimeoutSeconds=-1), ["args.bindTimeoutSeconds", "negative"]),
        (args("PodTopologySpread", defaultingType="Some"), ["args.defaultingType", "supported values: List, System"]),
    ],
)
async def test_what_the_schema_refuses(client, spec, parts):
    said = await refusal(client, **spec)
    for part in parts:
        assert part in said


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"percentageOfNodesToScore": 0},
        point("queueSort", "PrioritySort", disabled=("*",)),
        point("multiPoint", "A", disabled=("*",)),
        {"pluginConfig": [{"name": "NodeResourcesFit"}, {"name": "Mine", "args": {"any": {"thing": [1, "x"]}}}]},
        ratio((0, 0), (40, 7), (100, 10)),
        ratio(*((u, u % 11) for u in range(101))),
        fit(resources=[{"name": "cpu"}, {"name": "example.com/gpu", "weight": 0}]),
        args("InterPodAffinity", hardPodAffinityWeight=0, ignorePreferredTermsOfExistingPods=True),
        args("DefaultPreemption", minCandidateNodesAbsolute=0),
        args("Mine", hardPodAffinityWeight=1000, scoringStrategy={"type": "Mine", "more": {}}),
    ],
)
async def test_what_the_schema_takes(client, spec):
    assert await refusal(client, **spec) == ""


# --- what the schema cannot see -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (point("score", "Nope"), "spec: plugins: no scheduler plugin is named 'Nope' (known: "),
        (point("score", "NodeName"), "spec: plugins.score.enabled[0].name: plugin 'NodeName' does not extend Score"),
        (point("score", disabled=("Nope",)), "spec: plugins.score.disabled[0].name: no scheduler plugin is named"),
        (point("multiPoint", disabled=("*",)), "spec: plugins.queueSort: PrioritySort is switched off"),
        (args("NodeAffinity", affinity={}), "spec: pluginConfig[NodeAffinity].args: "),
        (args("NodeName", x=1), "spec: pluginConfig[NodeName]: plugin 'NodeName' takes no arguments"),
        (args("Nope"), "spec: pluginConfig[0].name: plugin 'Nope' is not enabled"),
        (
            args("NodeResourcesBalancedAllocation", resources=[{"name": "cpu", "weight": 2}]),
            "spec: pluginConfig[NodeResourcesBalancedAllocation].args: resources[0].weight: Invalid value: 2: must be",
        ),
    ],
)
async def test_what_the_scheduler_refuses_stands_in_the_status(space, start, profile, client, spec, message):
    start()
    await profile("wrong", **spec)
    await profile("right")
    condition = await verdict(client, "wrong")
    assert (condition["status"], condition["reason"]) == ("False", "Invalid")
    assert condition["message"].startswith(message)
    assert (await verdict(client, "right"))["reason"] == "Served"
    await space.node("n")
    await space.pod("p", schedulerName="right")
    assert await space.bound("p") == {"p": "n"}


async def test_profiles_are_changed_live(space, start, profile, client):
    await space.node("full", "4")
    await space.node("free", "4")
    start()
    await space.pod("filler", {"cpu": "1", "memory": "1Gi"}, nodeSelector={"kubernetes.io/hostname": "full"})
    await space.bound("filler")
    shape = [(0, 0), (100, 10)]
    await profile("packer", **ratio(*shape))
    await verdict(client, "packer")
    await space.pod("packed", {"cpu": "1", "memory": "1Gi"}, schedulerName="packer")
    assert await space.bound("packed") == {"packed": "full"}
    await client.patch(SCHEDULERPROFILES, "packer", {"spec": ratio((0, 10), (100, 0))}, kind=PatchType.MERGE)
    await verdict(client, "packer", 2)
    await space.pod("spread", {"cpu": "1", "memory": "1Gi"}, schedulerName="packer")
    assert await space.bound("spread") == {"spread": "free"}
    # Wrong from now on: the last good version goes on being served.
    await client.patch(SCHEDULERPROFILES, "packer", {"spec": point("filter", "Nope")}, kind=PatchType.MERGE)
    condition = await verdict(client, "packer", 3)
    assert condition["status"] == "False"
    assert "generation 2 goes on being served" in condition["message"]
    await space.pod("again", {"cpu": "100m", "memory": "100Mi"}, schedulerName="packer")
    await space.bound("again")


async def test_points_have_their_effect(space, start, profile, client):
    await space.node("small", "1")
    await space.node("tainted", "8", taints=[{"key": "a", "value": "b", "effect": "NoSchedule"}])
    start()
    await profile("tolerant", **point("filter", disabled=("TaintToleration",)))
    await profile("strict")
    await verdict(client, "tolerant")
    await space.pod("strict", {"cpu": "2"}, schedulerName="strict")
    await space.pod("tolerant", {"cpu": "2"}, schedulerName="tolerant")
    assert await space.bound("tolerant") == {"tolerant": "tainted"}
    assert "1 node(s) had untolerated taint(s)" in (await space.refused("strict"))["message"]


async def test_post_filter_decides_over_preemption(space, start, profile, client):
    await space.node("n", "1")
    start()
    await profile("gentle", **point("postFilter", disabled=("*",)))
    await profile("usual")
    await verdict(client, "gentle")
    for name in ("gentle", "usual"):
        await space.pod(name, {"cpu": "2"}, schedulerName=name)
    assert (await space.refused("gentle"))["message"] == "0/1 nodes are available: 1 Insufficient cpu."
    assert "preemption: 0/1 nodes are available" in (await space.refused("usual"))["message"]


async def test_arguments_have_their_effect(space, start, profile, client):
    for name, zone in (("a", "x"), ("b", "y")):
        await space.node(name, labels={"zone": zone, "example.com/pool": zone})
    start()
    expression = {"key": "example.com/pool", "operator": "In", "values": ["y"]}
    required = {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}
    affinity = {"requiredDuringSchedulingIgnoredDuringExecution": required}
    await profile("pooled", **args("NodeAffinity", addedAffinity=affinity))
    await verdict(client, "pooled")
    await space.pod("inside", schedulerName="pooled")
    assert await space.bound("inside") == {"inside": "b"}
    await space.pod("outside", schedulerName="pooled", nodeSelector={"zone": "x"})
    assert "1 node(s) didn't match scheduler-enforced node affinity" in (await space.refused("outside"))["message"]


# --- the examples ---------------------------------------------------------------------------------------------------


def test_the_examples_are_taken_and_the_plugins_folder_is_no_obstacle(lab, binaries):
    def applied(path, mode):
        argv = [
            str(binaries["kubectl"]),
            "--kubeconfig",
            str(lab.kubeconfig),
            "apply",
            f"--dry-run={mode}",
            "-o",
            "name",
        ]
        done = subprocess.run([*argv, "-f", str(path)], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.split()

    # On the client's side, since one example brings its own namespace.
    everything = applied(EXAMPLES, "client")
    assert "schedulerprofile.nodewright.dev/packed" in everything
    assert "schedulerprofile.nodewright.dev/quiet" not in everything
    assert "schedulerprofile.nodewright.dev/packed" in applied(EXAMPLES / "50-schedulerprofile.yaml", "server")
    quiet = applied(EXAMPLES / "scheduler-plugin/profile.yaml", "server")
    assert quiet == ["schedulerprofile.nodewright.dev/quiet"]


def test_the_example_profile_is_one():
    documents = yaml.safe_load_all((EXAMPLES / "50-schedulerprofile.yaml").read_text())
    (spec,) = [each["spec"] for each in documents if each["kind"] == "SchedulerProfile"]
    profile = profile_from_object(spec)
    assert "ImageLocality" not in [scorer.plugin.name for scorer in profile.scorers]
