"""Monitors, alerts and dashboards: that what they ask for exists."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from prometheus_client import REGISTRY, CollectorRegistry

from nodewright.framework import metrics as framework
from nodewright.framework.webhook import metrics as webhook
from nodewright.kube import metrics as kube
from nodewright.scheduler import metrics as scheduler
from nodewright_agent.proxy.metrics import ProxyMetrics, TrafficCollector
from support.chart import CHART, find, render

ON = {
    "monitoring.monitors.enabled": True,
    "monitoring.monitors.labels": {"release": "prometheus"},
    "monitoring.prometheusRule.enabled": True,
    "monitoring.prometheusRule.labels": {"release": "prometheus"},
    "monitoring.dashboards.enabled": True,
}
DASHBOARDS = sorted((CHART / "dashboards").glob("*.json"))
_SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count"), "info": ("_info",)}
_NO_METRIC = re.compile(r"^(by|sum|rate|increase|max|topk|vector|or|le|histogram_quantile|up)$")


def names(registry: CollectorRegistry) -> set[str]:
    """Every series name that a registry gives."""
    return {
        family.name.removesuffix("_total") + suffix
        for family in registry.collect()
        for suffix in _SUFFIXES.get(family.type, ("",))
    }


def of_modules(*modules: Any) -> set[str]:
    """What the collectors in these modules are called, of all that this process has registered."""
    own = {getattr(value, "_name", None) for module in modules for value in vars(module).values()}
    wanted = {
        name
        for name in names(REGISTRY)
        if any(base and name in {base + suffix for s in _SUFFIXES.values() for suffix in s} for base in own)
    }
    return wanted | {name for name in names(REGISTRY) if name.startswith("process_")}


@pytest.fixture(scope="module")
def known() -> dict[str, set[str]]:
    proxy = ProxyMetrics()
    proxy.registry.register(TrafficCollector(lambda: [("default/web:http", "10.0.0.1:80", 1, 1)]))
    return {
        "operator": of_modules(framework, webhook, kube),
        "scheduler": of_modules(framework, scheduler, kube),
        "agent": of_modules(kube),
        "proxy": names(proxy.registry),
    }


def asked(expression: str) -> Iterator[tuple[str, str]]:
    """(metric, component) of a query; the component is told by its label job."""
    for name, selector in re.findall(r"([a-z_]+)\{([^}]*)\}", expression):
        job = re.search(r'job="(?:\$|nodewright-)(\w+)"', selector)
        assert job, f"{name} is asked for without a job: kube-scheduler has metrics of the same names"
        yield name, job[1]


def check(expressions: Iterable[str], known: dict[str, set[str]]) -> int:
    count = 0
    for expression in expressions:
        for name, component in asked(expression):
            assert name == "up" or name in known[component], f"{component} has no {name}"
            count += 1
    return count


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.name)
def test_dashboards_show_what_exists(path: Any, known: dict[str, set[str]]) -> None:
    board = json.loads(path.read_text())
    assert board["uid"] == f"nodewright-{path.stem}"
    variables = {variable["name"] for variable in board["templating"]["list"]}
    for panel in board["panels"]:
        assert panel["description"], panel["title"]
        expressions = [target["expr"] for target in panel["targets"]]
        assert check(expressions, known) >= 1
        assert {job for expression in expressions for _, job in asked(expression)} <= variables
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in board["panels"]]
    assert len(set(places)) == len(places)


def test_variables_of_dashboards_ask_for_what_exists(known: dict[str, set[str]]) -> None:
    for path in DASHBOARDS:
        for variable in json.loads(path.read_text())["templating"]["list"]:
            if variable["type"] == "query":
                metric = re.match(r"label_values\(([a-z_]+)", variable["query"]["query"])
                assert metric
                assert metric[1] in known[variable["name"]]


def test_alerts_ask_for_what_exists(known: dict[str, set[str]]) -> None:
    (group,) = find(render(ON), "PrometheusRule", "nodewright")["spec"]["groups"]
    names_of_alerts = [rule["alert"] for rule in group["rules"]]
    assert len(set(names_of_alerts)) == len(names_of_alerts) >= 8
    assert check((rule["expr"] for rule in group["rules"]), known) >= len(group["rules"])
    for rule in group["rules"]:
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        assert {"summary", "description"} == rule["annotations"].keys()
        for text in rule["annotations"].values():
            # what Prometheus is to fill in has come through Helm
            assert text.count("{{") == text.count("}}")
            assert not re.search(r"\$(labels|value)\b(?![^{]*\}\})", text)


def test_the_check_of_metrics_can_fail(known: dict[str, set[str]]) -> None:
    with pytest.raises(AssertionError, match="scheduler has no scheduler_pending_podz"):
        check(['scheduler_pending_podz{job="$scheduler"}'], known)
    with pytest.raises(AssertionError, match="without a job"):
        check(['scheduler_pending_pods{queue="active"}'], known)
    with pytest.raises(AssertionError, match="agent has no scheduler_pending_pods"):
        check(['scheduler_pending_pods{job="$agent"}'], known)


def test_the_queue_of_the_alert_is_one_of_the_schedulers() -> None:
    from typing import get_args

    from nodewright.scheduler.queue import Place

    (group,) = find(render(ON), "PrometheusRule", "nodewright")["spec"]["groups"]
    queues = re.findall(r'queue="(\w+)"', " ".join(rule["expr"] for rule in group["rules"]))
    assert queues
    assert set(queues) <= set(get_args(Place))


def test_monitors_find_ports_and_labels() -> None:
    objects = render(ON)
    for component in ("operator", "scheduler", "proxy"):
        monitor = find(objects, "PodMonitor", f"nodewright-{component}")
        assert monitor["metadata"]["labels"]["release"] == "prometheus"
        kind = "DaemonSet" if component == "proxy" else "Deployment"
        pod = find(objects, kind, f"nodewright-{component}")["spec"]["template"]
        assert monitor["spec"]["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
        (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
        (container,) = pod["spec"]["containers"]
        assert endpoint["port"] in {port["name"] for port in container["ports"]}
        assert {"targetLabel": "job", "replacement": f"nodewright-{component}"} in endpoint["relabelings"]
    monitor, service = (find(objects, kind, "nodewright-agent") for kind in ("ServiceMonitor", "Service"))
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert monitor["spec"]["endpoints"][0]["port"] == service["spec"]["ports"][0]["name"]


def test_the_proxy_shows_its_metrics_to_others_only_when_they_are_to_be_scraped() -> None:
    def address(values: dict[str, Any]) -> str:
        (container,) = find(render(values), "DaemonSet", "nodewright-proxy")["spec"]["template"]["spec"]["containers"]
        (found,) = (arg for arg in container["args"] if arg.startswith("--metrics-bind-address="))
        return str(found.partition("=")[2])

    assert address({}) == "127.0.0.1"
    assert address(ON) == "$(HOST_IP)"
    assert address({**ON, "proxy.metricsBindAddress": "192.0.2.1"}) == "192.0.2.1"


def test_dashboards_come_as_config_maps() -> None:
    objects = [obj for obj in render(ON) if obj["metadata"]["labels"].get("grafana_dashboard") == "1"]
    assert len(objects) == len(DASHBOARDS) == 3
    for obj in objects:
        ((name, text),) = obj["data"].items()
        assert json.loads(text) == json.loads((CHART / "dashboards" / name).read_text())


def test_nothing_of_it_by_default() -> None:
    assert not {obj["kind"] for obj in render()} & {"PodMonitor", "ServiceMonitor", "PrometheusRule"}
    assert not any("grafana_dashboard" in obj["metadata"]["labels"] for obj in render())
