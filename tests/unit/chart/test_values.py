"""What values are refused, with what words; and that the descriptions, the schema and the defaults go together."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from nodewright.cli import cleanup
from nodewright_agent.config import AgentConfig
from nodewright_agent.configcheck import check
from support.chart import CHART, HELMS, ROOT, find, render, template

DEFAULTS = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA = json.loads((CHART / "values.schema.json").read_text())

BAD: list[tuple[dict[str, Any], str]] = [
    ({"typo": 1}, "'typo' not allowed"),
    ({"agent.nodeNameSufix": "-x"}, "'nodeNameSufix' not allowed"),
    ({"agent.config.evction_memory": "1Gi"}, "'evction_memory' not allowed"),
    ({"agent.config.crash_backoff_max": "long"}, "/agent/config/crash_backoff_max"),
    ({"agent.config.kubeconfig": "/x"}, "agent.config.kubeconfig: the chart lets the agent make its own identity"),
    ({"agent.config.port": 1}, "agent.config.port: has a value of its own, agent.port"),
    ({"agent.config.healthz_port": 1}, "agent.config.healthz_port: has a value of its own, agent.healthzPort"),
    ({"agent.config.healthz_bind_address": "::1"}, "agent.config.healthz_bind_address: the kubelet's probes ask at"),
    ({"agent.config.cluster_cidr": "10.0.0.0/8"}, "has a value of its own, agent.clusterCIDR"),
    ({"agent.config.node_name": "a"}, "agent.config.node_name: is different on every host"),
    ({"agent.nodeNameSuffix": ""}, "/agent/nodeNameSuffix"),
    ({"agent.nodeNameSuffix": "_x"}, "/agent/nodeNameSuffix"),
    ({"agent.port": 0}, "/agent/port"),
    ({"agent.port": 65536}, "/agent/port"),
    ({"agent.port": "10350"}, "/agent/port"),
    ({"agent.port": 10256}, "agent.port: is a port of the proxy on the same hosts"),
    ({"agent.healthzPort": 0}, "/agent/healthzPort"),
    ({"agent.healthzPort": 10249}, "agent.healthzPort: is a port of the proxy on the same hosts"),
    ({"agent.healthzPort": 10350}, "agent.port, agent.healthzPort: are the same"),
    ({"agent.clusterCIDR": "10.244.0.0"}, "/agent/clusterCIDR"),
    ({"agent.imageSources": ["docker"]}, "/agent/imageSources/0"),
    ({"agent.updateStrategy": {"type": "Recreate"}}, "/agent/updateStrategy/type"),
    ({"agent.updateStrategy.rollingUpdate.maxUnavailable": 0}, "/agent/updateStrategy/rollingUpdate/maxUnavailable"),
    ({"agent.tolerations": [{"operator": "exists"}]}, "/agent/tolerations/0/operator"),
    ({"agent.resources.limits.memory": "lots"}, "/agent/resources/limits/memory"),
    ({"agent.resources.limit": {}}, "'limit' not allowed"),
    ({"agent.extraArgs": ["verbose"]}, "/agent/extraArgs/0"),
    ({"proxy.enabled": False}, "proxy.enabled: agents need the proxy DaemonSet"),
    ({"agent.config.proxy_mode": "auto"}, "agent.config.proxy_mode: the proxy DaemonSet and the agents would both"),
    ({"proxy.mode": "userspace"}, "/proxy/mode"),
    ({"proxy.mode": "iptables"}, "/proxy/mode"),
    ({"proxy.serviceProxyName": "-x"}, "/proxy/serviceProxyName"),
    ({"proxy.healthzPort": 4000, "proxy.metricsPort": 4000}, "proxy.healthzPort, proxy.metricsPort: are the same"),
    ({"proxy.metricsBindAddress": "localhost"}, "/proxy/metricsBindAddress"),
    ({"operator.replicas": 0}, "/operator/replicas"),
    ({"operator.replicas": "two"}, "/operator/replicas"),
    ({"operator.controllers": []}, "/operator/controllers"),
    ({"operator.takeOver": ["apps/v2"]}, "/operator/takeOver/0"),
    ({"operator.takeOver": ["apps/v1"]}, "operator.takeOver: the proxy is an apps/v1 DaemonSet"),
    ({"scheduler.schedulerNames": ["A B"]}, "/scheduler/schedulerNames/0"),
    ({"scheduler.plugins": ["NodeName=x"]}, "/scheduler/plugins/0"),
    ({"scheduler.verbosity": 9}, "/scheduler/verbosity"),
    ({"webhook.failurePolicy": "ignore"}, "/webhook/failurePolicy"),
    ({"webhook.timeoutSeconds": 31}, "/webhook/timeoutSeconds"),
    ({"apiServer.endpoint": "http://192.0.2.1:6443"}, "/apiServer/endpoint"),
    ({"apiServer.endpoint": "192.0.2.1:6443"}, "/apiServer/endpoint"),
    ({"apiServer.endpoint": "https://192.0.2.1/api"}, "/apiServer/endpoint"),
    ({"apiServer.kubeletKubeconfig": "kubelet.conf"}, "/apiServer/kubeletKubeconfig"),
    ({"image.agent.tag": "a b"}, "/image/agent/tag"),
    ({"image.agent.digest": "sha256:12"}, "/image/agent/digest"),
    ({"image.agent.pullPolicy": "Sometimes"}, "/image/agent/pullPolicy"),
    ({"image.agent.repository": ""}, "/image/agent/repository"),
    ({"namespace.create": True}, 'namespace "nodewright-system" holds the release and exists already'),
    ({"namespace.name": "Capital"}, "/namespace/name"),
    ({"fullnameOverride": "Under_score"}, "/fullnameOverride"),
    ({"commonLabels": {"a": 1}}, "/commonLabels/a"),
    ({"crds.keep": "yes"}, "/crds/keep"),
    ({"cleanup.timeoutSeconds": 5}, "/cleanup/timeoutSeconds"),
    ({"monitoring.monitors.interval": "often"}, "/monitoring/monitors/interval"),
    ({"networkPolicy.metricsFrom": [{"pods": {}}]}, "'pods' not allowed"),
]


@pytest.mark.parametrize(
    ("values", "words"), BAD, ids=lambda value: json.dumps(value) if isinstance(value, dict) else ""
)
def test_bad_values_are_refused_in_words(values: dict[str, Any], words: str) -> None:
    result = template(values, check=False)
    assert result.returncode == 1
    assert words in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("name", HELMS)
def test_helm_3_and_4_refuse_alike(name: str) -> None:
    for values in ({"typo": 1}, {"agent.config.port": 1}):
        assert template(values, name=name, check=False).returncode == 1


def nodes(schema: Any) -> list[dict[str, Any]]:
    """Every part of the schema that is about an object with known keys."""
    found = []
    if isinstance(schema, dict):
        if "properties" in schema and isinstance(schema["properties"], dict):
            found.append(schema)
        for value in schema.values():
            found += nodes(value)
    return found


def test_the_schema_is_strict_everywhere() -> None:
    assert len(nodes(SCHEMA)) > 20
    assert all(node["additionalProperties"] is False for node in nodes(SCHEMA))


def test_the_schema_knows_exactly_the_values_that_there_are() -> None:
    def compare(schema: dict[str, Any], values: dict[str, Any], path: str) -> None:
        if "$ref" in schema or path == "agent.config":
            return
        if not isinstance(values, dict) or "properties" not in schema:
            assert "type" in schema or "enum" in schema, path
            return
        # `global` is what a parent chart may give to all of its children
        assert set(schema["properties"]) - {"global"} == set(values), path
        for key, value in values.items():
            compare(schema["properties"][key], value, f"{path}.{key}".lstrip("."))

    compare(SCHEMA, DEFAULTS, "")


def test_every_value_is_described() -> None:
    spec = importlib.util.spec_from_file_location("chart_docs", ROOT / "tools/chart/docs.py")
    assert spec
    assert spec.loader
    docs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(docs)
    source = (CHART / "values.yaml").read_text()
    assert docs.undescribed(source) == []
    rows = docs.table("# -- Of a\n# and more.\na: 1\nb:\n  # -- Of c | d.\n  c: [x]\n").splitlines()
    assert rows[2:] == ["| `a` | `1` | Of a and more. |", '| `b.c` | `["x"]` | Of c \\| d. |']
    with pytest.raises(ValueError, match=r"values\.yaml:2"):
        list(docs.described("# -- Lost\n\na: 1\n"))


def agent_config(values: dict[str, Any] | None = None) -> AgentConfig:
    """What the agent makes of the file that the chart writes."""
    data = find(render(values), "ConfigMap", "nodewright-agent")["data"]["agent.yaml"]
    return msgspec.convert(json.loads(data), AgentConfig)


def test_the_agent_takes_the_settings_that_the_chart_writes() -> None:
    config = agent_config({"agent.maxPods": 20, "agent.config.status_report_seconds": 1234567})
    config.node_name, config.host_node_name = "worker-nodewright", "worker"
    config.node_ip = config.bind_address = "192.0.2.9"
    config.image_root = config.log_dir = "/var/lib/nodewright/x"
    assert check(config) == []
    assert (config.max_pods, config.status_report_seconds, config.port) == (20, 1234567, 10350)
    assert (config.bootstrap, config.proxy_mode, config.node_address_type) == (True, "none", "ExternalIP")
    assert config.omit_node_labels == ["kubernetes.io/os", "beta.kubernetes.io/os"]


def test_the_clean_up_takes_the_same_settings(tmp_path: Path) -> None:
    """It knows neither the Node's name nor the host's."""
    path = tmp_path / "agent.yaml"
    path.write_text(find(render(), "ConfigMap", "nodewright-agent")["data"]["agent.yaml"])
    assert cleanup._settings(path).host_root == "/proc/1/root"


def test_settings_are_merged_not_replaced() -> None:
    labels = agent_config({"agent.config.node_labels": {"pool": "edge"}}).node_labels
    assert labels == {"nodewright.dev/agent": "true", "pool": "edge"}


def test_the_schema_knows_the_settings_of_the_agent() -> None:
    known = SCHEMA["properties"]["agent"]["properties"]["config"]["properties"]
    assert set(known) == set(AgentConfig.__struct_fields__)


@pytest.mark.parametrize(
    ("values", "healthz", "metrics"),
    [
        ({}, 10256, 10249),
        ({"proxy.serviceProxyName": "nodewright"}, 10356, 10349),
        ({"proxy.serviceProxyName": "nodewright", "proxy.healthzPort": 4000}, 4000, 10349),
    ],
)
def test_ports_of_the_proxy(values: dict[str, Any], healthz: int, metrics: int) -> None:
    (container,) = find(render(values), "DaemonSet", "nodewright-proxy")["spec"]["template"]["spec"]["containers"]
    assert f"--healthz-port={healthz}" in container["args"]
    assert f"--metrics-port={metrics}" in container["args"]
    assert [port["hostPort"] for port in container["ports"]] == [healthz, metrics]
    name = values.get("proxy.serviceProxyName")
    assert (f"--service-proxy-name={name}" in container["args"]) == bool(name)


@pytest.mark.parametrize(("values", "port"), [({}, 10348), ({"agent.healthzPort": 4000}, 4000)])
def test_the_agents_probes_ask_its_health_endpoint(values: dict[str, Any], port: int) -> None:
    config = agent_config(values)
    assert (config.healthz_bind_address, config.healthz_port) == ("127.0.0.1", port)
    assert port != 10248, "the kubelet's"
    spec = find(render(values), "DaemonSet", "nodewright-agent")["spec"]["template"]["spec"]
    assert spec["hostNetwork"], "else a probe would ask at the Pod's own 127.0.0.1, and in vain"
    (container,) = spec["containers"]
    (named,) = [one for one in container["ports"] if one["name"] == "healthz"]
    assert (named["containerPort"], named["hostPort"], named["hostIP"]) == (port, port, "127.0.0.1")
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"] == {"host": "127.0.0.1", "path": "/healthz", "port": "healthz"}


@pytest.mark.parametrize("endpoint", ["", "https://192.0.2.1:6443"])
def test_host_components_never_need_a_cluster_ip(endpoint: str) -> None:
    objects = render({"apiServer.endpoint": endpoint})
    for kind, name in (
        ("DaemonSet", "nodewright-agent"),
        ("DaemonSet", "nodewright-proxy"),
        ("Job", "nodewright-uninstall"),
    ):
        spec = find(objects, kind, name)["spec"]["template"]["spec"]
        (container,) = spec["containers"]
        env = {entry["name"]: entry.get("value") for entry in container["env"]}
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        if endpoint:
            assert env["NODEWRIGHT_API_SERVER"] == endpoint
            assert "NODEWRIGHT_API_SERVER_FROM" not in env
            assert "kubelet-kubeconfig" not in mounts
        else:
            assert "NODEWRIGHT_API_SERVER" not in env
            assert env["NODEWRIGHT_API_SERVER_FROM"] == mounts["kubelet-kubeconfig"]
    for name in ("operator", "scheduler"):
        (container,) = find(objects, "Deployment", f"nodewright-{name}")["spec"]["template"]["spec"]["containers"]
        env = {entry["name"]: entry.get("value") for entry in container["env"]}
        assert env.get("NODEWRIGHT_API_SERVER") == (endpoint or None)
        assert "NODEWRIGHT_API_SERVER_FROM" not in env
