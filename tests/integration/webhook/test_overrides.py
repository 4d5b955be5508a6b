"""Variants of a template that spec.nodeOverrides makes, tried on the real API server."""

import msgspec
import pytest

from nodewright.controllers.admission.daemonset import DaemonSetReviewer
from nodewright.framework.webhook.review import GroupVersionKind, Request
from nodewright.kube.client import Client
from nodewright.kube.config import load

pytestmark = pytest.mark.needs_cluster

PLACE = "spec.nodeOverrides[1].containers[0]"


def request(namespace, change):
    container = {"name": "c", "image": "i", "env": [{"name": "A", "value": "1"}]}
    overrides = [
        {"name": name, "nodeSelector": {"matchLabels": {"size": name}}, "containers": [{"name": "c", **fields}]}
        for name, fields in (("good", {"env": [{"name": "A", "value": "2"}]}), ("other", change))
    ]
    new = {
        "metadata": {"name": "x"},
        "spec": {
            "selector": {"matchLabels": {"app": "x"}},
            "template": {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [container]}},
            "nodeOverrides": overrides,
        },
    }
    kind = GroupVersionKind("nodewright.dev", "v1alpha1", "DaemonSet")
    return Request("u", kind, "CREATE", "x", namespace, *(msgspec.Raw(msgspec.json.encode(o)) for o in (new, None)))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param({"resources": {"requests": {"cpu": "1"}}}, [], id="good"),
        pytest.param(
            {"env": [{"name": "B", "valueFrom": {}}]},
            [f'{PLACE}.env[0].valueFrom: Invalid value: "": must specify one of: '],
            id="a variable from nowhere",
        ),
        pytest.param(
            {"resources": {"requests": {"no such": "1"}}},
            [f'{PLACE}.resources.requests[no such]: Invalid value: "no such": '],
            id="a resource without a name",
        ),
        pytest.param(
            {"resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}},
            [f'{PLACE}.resources.requests: Invalid value: "2": must be less than or equal to cpu limit of 1'],
            id="more asked for than allowed",
        ),
    ],
)
async def test_faults_are_told_where_the_override_has_them(cluster, namespace, change, expected):
    async with Client(load(cluster.kubeconfig)) as client:
        answer = await DaemonSetReviewer(client)(request(namespace, change))
    found = [str(cause) for cause in answer.causes]
    assert all(text.startswith(tuple(expected)) for text in found), found
    assert bool(found) is bool(expected)
    assert answer.warnings == ()
