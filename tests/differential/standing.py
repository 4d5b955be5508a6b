"""Objects that are there from the beginning and never change: namespaces, what selects Pods, and classes.

kube-scheduler does not log when it learns of these, so they are made before it starts. What varies is which Pods they
apply to.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from differential import volumes
from nodewright.kube.client import Client
from nodewright.kube.config import load
from nodewright.kube.resources import (
    APPS_REPLICASETS,
    APPS_STATEFULSETS,
    NAMESPACES,
    PODDISRUPTIONBUDGETS,
    PRIORITYCLASSES,
    REPLICATIONCONTROLLERS,
    RUNTIMECLASSES,
    SERVICEACCOUNTS,
    SERVICES,
    Resource,
)
from nodewright.scheduler.core import SchedulerCore
from nodewright.scheduler.world_objects import DisruptionBudget, Namespace, SelectorOwner, Service

Object = dict[str, Any]

NAMESPACE_LABELS: dict[str, dict[str, str]] = {
    "blue": {"team": "blue", "env": "prod"},
    "red": {"team": "red", "env": "prod"},
    "bare": {},
}
SERVICES_OF: dict[str, dict[str, dict[str, str]]] = {
    "blue": {"web": {"app": "web"}, "front": {"tier": "front"}, "none": {}},
    "red": {"web-front": {"app": "web", "tier": "front"}},
}
# The controllers that Pods may name as their owner; those of other namespaces do not exist there.
OWNERS: dict[str, tuple[Resource, str, Object]] = {
    "set": (APPS_REPLICASETS, "blue", {"matchLabels": {"app": "db"}}),
    "sets": (
        APPS_REPLICASETS,
        "red",
        {
            "matchLabels": {"app": "db"},
            "matchExpressions": [{"key": "tier", "operator": "In", "values": ["front", "back"]}],
        },
    ),
    "state": (APPS_STATEFULSETS, "bare", {"matchExpressions": [{"key": "version", "operator": "Exists"}]}),
    "old": (REPLICATIONCONTROLLERS, "blue", {"version": "1"}),
}
# Selector and disruptionsAllowed.
BUDGETS: dict[str, dict[str, tuple[Object | None, int]]] = {
    "blue": {"web": ({"matchLabels": {"app": "web"}}, 0)},
    "red": {"db": ({"matchLabels": {"app": "db"}}, 1), "back": ({"matchLabels": {"tier": "back"}}, 0)},
    "bare": {"all": ({}, 2)},
}
PRIORITIES = {"low": (10, True), "middle": (100, True), "high": (1000, True), "polite": (1000, False)}
OVERHEAD = {"cpu": "150m", "memory": "70Mi"}


class Standing(msgspec.Struct):
    """The objects as the API has them."""

    namespaces: list[Namespace] = []
    services: list[Service] = []
    owners: list[tuple[Resource, SelectorOwner]] = []
    budgets: list[DisruptionBudget] = []
    storage: volumes.Loaded = []

    def tell(self, core: SchedulerCore) -> None:
        """Let our scheduler know of them."""
        for namespace in self.namespaces:
            core.on_namespace(None, namespace)
        for service in self.services:
            core.on_service(None, service)
        for resource, owner in self.owners:
            core.on_owner((resource.api_version, resource.kind), None, owner)
        for budget in self.budgets:
            core.on_budget(None, budget)
        volumes.tell(core, self.storage)


async def make(kubeconfig: Path) -> Standing:
    """Create all of them."""
    async with Client(load(kubeconfig), user_agent="differential") as client:
        await _make_classes(client)
        for name, labels in NAMESPACE_LABELS.items():
            await client.create(NAMESPACES, {"metadata": {"name": name, "labels": labels}})
            await client.create(SERVICEACCOUNTS, _named("default", name))
            for service, selector in SERVICES_OF.get(name, {}).items():
                spec = {"selector": selector, "clusterIP": "None", "ports": [{"port": 80}]}
                await client.create(SERVICES, {**_named(service, name), "spec": spec})
            for budget, (chosen, allowed) in BUDGETS.get(name, {}).items():
                await _make_budget(client, _named(budget, name), chosen, allowed)
        for name, (resource, namespace, selector) in OWNERS.items():
            await client.create(resource, {**_named(name, namespace), "spec": _owner_spec(selector)})
        owned = dict.fromkeys(resource for resource, _, _ in OWNERS.values())
        return Standing(
            namespaces=(await client.list(NAMESPACES, type=Namespace)).items,
            services=(await client.list(SERVICES, type=Service)).items,
            owners=[(r, owner) for r in owned for owner in (await client.list(r, type=SelectorOwner)).items],
            budgets=(await client.list(PODDISRUPTIONBUDGETS, type=DisruptionBudget)).items,
            storage=await volumes.make(client),
        )


async def _make_classes(client: Client) -> None:
    await client.create(
        RUNTIMECLASSES, {"metadata": {"name": "heavy"}, "handler": "heavy", "overhead": {"podFixed": OVERHEAD}}
    )
    for name, (value, preempts) in PRIORITIES.items():
        policy = "PreemptLowerPriority" if preempts else "Never"
        await client.create(PRIORITYCLASSES, {"metadata": {"name": name}, "value": value, "preemptionPolicy": policy})


async def _make_budget(client: Client, body: Object, selector: Object | None, allowed: int) -> None:
    """A budget that nobody reconciles; its status says how many Pods may go."""
    meta = body["metadata"]
    await client.create(PODDISRUPTIONBUDGETS, {**body, "spec": {"selector": selector, "minAvailable": 1}})
    counts = {"disruptionsAllowed": allowed, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0}
    status = {"status": {"observedGeneration": 1, **counts}}
    await client.patch(PODDISRUPTIONBUDGETS, meta["name"], status, meta["namespace"], subresource="status")


def _named(name: str, namespace: str) -> Object:
    return {"metadata": {"name": name, "namespace": namespace}}


def _owner_spec(selector: Object) -> Object:
    """The API wants a template that the selector matches."""
    container = {"name": "c", "image": "none:1"}
    labels = {"app": "db", "tier": "front", "version": "1"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    return {"replicas": 0, "selector": selector, "template": template}
