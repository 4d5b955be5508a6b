"""What the chart makes: valid, labelled, upgradable, for every combination of switches, by Helm 3 and 4."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from typing import Any

import pytest
import yaml

from support.chart import CHART, HELMS, NAMESPACE, ROOT, find, helm, pod_specs, render, template

ALL_ON: dict[str, Any] = {
    "monitoring.monitors.enabled": True,
    "monitoring.prometheusRule.enabled": True,
    "monitoring.dashboards.enabled": True,
    "networkPolicy.enabled": True,
    "namespace.create": True,
    "namespace.name": "elsewhere",
    "image.pullSecrets": ["pull"],
    "apiServer.endpoint": "https://192.0.2.1:6443",
    "proxy.serviceProxyName": "nodewright",
    "commonLabels": {"team": "a"},
}
SWITCHES = (
    "operator.enabled",
    "webhook.enabled",
    "scheduler.enabled",
    "agent.enabled",
    "proxy.enabled",
    "cleanup.enabled",
    "rbac.create",
    "selftest.enabled",
    "crds.install",
)
CLUSTER_SCOPED = {
    "ClusterRole",
    "ClusterRoleBinding",
    "CustomResourceDefinition",
    "Namespace",
    "ValidatingWebhookConfiguration",
}
VALUE_FILES = sorted((CHART / "ci").glob("*.yaml"))


@pytest.mark.parametrize("name", HELMS)
@pytest.mark.parametrize("values", [None, *VALUE_FILES], ids=lambda path: path.name if path else "defaults")
def test_lint_is_content(name: str, values: Any) -> None:
    files = ["--values", str(values)] if values else []
    result = helm("lint", "--strict", str(CHART), *files, name=name, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "[WARNING]" not in result.stdout


def test_there_are_values_for_ci() -> None:
    assert {path.name for path in VALUE_FILES} >= {"stock-kind-values.yaml", "minimal-values.yaml"}


def test_helm_3_and_4_make_the_same() -> None:
    for values in ({}, ALL_ON):
        three, four = render(values, name="helm"), render(values, name="helm4")
        assert sorted(map(json.dumps, three)) == sorted(map(json.dumps, four))


@pytest.mark.parametrize("pair", list(itertools.combinations(SWITCHES, 2)), ids=lambda pair: "+".join(pair))
def test_any_two_switches_off_render(pair: tuple[str, str]) -> None:
    values = dict.fromkeys(pair, False)
    if "proxy.enabled" in pair and "agent.enabled" not in pair:
        values["agent.config"] = {"proxy_mode": "auto"}
    check(render(values), NAMESPACE)


def test_everything_on_renders() -> None:
    check(render(ALL_ON), "elsewhere")


def test_every_value_may_be_given_as_it_is() -> None:
    assert helm("template", "nodewright", str(CHART), "--kube-version", "1.36.0", "-f", str(CHART / "values.yaml"))


def check(objects: list[dict[str, Any]], namespace: str) -> None:
    """What holds for every set of objects that the chart can make."""
    seen = set()
    names = {(obj["kind"], obj["metadata"]["name"]) for obj in objects}
    for obj in objects:
        key = (obj["kind"], obj["metadata"].get("namespace"), obj["metadata"]["name"])
        assert key not in seen, f"{key} is there twice"
        seen.add(key)
        labels = obj["metadata"]["labels"]
        assert labels["app.kubernetes.io/managed-by"] == "Helm"
        assert labels["app.kubernetes.io/instance"] == "nodewright"
        for name, value in labels.items():
            assert re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?", value), f"{key}: {name}={value}"
        if obj["kind"] in CLUSTER_SCOPED:
            assert "namespace" not in obj["metadata"]
        elif obj["metadata"]["name"].endswith("-authentication-reader"):
            assert obj["metadata"]["namespace"] == "kube-system"
        else:
            assert obj["metadata"]["namespace"] == namespace, key
        if obj["kind"] in ("RoleBinding", "ClusterRoleBinding"):
            role = obj["roleRef"]["name"]
            upstream = role.startswith("system:") or role == "extension-apiserver-authentication-reader"
            assert upstream or (obj["roleRef"]["kind"], role) in names
            for subject in obj["subjects"]:
                assert subject["namespace"] == namespace
                assert ("ServiceAccount", subject["name"]) in names
    for where, spec in pod_specs(objects):
        account = spec.get("serviceAccountName")
        assert account is None or ("ServiceAccount", account) in names, where
        for volume in spec.get("volumes", ()):
            if "configMap" in volume:
                assert ("ConfigMap", volume["configMap"]["name"]) in names, where
        mounted = {
            m["name"] for c in spec["containers"] + spec.get("initContainers", []) for m in c.get("volumeMounts", ())
        }
        assert mounted == {volume["name"] for volume in spec.get("volumes", ())}, where


def test_selectors_are_those_of_every_release() -> None:
    """They are immutable: a change would make every upgrade fail. If this has to change, names have to change too."""
    objects = render({"commonLabels": {"team": "a"}, "agent.podLabels": {"x": "y"}})
    for kind, component in (
        ("Deployment", "operator"),
        ("Deployment", "scheduler"),
        ("DaemonSet", "agent"),
        ("DaemonSet", "proxy"),
    ):
        obj = find(objects, kind, f"nodewright-{component}")
        expected = {
            "app.kubernetes.io/name": "nodewright",
            "app.kubernetes.io/instance": "nodewright",
            "app.kubernetes.io/component": component,
        }
        assert obj["spec"]["selector"] == {"matchLabels": expected}
        assert expected.items() <= obj["spec"]["template"]["metadata"]["labels"].items()


def test_selectors_tell_the_components_apart() -> None:
    objects = render()
    selectors = [
        obj["spec"]["selector"]["matchLabels"] for obj in objects if obj["kind"] in ("Deployment", "DaemonSet")
    ]
    assert len({json.dumps(selector, sort_keys=True) for selector in selectors}) == len(selectors)
    for obj in objects:
        if obj["kind"] in ("Deployment", "DaemonSet", "Job"):
            labels = obj["spec"]["template"]["metadata"]["labels"]
            matching = [selector for selector in selectors if selector.items() <= labels.items()]
            assert len(matching) == (obj["kind"] != "Job")


@pytest.mark.parametrize(
    ("release", "values", "prefix"),
    [
        ("nodewright", {}, "nodewright"),
        ("my-nodewright", {}, "my-nodewright"),
        ("prod", {}, "prod-nodewright"),
        ("prod", {"nameOverride": "nw"}, "prod-nw"),
        ("prod", {"fullnameOverride": "short"}, "short"),
        ("r" * 53, {}, "r" * 40),
    ],
)
def test_names(release: str, values: dict[str, Any], prefix: str) -> None:
    objects = render(values, release=release)
    find(objects, "DaemonSet", f"{prefix}-agent")
    assert all(len(obj["metadata"]["name"]) <= 63 for obj in objects if obj["kind"] in ("Service", "Pod", "Job"))
    # what controllers add to make the names of Pods and the values of labels needs 11 characters
    assert all(len(obj["metadata"]["name"]) <= 52 for obj in objects if obj["kind"] in ("DaemonSet", "Deployment"))


@pytest.mark.parametrize(
    ("values", "operator", "agent"),
    [
        ({}, "nodewright/operator:{app}", "nodewright/agent:{app}"),
        ({"image.registry": "registry.example:5000"}, "registry.example:5000/nodewright/operator:{app}", None),
        ({"image.agent.tag": "v9"}, None, "nodewright/agent:v9"),
        (
            {"image.agent.tag": "v9", "image.agent.digest": "sha256:" + "0" * 64},
            None,
            "nodewright/agent@sha256:" + "0" * 64,
        ),
    ],
)
def test_images(values: dict[str, Any], operator: str | None, agent: str | None) -> None:
    app = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    objects = render(values)
    for wanted, parts in ((operator, ("operator", "scheduler")), (agent, ("agent", "proxy"))):
        for part in parts if wanted else ():
            kind = "Deployment" if part in ("operator", "scheduler") else "DaemonSet"
            spec = find(objects, kind, f"nodewright-{part}")["spec"]["template"]["spec"]
            assert spec["containers"][0]["image"] == wanted.format(app=app)


def test_versions_go_together() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    program = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert program
    assert chart["appVersion"] == program[1]
    images = yaml.safe_load(chart["annotations"]["artifacthub.io/images"])
    assert [image["image"] for image in images] == [f"nodewright/{n}:{program[1]}" for n in ("operator", "agent")]


def test_the_definitions_that_the_chart_announces_are_those_that_it_brings() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    announced = {crd["name"]: crd["kind"] for crd in yaml.safe_load(chart["annotations"]["artifacthub.io/crds"])}
    brought = {
        obj["metadata"]["name"]: obj["spec"]["names"]["kind"]
        for obj in render()
        if obj["kind"] == "CustomResourceDefinition"
    }
    assert announced == brought


def test_a_new_chart_restarts_only_what_it_changes() -> None:
    """No version in the labels of Pods: they are part of the template, whose change restarts everything."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    for obj in render():
        if obj["kind"] in ("Deployment", "DaemonSet"):
            metadata = obj["spec"]["template"]["metadata"]
            values = {*metadata["labels"].values(), *metadata.get("annotations", {}).values()}
            assert not any(chart["version"] in value for value in values)


def test_settings_of_the_agent_roll_its_pods_and_nothing_else_does() -> None:
    def checksum(values: dict[str, Any]) -> str:
        pod = find(render(values), "DaemonSet", "nodewright-agent")["spec"]["template"]
        return pod["metadata"]["annotations"]["checksum/config"]

    assert checksum({"agent.maxPods": 20}) != checksum({})
    assert checksum({"operator.replicas": 3}) == checksum({})


def test_definitions_can_be_left_out_and_are_kept_by_default() -> None:
    def definitions(values: dict[str, Any]) -> list[dict[str, Any]]:
        return [obj for obj in render(values) if obj["kind"] == "CustomResourceDefinition"]

    assert definitions({"crds.install": False}) == []
    assert len(definitions({})) == 3
    assert all(obj["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"} for obj in definitions({}))
    assert not any("annotations" in obj["metadata"] for obj in definitions({"crds.keep": False}))


def test_old_kubernetes_is_refused() -> None:
    result = template(kube_version="1.31.9", check=False)
    assert result.returncode
    assert "chart requires kubeVersion: >=1.32.0-0" in result.stderr
    assert template(kube_version="1.33.1-gke.100").returncode == 0


@pytest.mark.parametrize("tool", ["crds.py", "docs.py", "schema.py"])
def test_copies_are_up_to_date(tool: str) -> None:
    result = subprocess.run(
        [sys.executable, str(ROOT / "tools/chart" / tool), "--check"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_definitions_are_those_of_the_package() -> None:
    """The same by another way: what Helm makes of the templates is what the package holds, but for the metadata."""
    for obj in render():
        if obj["kind"] == "CustomResourceDefinition":
            source = ROOT / "operator/nodewright/crds" / f"{obj['metadata']['name']}.yaml"
            assert obj["spec"] == yaml.load(source.read_text(), Loader=yaml.CSafeLoader)["spec"]
