"""Uninstall and `helm test` hooks, the webhook, and the notes: that they fit what the code offers."""

from __future__ import annotations

import re
from typing import Any

import click
import typer
import yaml

from nodewright.cli import main as program
from nodewright.controllers import registry
from nodewright.controllers.admission.registry import path_of
from nodewright.kube.resources import DAEMONSETS, NODEAGENTCONFIGS, SCHEDULERPROFILES
from support.chart import CHART, NAMESPACE, Object, containers, find, pod_specs, render

KINDS = (DAEMONSETS, NODEAGENTCONFIGS, SCHEDULERPROFILES)
EVERY_ARGUMENT = {
    "agent.extraArgs": [],
    "agent.verbosity": 1,
    "operator.verbosity": 1,
    "scheduler.verbosity": 1,
    "scheduler.plugins": ["NodeName=3"],
    "proxy.verbosity": 1,
    "proxy.masqueradeAll": True,
    "proxy.serviceProxyName": "nodewright",
    "image.pullSecrets": ["a"],
}


def options_of(verb: str) -> dict[str, click.Option]:
    """The options that a verb takes, by every name."""
    command: Any = typer.main.get_command(program.build(verb))
    return {name: param for param in command.commands[verb].params for name in param.opts}


def test_every_argument_is_one_that_the_program_takes() -> None:
    seen = set()
    for values in ({}, EVERY_ARGUMENT):
        for where, spec in pod_specs(render(values)):
            for container in containers(spec):
                if container["command"][0] != "nodewright":
                    continue
                verb = container["command"][1]
                known = options_of(verb)
                for argument in container["args"]:
                    name, equals, value = argument.partition("=")
                    assert name in known, f"{where}: nodewright {verb} takes no {name}"
                    # Booleans and counts take no value, all others need one.
                    valueless = known[name].is_flag or known[name].count
                    assert bool(equals) != valueless, f"{where}: {argument}"
                    assert not equals or value, f"{where}: {argument}"
                seen.add(verb)
    assert seen == {"operator", "scheduler", "agent", "proxy", "cleanup", "uninstall", "selftest"}


def test_the_default_controllers_exist() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert registry.select(values["operator"]["controllers"])


def hooks(event: str) -> list[Object]:
    """Objects of a hook in the order in which Helm makes them."""
    found = [obj for obj in render() if obj["metadata"].get("annotations", {}).get("helm.sh/hook") == event]
    return sorted(found, key=lambda obj: int(obj["metadata"]["annotations"].get("helm.sh/hook-weight", "0")))


def test_uninstall_brings_its_own_rights_first_and_takes_them_along() -> None:
    made = hooks("pre-delete")
    kinds = [obj["kind"] for obj in made]
    assert {"ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"} == set(kinds[:-2])
    assert kinds[-2:] == ["DaemonSet", "Job"]
    for obj in made:
        policy = obj["metadata"]["annotations"]["helm.sh/hook-delete-policy"]
        assert policy == "before-hook-creation,hook-succeeded"


def test_helm_test_can_show_logs() -> None:
    """`helm test --logs` takes every test hook for a Pod, and wants it to be there still."""
    (pod,) = hooks("test")
    assert pod["kind"] == "Pod"
    assert pod["metadata"]["annotations"]["helm.sh/hook-delete-policy"] == "before-hook-creation"
    assert find(render(), "ServiceAccount", pod["spec"]["serviceAccountName"])["automountServiceAccountToken"] is False
    (container,) = pod["spec"]["containers"]
    assert f"--name={pod['metadata']['name']}" not in container["args"], "the test deletes the Pod of that name"


def test_helm_test_is_there_when_all_that_it_tests_is() -> None:
    for switch in ("selftest.enabled", "operator.enabled", "scheduler.enabled"):
        objects = render({switch: False})
        assert not [obj for obj in objects if "selftest" in obj["metadata"]["name"]]


def test_uninstall_names_the_objects_that_there_are() -> None:
    objects = render()
    (container,) = find(objects, "Job", "nodewright-uninstall")["spec"]["template"]["spec"]["containers"]
    named = [arg.partition("=")[2] for arg in container["args"] if "daemonset=" in arg]
    assert named == ["nodewright-agent", "nodewright-proxy", "nodewright-cleanup"]
    for name in named:
        find(objects, "DaemonSet", name)


def test_clean_up_can_reach_what_an_agent_and_a_proxy_make() -> None:
    objects = render()

    def host_paths(name: str) -> set[str]:
        spec = find(objects, "DaemonSet", f"nodewright-{name}")["spec"]["template"]["spec"]
        return {volume["hostPath"]["path"] for volume in spec["volumes"] if "hostPath" in volume}

    only_read = {"/lib/modules", "/etc/kubernetes/kubelet.conf"}
    assert host_paths("agent") | host_paths("proxy") == host_paths("cleanup") | only_read
    cleanup = find(objects, "DaemonSet", "nodewright-cleanup")["spec"]["template"]["spec"]
    agent = find(objects, "DaemonSet", "nodewright-agent")["spec"]["template"]["spec"]
    assert (cleanup["hostNetwork"], cleanup["hostPID"]) == (agent["hostNetwork"], agent["hostPID"])
    assert cleanup["tolerations"] == [{"operator": "Exists"}]
    assert cleanup["nodeSelector"] == {"kubernetes.io/os": "linux"}


def test_no_clean_up_where_nothing_is_on_hosts_or_it_is_not_wanted() -> None:
    for values in ({"cleanup.enabled": False}, {"agent.enabled": False, "proxy.enabled": False}):
        assert not [obj for obj in render(values) if "cleanup" in obj["metadata"]["name"]]


def test_the_job_ends_before_the_clean_up_is_told_to() -> None:
    objects = render({"cleanup.timeoutSeconds": 100})
    job = find(objects, "Job", "nodewright-uninstall")["spec"]
    (container,) = job["template"]["spec"]["containers"]
    assert "--timeout=100" in container["args"]
    assert job["activeDeadlineSeconds"] > 100


def test_the_webhook_asks_for_what_the_operator_serves() -> None:
    configuration = find(render(), "ValidatingWebhookConfiguration", "nodewright")
    definitions = {
        obj["metadata"]["name"]: obj["spec"] for obj in render() if obj["kind"] == "CustomResourceDefinition"
    }
    assert len(configuration["webhooks"]) == len(definitions)
    for webhook in configuration["webhooks"]:
        spec = definitions[webhook["name"]]
        (rule,) = webhook["rules"]
        assert rule["resources"] == [spec["names"]["plural"]]
        assert rule["scope"] == spec["scope"]
        assert rule["apiVersions"] == [version["name"] for version in spec["versions"]]
        service = webhook["clientConfig"]["service"]
        served = {path_of(kind) for kind in KINDS if kind.plural == spec["names"]["plural"]}
        assert {service["path"]} == served
        found = find(render(), "Service", service["name"])
        assert service["namespace"] == NAMESPACE
        assert service["port"] in [port["port"] for port in found["spec"]["ports"]]
        # What a chart does not name, an upgrade leaves alone: the operator's certificate authority.
        assert "caBundle" not in webhook["clientConfig"]
        assert webhook["failurePolicy"] == "Ignore"


def test_the_webhook_can_be_left_out() -> None:
    objects = render({"webhook.enabled": False})
    assert "ValidatingWebhookConfiguration" not in {obj["kind"] for obj in objects}
    (container,) = find(objects, "Deployment", "nodewright-operator")["spec"]["template"]["spec"]["containers"]
    assert not any("webhook" in arg for arg in container["args"])
    assert not any("secrets" in rule["resources"] for obj in objects if obj["kind"] == "Role" for rule in obj["rules"])


def test_notes_name_objects_that_exist() -> None:
    text = (CHART / "templates/NOTES.txt").read_text()
    for kind, component in re.findall(r"logs (deployment|daemonset)/\{\{ \$fullname \}\}-(\w+)", text):
        find(render(), {"deployment": "Deployment", "daemonset": "DaemonSet"}[kind], f"nodewright-{component}")
    assert "helm test {{ .Release.Name }} -n {{ .Release.Namespace }}" in text
    assert "pod-security.kubernetes.io/enforce=privileged" in text


def test_network_policy_lets_in_who_needs_it() -> None:
    objects = render({"networkPolicy.enabled": True})
    operator = find(objects, "NetworkPolicy", "nodewright-operator")["spec"]
    metrics, webhook = operator["ingress"]
    assert metrics["from"] == [{"namespaceSelector": {}}]
    assert "from" not in webhook, "the API server has no Pod and no label"
    assert webhook["ports"] == [{"port": "webhook", "protocol": "TCP"}]
    peers = [{"namespaceSelector": {"matchLabels": {"a": "b"}}}]
    objects = render({"networkPolicy.enabled": True, "networkPolicy.metricsFrom": peers})
    assert find(objects, "NetworkPolicy", "nodewright-scheduler")["spec"]["ingress"][0]["from"] == peers
