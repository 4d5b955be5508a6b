"""What the API server says to bad manifests of our kind, beside what it says to the same in apps/v1."""

import asyncio
import copy
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from nodewright.kube.errors import ApiError, Invalid
from nodewright.kube.resources import APPS_DAEMONSETS, DAEMONSETS, NODEAGENTCONFIGS, SCHEDULERPROFILES

pytestmark = pytest.mark.needs_cluster

BASE = {
    "metadata": {"name": "x"},
    "spec": {
        "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
    },
}
SPEC = ("spec",)
TEMPLATE = (*SPEC, "template")
POD = (*TEMPLATE, "spec")
CONTAINER = (*POD, "containers", 0)
STRATEGY = (*SPEC, "updateStrategy")
IN = {"matchExpressions": [{"key": "a", "operator": "In", "values": ["c"]}]}
REMOVED = object()


def changed(path, value):
    obj = copy.deepcopy(BASE)
    place = obj
    for step in path[:-1]:
        place = place[step] if isinstance(step, int) else place.setdefault(step, {})
    if value is REMOVED:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return obj


async def refusals(client, resource, obj):
    """(field, message) of each complaint; [] when it is accepted."""
    try:
        await client.request(
            "POST",
            resource.path("default"),
            params={"dryRun": "All", "fieldValidation": "Strict"},
            body=encoded(resource, obj),
        )
    except Invalid as error:
        return [cause for cause in error.causes if cause[0] != "<nil>"]
    except ApiError as error:
        return [("", error.message)]
    return []


def encoded(resource, obj):
    return msgspec.json.encode({**obj, "apiVersion": resource.api_version, "kind": resource.kind})


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        ((*SPEC, "selector"), {}, "spec.selector"),
        ((*SPEC, "selector"), IN, "spec.template.metadata.labels"),
        ((*SPEC, "minReadySeconds"), -1, "spec.minReadySeconds"),
        ((*SPEC, "revisionHistoryLimit"), -1, "spec.revisionHistoryLimit"),
        ((*TEMPLATE, "metadata", "labels"), {"a": "c"}, "spec.template.metadata.labels"),
        ((*TEMPLATE, "metadata"), REMOVED, "spec.template.metadata.labels"),
        ((*POD, "restartPolicy"), "Sometimes", "spec.template.spec.restartPolicy"),
        ((*POD, "activeDeadlineSeconds"), 5, "spec.template.spec.activeDeadlineSeconds"),
        ((*POD, "containers"), [], "spec.template.spec.containers"),
        ((*CONTAINER, "image"), REMOVED, "spec.template.spec.containers[0].image"),
        ((*CONTAINER, "image"), "", "spec.template.spec.containers[0].image"),
        ((*CONTAINER, "name"), "Bad_Name", "spec.template.spec.containers[0].name"),
        ((*CONTAINER, "ports"), [{"containerPort": 70000}], "spec.template.spec.containers[0].ports[0].containerPort"),
        ((*CONTAINER, "imagePullPolicy"), "Sometimes", "spec.template.spec.containers[0].imagePullPolicy"),
        ((*STRATEGY, "rollingUpdate"), {"maxSurge": 1}, "spec.updateStrategy.rollingUpdate.maxSurge"),
        ((*STRATEGY, "rollingUpdate"), {"maxUnavailable": 0}, "spec.updateStrategy.rollingUpdate.maxUnavailable"),
        ((*STRATEGY, "rollingUpdate"), {"maxUnavailable": "110%"}, "spec.updateStrategy.rollingUpdate.maxUnavailable"),
        ((*STRATEGY, "rollingUpdate"), {"maxUnavailable": -1}, "spec.updateStrategy.rollingUpdate.maxUnavailable"),
    ],
)
async def test_a_bad_field_is_refused_with_upstreams_path(client, path, value, field):
    obj = changed(path, value)
    ours, theirs = await refusals(client, DAEMONSETS, obj), await refusals(client, APPS_DAEMONSETS, obj)
    assert {f for f, _ in ours} == {f for f, _ in theirs} == {field}


@pytest.mark.parametrize(
    ("path", "value", "text"),
    [
        ((*SPEC, "selector"), {}, "empty selector is invalid for daemonset"),
        ((*TEMPLATE, "metadata", "labels"), {"a": "c"}, "`selector` does not match template `labels`"),
        ((*POD, "restartPolicy"), "Never", 'Unsupported value: "Never": supported values: "Always"'),
        ((*POD, "activeDeadlineSeconds"), 5, "Forbidden: activeDeadlineSeconds in DaemonSet is not Supported"),
        ((*STRATEGY, "rollingUpdate"), {"maxSurge": 1}, "may not be set when maxUnavailable is non-zero"),
        ((*STRATEGY, "rollingUpdate"), {"maxUnavailable": 0}, "Required value: cannot be 0 when maxSurge is 0"),
        (
            (*STRATEGY, "rollingUpdate"),
            {"maxUnavailable": "110%"},
            'Invalid value: "110%": must not be greater than 100%',
        ),
    ],
)
async def test_messages_are_upstreams(client, path, value, text):
    obj = changed(path, value)
    for resource in (DAEMONSETS, APPS_DAEMONSETS):
        found = await refusals(client, resource, obj)
        assert len(found) == 1, (resource, found)
        assert text in found[0][1], resource


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        ((*CONTAINER, "imagee"), "x", 'unknown field "spec.template.spec.containers[0].imagee"'),
        ((*CONTAINER, "ports"), [{"containerPort": "http"}], "spec.template.spec.containers[0].ports[0].containerPort"),
        ((*POD, "nodeSelector"), {"a": 1}, "spec.template.spec.nodeSelector.a"),
        ((*CONTAINER, "resources"), {"requests": {"cpu": "0.5x"}}, "containers[0].resources.requests.cpu"),
    ],
)
async def test_wrong_types_are_refused_with_the_path_where_apps_v1_gives_none(client, path, value, field):
    ((where, message),) = await refusals(client, DAEMONSETS, changed(path, value))
    assert field in f"{where} {message}"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ((*CONTAINER, "resources"), {"requests": {"cpu": 0.5, "memory": "64Mi"}, "limits": {"cpu": 1}}),
        ((*CONTAINER, "env"), [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]),
        (
            (*CONTAINER, "ports"),
            [{"containerPort": 53}, {"containerPort": 53}, {"containerPort": 53, "protocol": "UDP"}],
        ),
        ((*TEMPLATE, "metadata", "creationTimestamp"), None),
        ((*CONTAINER, "livenessProbe"), {"httpGet": {"port": "http"}}),
        ((*POD, "terminationGracePeriodSeconds"), -1),
        ((*POD, "volumes"), [{"name": "v", "emptyDir": {"sizeLimit": "1Gi"}}]),
        ((*POD, "imagePullSecrets"), [{"name": "a"}]),
        (STRATEGY, {"type": "OnDelete"}),
        (STRATEGY, {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": "10%"}}),
        ((*SPEC, "selector"), {"matchExpressions": [{"key": "a", "operator": "Exists"}]}),
    ],
)
async def test_what_apps_v1_takes_is_taken(client, path, value):
    obj = changed(path, value)
    assert await refusals(client, APPS_DAEMONSETS, obj) == []
    assert await refusals(client, DAEMONSETS, obj) == []


async def test_the_selector_is_immutable(world):
    await world.create()
    patch = {"spec": {"selector": {"matchLabels": {"app": "ds", "more": "x"}}}}
    with pytest.raises(Invalid, match=r"spec\.selector: Invalid value: .*field is immutable"):
        await world.client.patch(DAEMONSETS, "ds", patch, world.namespace)


async def test_kubectl_tells_the_user_the_field(cluster, kubectl, namespace):
    manifest = """
apiVersion: nodewright.dev/v1alpha1
kind: DaemonSet
metadata: {name: x}
spec:
  selector: {matchLabels: {a: b}}
  template:
    metadata: {labels: {a: b}}
    spec: {containers: [{name: c, image: i, imagee: typo}]}
"""
    with pytest.raises(RuntimeError, match=r'unknown field "spec\.template\.spec\.containers\[0\]\.imagee"'):
        kubectl("apply", "-n", namespace, "-f", "-", stdin=manifest)


async def test_kubectl_prints_upstreams_columns(kubectl, world):
    await world.create()
    head, row = kubectl("get", "nds", "-n", world.namespace).splitlines()
    assert head.split("  ")[0] == "NAME"
    assert head.replace("NODE SELECTOR", "NODE-SELECTOR").split() == [
        "NAME",
        "DESIRED",
        "CURRENT",
        "READY",
        "UP-TO-DATE",
        "AVAILABLE",
        "NODE-SELECTOR",
        "AGE",
    ]
    assert row.startswith("ds ")


PROFILE = {"metadata": {"name": "p"}, "spec": {"schedulerName": "s"}}
CONFIG = {"metadata": {"name": "c"}, "spec": {}}


@pytest.mark.parametrize(
    ("resource", "base", "spec", "field"),
    [
        (SCHEDULERPROFILES, PROFILE, {"schedulerName": "Not Valid"}, "spec.schedulerName"),
        (
            SCHEDULERPROFILES,
            PROFILE,
            {"plugins": {"score": {"enabled": [{"name": "A", "weight": -1}]}}},
            "spec.plugins.score.enabled[0].weight",
        ),
        (SCHEDULERPROFILES, PROFILE, {"percentageOfNodesToScore": 101}, "spec.percentageOfNodesToScore"),
        (SCHEDULERPROFILES, PROFILE, {"pluginConfig": [{"name": "A", "args": 3}]}, "spec.pluginConfig[0].args"),
        (NODEAGENTCONFIGS, CONFIG, {"proxy": {"mode": "magic"}}, "spec.proxy.mode"),
        (NODEAGENTCONFIGS, CONFIG, {"proxy": {"mode": "nftables", "ipvs": {"scheduler": "rr"}}}, "spec.proxy.ipvs"),
        (NODEAGENTCONFIGS, CONFIG, {"evictionHard": {"memory.free": "1Gi"}}, "spec.evictionHard"),
        (
            NODEAGENTCONFIGS,
            CONFIG,
            {"evictionHard": {"memory.available": "lots"}},
            "spec.evictionHard.memory.available",
        ),
        (NODEAGENTCONFIGS, CONFIG, {"evictionSoft": {"memory.available": "1Gi"}}, "spec.evictionSoft"),
        (
            NODEAGENTCONFIGS,
            CONFIG,
            {"imageGCHighThresholdPercent": 50, "imageGCLowThresholdPercent": 60},
            "spec.imageGCLowThresholdPercent",
        ),
        (NODEAGENTCONFIGS, CONFIG, {"containerLogMaxFiles": 1}, "spec.containerLogMaxFiles"),
    ],
)
async def test_bad_configurations_are_refused_with_the_path(client, resource, base, spec, field):
    async def fields(obj):
        try:
            await client.request("POST", resource.path(), params={"dryRun": "All"}, body=encoded(resource, obj))
        except Invalid as error:
            return [f for f, _ in error.causes if f != "<nil>"]
        return []

    assert await fields(base) == []
    assert await fields({**base, "spec": {**base["spec"], **spec}}) == [field]


@pytest.mark.timeout(120)
async def test_the_crd_is_what_the_generator_makes_of_this_api_server(client):
    """tools/crdgen.py on the running server's OpenAPI gives the file that is committed."""
    root = Path(__file__).parents[3]
    openapi = await client.request("GET", "/openapi/v3/apis/apps/v1")
    argv = [sys.executable, root / "tools/crdgen.py"]
    made = await asyncio.to_thread(subprocess.run, argv, input=openapi, capture_output=True, check=True)
    assert made.stdout.decode() == (root / "operator/nodewright/crds/daemonsets.nodewright.dev.yaml").read_text()
