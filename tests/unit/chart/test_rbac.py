"""Least privilege: no wildcards, and each verb on each resource has its place in the code, which is looked up."""

from __future__ import annotations

import re
from typing import Any

import pytest

from nodewright.controllers.daemonset.nodetaints import CONFIG_MAP
from support.chart import ROOT, render

CP = "operator/nodewright"
NA = "nodeagent/nodewright_agent"
WATCH = ("list", "watch")  # what kube/cache.py does for a WatchCache

# (role, group, resource, resourceNames) -> verb -> (file, what stands there)
Use = tuple[str, str]
USES: dict[tuple[str, str, str], dict[str, Use]] = {
    ("operator", "nodewright.dev", "daemonsets"): {
        "get": (f"{CP}/controllers/daemonset/ownership.py", r"client\.get\(\s*self\._kind\.resource"),
        **dict.fromkeys(
            WATCH, (f"{CP}/controllers/daemonset/caches.py", r"WatchCache\(\s*self\._client,\s*kind\.resource")
        ),
    },
    ("operator", "nodewright.dev", "daemonsets/status"): {
        "patch": (
            f"{CP}/controllers/daemonset/controller.py",
            r"patch\(\s*self\.kind\.resource.*subresource=\"status\"",
        )
    },
    ("operator", "nodewright.dev", "daemonsets/finalizers"): {
        "update": (f"{CP}/controllers/daemonset/revisions.py", r"\"blockOwnerDeletion\": True")
    },
    ("operator", "nodewright.dev", "nodeagentconfigs"): dict.fromkeys(
        WATCH, (f"{CP}/controllers/configs/controller.py", r"kopf\.on\.")
    ),
    ("operator", "nodewright.dev", "nodeagentconfigs/status"): {
        "patch": (f"{CP}/controllers/configs/controller.py", r"patch\(.*subresource=\"status\"")
    },
    ("operator", "nodewright.dev", "schedulerprofiles"): {
        "list": (f"{CP}/controllers/admission/schedulerprofile.py", r"client\.list\(SCHEDULERPROFILES")
    },
    ("operator", "apps", "controllerrevisions"): {
        "get": (f"{CP}/controllers/daemonset/history.py", r"client\.get\(CONTROLLERREVISIONS"),
        **dict.fromkeys(
            WATCH, (f"{CP}/controllers/daemonset/caches.py", r"WatchCache\(\s*client, CONTROLLERREVISIONS")
        ),
        "create": (f"{CP}/controllers/daemonset/history.py", r"client\.create\(CONTROLLERREVISIONS"),
        "delete": (f"{CP}/controllers/daemonset/history.py", r"client\.delete\(CONTROLLERREVISIONS"),
        "patch": (f"{CP}/controllers/daemonset/history.py", r"client\.patch\(CONTROLLERREVISIONS"),
    },
    ("operator", "", "pods"): {
        **dict.fromkeys(WATCH, (f"{CP}/controllers/daemonset/caches.py", r"WatchCache\(\s*client, PODS")),
        "create": (f"{CP}/controllers/daemonset/actions.py", r"_writer\.create\(PODS"),
        "delete": (f"{CP}/controllers/daemonset/actions.py", r"_writer\.delete\(PODS"),
        "patch": (f"{CP}/controllers/daemonset/history.py", r"client\.patch\(\s*PODS"),
    },
    ("operator", "", "nodes"): {
        **dict.fromkeys(WATCH, (f"{CP}/controllers/daemonset/caches.py", r"WatchCache\(client, NODES")),
        "patch": (f"{CP}/controllers/daemonset/nodetaints.py", r"client\.patch\(NODES"),
    },
    ("operator", "", "configmaps"): {
        **dict.fromkeys(WATCH, (f"{CP}/controllers/daemonset/nodetaints.py", r"self\.watch\(\s*CONFIGMAPS")),
        "patch": (f"{CP}/controllers/daemonset/nodetaints.py", r"client\.patch\(CONFIGMAPS"),
    },
    ("operator", "", "events"): dict.fromkeys(
        ("create", "patch"), (f"{CP}/framework/controller.py", r"EventRecorder\((?!.*series_api)")
    ),
    ("operator", "apiextensions.k8s.io", "customresourcedefinitions"): dict.fromkeys(
        WATCH, (f"{CP}/framework/definitions.py", r"WatchCache\(self\._client, CRDS")
    ),
    ("operator", "admissionregistration.k8s.io", "validatingwebhookconfigurations"): {
        **dict.fromkeys(WATCH, (f"{CP}/framework/webhook/keeper.py", r"WatchCache\(\s*client,\s*VALIDATINGWEBHOOK")),
        "patch": (f"{CP}/framework/webhook/keeper.py", r"client\.patch\(\s*VALIDATINGWEBHOOK"),
    },
    ("operator", "", "secrets"): {
        "create": (f"{CP}/framework/webhook/keeper.py", r"client\.create\(SECRETS"),
        **dict.fromkeys(WATCH, (f"{CP}/framework/webhook/keeper.py", r"WatchCache\(\s*client,\s*SECRETS")),
        "patch": (f"{CP}/framework/webhook/keeper.py", r"client\.patch\(SECRETS"),
    },
    ("operator", "coordination.k8s.io", "leases"): {
        "get": (f"{CP}/framework/leader.py", r"client\.get\(LEASES"),
        "create": (f"{CP}/framework/leader.py", r"client\.create\(LEASES"),
        "update": (f"{CP}/framework/leader.py", r"client\.replace\(LEASES"),
    },
    ("scheduler", "coordination.k8s.io", "leases"): {
        "get": (f"{CP}/framework/leader.py", r"client\.get\(LEASES"),
        "create": (f"{CP}/framework/leader.py", r"client\.create\(LEASES"),
        "update": (f"{CP}/framework/leader.py", r"client\.replace\(LEASES"),
    },
    ("scheduler", "", "pods"): {
        **dict.fromkeys(WATCH, (f"{CP}/scheduler/service.py", r"WatchCache\(client, PODS")),
        "get": (f"{CP}/scheduler/binder.py", r"client\.get\(PODS"),
        "delete": (f"{CP}/scheduler/preemption/evictor.py", r"client\.delete\(PODS"),
    },
    **{
        ("scheduler", group, plural): dict.fromkeys(WATCH, (f"{CP}/scheduler/{file}.py", constant))
        for group, plural, file, constant in (
            ("", "namespaces", "surroundings", r"_cache\(NAMESPACES"),
            ("", "services", "surroundings", r"_cache\(SERVICES"),
            ("", "replicationcontrollers", "surroundings", r"OWNERS = .*REPLICATIONCONTROLLERS"),
            ("apps", "replicasets", "surroundings", r"OWNERS = .*APPS_REPLICASETS"),
            ("apps", "statefulsets", "surroundings", r"OWNERS = .*APPS_STATEFULSETS"),
            ("policy", "poddisruptionbudgets", "surroundings", r"_cache\(PODDISRUPTIONBUDGETS"),
            ("storage.k8s.io", "storageclasses", "storage_watch", r"_cache\(STORAGECLASSES"),
            ("storage.k8s.io", "csinodes", "storage_watch", r"_cache\(CSINODES"),
            ("storage.k8s.io", "csidrivers", "storage_watch", r"_cache\(CSIDRIVERS"),
            ("storage.k8s.io", "csistoragecapacities", "storage_watch", r"_cache\(CSISTORAGECAPACITIES"),
            ("storage.k8s.io", "volumeattachments", "storage_watch", r"_cache\(VOLUMEATTACHMENTS"),
        )
    },
    **{
        ("scheduler", "", plural): {
            **dict.fromkeys(WATCH, (f"{CP}/scheduler/storage_watch.py", rf"_cache\({constant}")),
            "patch": (f"{CP}/scheduler/plugins/volume_prebind.py", rf"client\.patch\({constant}"),
        }
        for plural, constant in (
            ("persistentvolumes", "PERSISTENTVOLUMES"),
            ("persistentvolumeclaims", "PERSISTENTVOLUMECLAIMS"),
        )
    },
    ("scheduler", "", "nodes"): dict.fromkeys(WATCH, (f"{CP}/scheduler/service.py", r"WatchCache\(client, NODES")),
    ("scheduler", "", "pods/binding"): {"create": (f"{CP}/scheduler/binder.py", r"/binding|\"binding\"")},
    ("scheduler", "", "pods/status"): {
        "patch": (f"{CP}/scheduler/conditions.py", r"client\.patch\(\s*PODS.*subresource=\"status\"")
    },
    ("scheduler", "events.k8s.io", "events"): {
        "create": (f"{CP}/scheduler/announcer.py", r"/apis/events\.k8s\.io/v1/"),
        "patch": (f"{CP}/scheduler/warnings.py", r"EventRecorder\(.*series_api=True"),
    },
    ("scheduler", "nodewright.dev", "schedulerprofiles"): dict.fromkeys(
        WATCH, (f"{CP}/scheduler/profiles.py", r"WatchCache\[.*\n?.*SCHEDULERPROFILES")
    ),
    ("scheduler", "nodewright.dev", "schedulerprofiles/status"): {
        "patch": (f"{CP}/scheduler/profiles.py", r"patch\(\s*SCHEDULERPROFILES.*subresource=\"status\"")
    },
    ("agent", "", "nodes"): {
        "get": (f"{NA}/node/registration.py", r"cluster\.get\(NODES"),
        **dict.fromkeys(WATCH, (f"{NA}/node/networking.py", r"WatchCache\(\s*client,\s*NODES")),
    },
    ("agent", "", "services"): dict.fromkeys(WATCH, (f"{NA}/main.py", r"WatchCache\(clients\.cluster, SERVICES")),
    ("agent", "discovery.k8s.io", "endpointslices"): dict.fromkeys(
        WATCH, (f"{NA}/proxy/proxy.py", r"WatchCache\(\s*client,\s*ENDPOINTSLICES")
    ),
    ("agent", "nodewright.dev", "nodeagentconfigs"): dict.fromkeys(
        WATCH, (f"{NA}/liveconfig/watcher.py", r"WatchCache\(client, NODEAGENTCONFIGS")
    ),
    ("agent", "nodewright.dev", "nodeagentconfigs/status"): {
        "patch": (f"{NA}/liveconfig/reporter.py", r"apply\(\s*NODEAGENTCONFIGS.*subresource=\"status\"")
    },
    ("proxy", "", "nodes"): dict.fromkeys(WATCH, (f"{NA}/proxy/proxy.py", r"WatchCache\(\s*client,\s*NODES")),
    ("proxy", "", "services"): dict.fromkeys(WATCH, (f"{NA}/proxy/proxy.py", r"WatchCache\(\s*client,\s*SERVICES")),
    ("proxy", "discovery.k8s.io", "endpointslices"): dict.fromkeys(
        WATCH, (f"{NA}/proxy/proxy.py", r"WatchCache\(\s*client,\s*ENDPOINTSLICES")
    ),
    ("proxy", "nodewright.dev", "nodeagentconfigs"): dict.fromkeys(
        WATCH, (f"{NA}/liveconfig/watcher.py", r"WatchCache\(client, NODEAGENTCONFIGS")
    ),
    ("proxy", "nodewright.dev", "nodeagentconfigs/status"): {
        "patch": (f"{NA}/liveconfig/reporter.py", r"apply\(\s*NODEAGENTCONFIGS.*subresource=\"status\"")
    },
    ("proxy", "", "events"): dict.fromkeys(
        ("create", "patch"), (f"{CP}/cli/proxy.py", r"EventRecorder\((?!.*series_api)")
    ),
    ("cleanup", "", "nodes"): {
        "list": (f"{CP}/cli/uninstalling.py", r"client\.list\(NODES"),
        "patch": (f"{CP}/cli/uninstalling.py", r"client\.patch\(NODES"),
        "delete": (f"{CP}/cli/uninstalling.py", r"client\.delete\(NODES"),
    },
    ("cleanup", "", "pods"): {
        **dict.fromkeys(WATCH, (f"{CP}/cli/uninstalling.py", r"_followed\(PODS")),
        "delete": (f"{CP}/cli/uninstalling.py", r"client\.delete\(PODS"),
    },
    ("cleanup", "apps", "daemonsets"): {
        **dict.fromkeys(WATCH, (f"{CP}/cli/uninstalling.py", r"_followed\(APPS_DAEMONSETS")),
        "delete": (f"{CP}/cli/uninstalling.py", r"client\.delete\(APPS_DAEMONSETS"),
    },
    ("selftest", "", "pods"): {
        **dict.fromkeys(WATCH, (f"{CP}/cli/selftest.py", r"client\.list\(PODS")),
        "create": (f"{CP}/cli/selftest.py", r"client\.create\(PODS"),
        "delete": (f"{CP}/cli/selftest.py", r"\(SERVICES, DAEMONSETS, PODS\)"),
    },
    ("selftest", "", "services"): {
        "create": (f"{CP}/cli/selftest.py", r"client\.create\(SERVICES"),
        "delete": (f"{CP}/cli/selftest.py", r"\(SERVICES, DAEMONSETS, PODS\)"),
    },
    ("selftest", "nodewright.dev", "daemonsets"): {
        **dict.fromkeys(WATCH, (f"{CP}/cli/selftest.py", r"_until\(DAEMONSETS")),
        "create": (f"{CP}/cli/selftest.py", r"client\.create\(DAEMONSETS"),
        "delete": (f"{CP}/cli/selftest.py", r"\(SERVICES, DAEMONSETS, PODS\)"),
    },
}
# The same lines serve apps/v1, where that is taken over.
USES |= {
    ("operator", "apps", resource): USES["operator", "nodewright.dev", resource]
    for resource in ("daemonsets", "daemonsets/status", "daemonsets/finalizers")
}
UPSTREAM = {
    "system:node-bootstrapper": (f"{NA}/bootstrap/request.py", r"client\.create\(CSRS"),
    "system:certificates.k8s.io:certificatesigningrequests:nodeclient": (f"{NA}/bootstrap/csr.py", r"system:nodes"),
    "extension-apiserver-authentication-reader": (
        f"{NA}/bootstrap/authority.py",
        r"extension-apiserver-authentication",
    ),
}
# With a proxy inside of each agent, the agent has its rules too.
OBJECTS = [
    *render(),
    *render({"proxy.enabled": False, "agent.config": {"proxy_mode": "auto"}}),
    *render({"operator.takeOver": ["apps/v1"], "apiServer.endpoint": "https://192.0.2.1:6443"}),
]
ROLES = [obj for obj in OBJECTS if obj["kind"] in ("Role", "ClusterRole")]


def granted() -> dict[tuple[str, str, str], set[str]]:
    """(component, group, resource) -> verbs, over all roles."""
    found: dict[tuple[str, str, str], set[str]] = {}
    for role in ROLES:
        component = role["metadata"]["name"].removeprefix("nodewright-")
        for rule in role["rules"]:
            for group in rule["apiGroups"]:
                for resource in rule["resources"]:
                    found.setdefault((component, group, resource), set()).update(rule["verbs"])
    return found


def test_no_wildcards_and_nothing_that_gives_more() -> None:
    for role in ROLES:
        for rule in role["rules"]:
            assert rule.keys() <= {"apiGroups", "resources", "verbs", "resourceNames"}
            for values in rule.values():
                assert not any("*" in value for value in values), role["metadata"]["name"]
            assert not {"escalate", "bind", "impersonate", "deletecollection"} & set(rule["verbs"])
            assert not {"nodes/proxy", "pods/exec", "serviceaccounts/token"} & set(rule["resources"])


def test_secrets_are_granted_by_name_in_one_namespace() -> None:
    for role in ROLES:
        for rule in role["rules"]:
            if "secrets" in rule["resources"]:
                assert role["kind"] == "Role"
                assert rule["verbs"] == ["create"] or rule["resourceNames"] == ["nodewright-webhook-tls"]


def test_configmaps_are_granted_by_name_in_one_namespace() -> None:
    for role in ROLES:
        for rule in role["rules"]:
            if "configmaps" in rule["resources"]:
                assert role["kind"] == "Role"
                assert rule["resourceNames"] == [CONFIG_MAP]


def test_leases_are_changed_by_name() -> None:
    for role in ROLES:
        for rule in role["rules"]:
            if "leases" in rule["resources"]:
                assert role["kind"] == "Role"
                assert rule["verbs"] == ["create"] or rule["resourceNames"] == [role["metadata"]["name"]]


def test_the_names_of_the_leases_are_those_of_the_code() -> None:
    operator = (ROOT / CP / "framework/process.py").read_text()
    assert 'lease_name: str = "nodewright-operator"' in operator
    scheduler = (ROOT / CP / "scheduler/process.py").read_text()
    assert re.search(r'LEASE_NAME = "nodewright-scheduler"|lease_name: str = "nodewright-scheduler"', scheduler)


def test_the_operator_is_told_what_to_take_over() -> None:
    def arguments(objects: list[Any]) -> list[str]:
        (found,) = (obj for obj in objects if obj["kind"] == "Deployment" and "operator" in obj["metadata"]["name"])
        return [a for a in found["spec"]["template"]["spec"]["containers"][0]["args"] if "take-over" in a]

    assert arguments(render()) == []
    both = {"operator.takeOver": ["apps/v1"], "apiServer.endpoint": "https://192.0.2.1:6443"}
    assert arguments(render(both)) == ["--take-over=apps/v1"]


def test_daemonsets_of_apps_are_granted_only_where_they_are_taken_over() -> None:
    (role,) = (obj for obj in render() if obj["kind"] == "ClusterRole" and obj["metadata"]["name"].endswith("operator"))
    assert not [rule for rule in role["rules"] if "apps" in rule["apiGroups"] and "daemonsets" in rule["resources"]]


KEYS = sorted(granted())


@pytest.mark.parametrize("key", KEYS, ids=lambda key: " ".join(filter(None, key)))
def test_each_permission_has_a_use(key: tuple[str, str, str]) -> None:
    uses = USES.get(key)
    assert uses is not None, f"{key} is granted, and no use of it is known"
    assert granted()[key] == set(uses), "granted verbs and used verbs"
    for verb, (path, pattern) in uses.items():
        text = (ROOT / path).read_text()
        assert re.search(pattern, text, re.DOTALL), f"{verb}: {path} has no {pattern}"


def test_each_known_use_is_granted() -> None:
    assert set(USES) <= set(KEYS)


@pytest.mark.parametrize("name", sorted(UPSTREAM))
def test_upstream_roles_have_a_use(name: str) -> None:
    path, pattern = UPSTREAM[name]
    assert re.search(pattern, (ROOT / path).read_text())


def test_no_other_upstream_role_is_bound() -> None:
    own = {role["metadata"]["name"] for role in ROLES}
    bound = {obj["roleRef"]["name"] for obj in OBJECTS if obj["kind"] in ("RoleBinding", "ClusterRoleBinding")}
    assert bound - own == set(UPSTREAM)


def test_only_the_agent_may_ask_for_certificates() -> None:
    def subjects(name: str) -> list[Any]:
        return [s["name"] for obj in render() if obj.get("roleRef", {}).get("name") == name for s in obj["subjects"]]

    for name in UPSTREAM:
        assert subjects(name) == ["nodewright-agent"]
