"""The policy that gives new Nodes startup taints: only where the API server has such policies, and as embedded."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from nodewright.controllers.daemonset.nodetaints import CONFIG_MAP
from nodewright.controlplane import manifests
from support.chart import HELMS, NAMESPACE, Object, template

POLICY, BINDING = "MutatingAdmissionPolicy", "MutatingAdmissionPolicyBinding"
HAS = (f"admissionregistration.k8s.io/v1/{POLICY}",)


def made(values: dict[str, Any] | None = None, api_versions: tuple[str, ...] = HAS, name: str = "helm") -> list[Object]:
    text = template(values, api_versions=api_versions, name=name).stdout
    return [obj for obj in yaml.load_all(text, Loader=yaml.CSafeLoader) if obj]


def of(objects: list[Object], kind: str) -> list[Object]:
    return [
        obj for obj in objects if obj["kind"] == kind and (kind != "ConfigMap" or obj["metadata"]["name"] == CONFIG_MAP)
    ]


@pytest.mark.parametrize("name", HELMS)
def test_it_is_the_embedded_one_with_the_releases_config_map(name: str) -> None:
    objects = made(name=name)
    (policy,), (binding,), (config,) = (of(objects, kind) for kind in (POLICY, BINDING, "ConfigMap"))
    embedded = {obj["kind"]: obj for obj in manifests.node_readiness()}
    assert policy["spec"] == embedded[POLICY]["spec"]
    assert binding["spec"]["policyName"] == policy["metadata"]["name"]
    assert binding["spec"]["paramRef"] == {**embedded[BINDING]["spec"]["paramRef"], "namespace": NAMESPACE}
    assert config["metadata"]["namespace"] == NAMESPACE
    assert "data" not in config, "the operator's"


@pytest.mark.parametrize(
    ("values", "api_versions"),
    [({}, ()), ({"nodeReadiness.policy.enabled": False}, HAS), ({"operator.enabled": False}, HAS)],
)
def test_where_it_cannot_be_or_is_not_wanted_it_is_not(values: dict[str, Any], api_versions: tuple[str, ...]) -> None:
    objects = made(values, api_versions)
    assert not of(objects, POLICY)
    assert not of(objects, BINDING)
    assert bool(of(objects, "ConfigMap")) == ("operator.enabled" not in values)


def test_the_embedded_binding_names_the_config_map_of_the_code() -> None:
    embedded = {obj["kind"]: obj for obj in manifests.node_readiness()}
    reference = embedded[BINDING]["spec"]["paramRef"]
    assert (reference["namespace"], reference["name"]) == ("kube-system", CONFIG_MAP)
    assert embedded["ConfigMap"]["metadata"] == {"namespace": "kube-system", "name": CONFIG_MAP}
