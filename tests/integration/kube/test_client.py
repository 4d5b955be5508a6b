"""The client and the typed objects against a real kube-apiserver."""

from __future__ import annotations

import asyncio
import base64
import datetime

import msgspec
import pytest

from nodewright.kube import errors
from nodewright.kube.client import Client, PatchType
from nodewright.kube.config import load
from nodewright.kube.objects import (
    ConfigMap,
    Container,
    Lease,
    LeaseSpec,
    Node,
    ObjectMeta,
    Pod,
    PodCondition,
    PodSpec,
    Secret,
    Service,
)
from nodewright.kube.resources import (
    CONFIGMAPS,
    LEASES,
    NAMESPACES,
    NODES,
    PODS,
    SECRETS,
    SERVICES,
    SUBJECTACCESSREVIEWS,
)
from nodewright.kube.times import now_rfc3339, parse_rfc3339

pytestmark = pytest.mark.needs_cluster


def pod(name: str, **spec) -> dict:
    return {"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}], **spec}}


async def test_create_get_replace_delete(client, namespace):
    created = await client.create(CONFIGMAPS, ConfigMap(ObjectMeta(name="a"), {"k": "v"}), namespace, type=ConfigMap)
    assert created.metadata.uid
    assert (await client.get(CONFIGMAPS, "a", namespace, type=ConfigMap)).data == {"k": "v"}
    with pytest.raises(errors.AlreadyExists):
        await client.create(CONFIGMAPS, ConfigMap(ObjectMeta(name="a")), namespace)

    stale = await client.get(CONFIGMAPS, "a", namespace)
    stale["data"]["k"] = "w"
    await client.replace(CONFIGMAPS, stale, "a", namespace)
    with pytest.raises(errors.Conflict):
        await client.replace(CONFIGMAPS, stale, "a", namespace)

    with pytest.raises(errors.Conflict):
        await client.delete(CONFIGMAPS, "a", namespace, uid="another")
    await client.delete(CONFIGMAPS, "a", namespace, uid=created.metadata.uid)
    with pytest.raises(errors.NotFound) as caught:
        await client.get(CONFIGMAPS, "a", namespace)
    assert caught.value.details["name"] == "a"


async def test_invalid_objects_name_their_fields(client, namespace):
    with pytest.raises(errors.Invalid) as caught:
        await client.create(PODS, pod("a", restartPolicy="Sometimes"), namespace)
    assert [field for field, _ in caught.value.causes] == ["spec.restartPolicy"]
    with pytest.raises(errors.BadRequest):
        await client.create(PODS, {"metadata": {"name": "a"}, "spec": {"containers": 5}}, namespace)


async def test_binary_data_goes_both_ways(client, namespace):
    await client.create(SECRETS, Secret(ObjectMeta(name="s"), {"k": b"\x00\xff"}), namespace)
    raw = await client.get(SECRETS, "s", namespace)
    assert base64.b64decode(raw["data"]["k"]) == b"\x00\xff"
    assert (await client.get(SECRETS, "s", namespace, type=Secret)).data["k"] == b"\x00\xff"


async def test_patches(client, namespace):
    await client.create(CONFIGMAPS, ConfigMap(ObjectMeta(name="p"), {"a": "1", "b": "2"}), namespace)
    merged = await client.patch(CONFIGMAPS, "p", {"data": {"a": None, "c": "3"}}, namespace, type=ConfigMap)
    assert merged.data == {"b": "2", "c": "3"}
    operations = [{"op": "test", "path": "/data/b", "value": "2"}, {"op": "replace", "path": "/data/b", "value": "4"}]
    changed = await client.patch(CONFIGMAPS, "p", operations, namespace, kind=PatchType.JSON, type=ConfigMap)
    assert changed.data["b"] == "4"
    with pytest.raises(errors.Invalid):
        await client.patch(CONFIGMAPS, "p", operations, namespace, kind=PatchType.JSON)


async def test_status_by_strategic_patch_of_a_struct(client, namespace):
    created = await client.create(PODS, pod("p"), namespace, type=Pod)
    assert created.spec.containers[0].termination_message_path == "/dev/termination-log"
    assert created.status.qos_class == "BestEffort"
    conditions = [PodCondition("Ready", "False", "ContainersNotReady", observed_generation=1)]
    body = {"metadata": {"uid": created.metadata.uid}, "status": {"phase": "Pending", "conditions": conditions}}
    patched = await client.patch(PODS, "p", body, namespace, kind=PatchType.STRATEGIC, subresource="status", type=Pod)
    ready = next(c for c in patched.status.conditions if c.type == "Ready")
    assert (ready.status, ready.reason, ready.last_probe_time) == ("False", "ContainersNotReady", None)
    body["metadata"]["uid"] = "another"  # a Pod that was replaced by one of the same name
    with pytest.raises(errors.Invalid, match=r"metadata\.uid"):
        await client.patch(PODS, "p", body, namespace, kind=PatchType.STRATEGIC, subresource="status")
    await client.delete(PODS, "p", namespace, grace_period_seconds=0)


async def test_apply_owns_fields(client, namespace):
    wanted = {"metadata": {"name": "ap", "namespace": namespace}, "data": {"k": "1"}}
    await client.apply(CONFIGMAPS, wanted, field_manager="first")
    wanted["data"]["k"] = "2"
    with pytest.raises(errors.Conflict):
        await client.apply(CONFIGMAPS, wanted, field_manager="second", force=False)
    applied = await client.apply(CONFIGMAPS, wanted, field_manager="second", type=ConfigMap)
    assert applied.data == {"k": "2"}
    typed = ConfigMap(ObjectMeta(name="ap2", namespace=namespace), {"k": "3"})
    assert (await client.apply(CONFIGMAPS, typed, field_manager="first", type=ConfigMap)).data == {"k": "3"}


async def test_pages_and_selectors(client, namespace):
    for i in range(7):
        meta = ObjectMeta(name=f"n{i}", labels={"parity": "odd" if i % 2 else "even"})
        await client.create(CONFIGMAPS, ConfigMap(meta), namespace)
    found = await client.list(CONFIGMAPS, namespace, type=ConfigMap, limit=2, label_selector="parity in (even,odd)")
    assert [c.metadata.name for c in found.items] == [f"n{i}" for i in range(7)]
    assert int(found.resource_version) > 0
    odd = await client.list(CONFIGMAPS, namespace, type=ConfigMap, label_selector="parity=odd")
    assert len(odd.items) == 3
    one = await client.list(CONFIGMAPS, namespace, type=ConfigMap, field_selector="metadata.name=n3")
    assert [c.metadata.name for c in one.items] == ["n3"]


async def test_binding_and_the_other_subresources(client, namespace):
    node = {"metadata": {"name": f"node-{namespace}"}}
    await client.create(NODES, node)
    await client.create(PODS, pod("b"), namespace)
    binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "b"},
               "target": {"kind": "Node", "name": f"node-{namespace}"}}  # fmt: skip
    await client.create(PODS, binding, namespace, name="b", subresource="binding")
    assert (await client.get(PODS, "b", namespace, type=Pod)).spec.node_name == f"node-{namespace}"
    review = {"spec": {"user": "nobody", "resourceAttributes": {"verb": "get", "resource": "pods"}}}
    answer = await client.create(SUBJECTACCESSREVIEWS, review)
    assert answer["status"]["allowed"] is False
    await client.delete(NODES, f"node-{namespace}")


async def test_a_node_in_full(client, namespace):
    name = f"full-{namespace}"
    await client.create(NODES, {"metadata": {"name": name}, "spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}})
    status = {"capacity": {"cpu": "2"}, "conditions": [{"type": "Ready", "status": "True"}],
              "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
              "images": [{"names": ["a"], "sizeBytes": 5}]}  # fmt: skip
    await client.patch(NODES, name, {"status": status}, subresource="status")
    node = await client.get(NODES, name, type=Node)
    assert node.status.daemon_endpoints.kubelet_endpoint.port == 10250
    assert node.status.node_info.machine_id == ""
    assert node.status.images[0].size_bytes == 5
    # TaintNodesByCondition has added its own
    assert {t.key for t in node.spec.taints} == {"k", "node.kubernetes.io/not-ready"}
    await client.delete(NODES, name)


async def test_the_servers_own_objects_decode(client):
    service = await client.get(SERVICES, "kubernetes", "default", type=Service)
    assert service.spec.cluster_ip == service.spec.cluster_ips[0]
    assert service.spec.ports[0].name == "https"
    namespaces = await client.list(NAMESPACES)
    assert "kube-system" in {n["metadata"]["name"] for n in namespaces.items}


async def test_microtimes(client, namespace):
    stamp = now_rfc3339(micro=True)
    lease = Lease(ObjectMeta(name="l"), LeaseSpec("me", 15, stamp, stamp, 0))
    created = await client.create(LEASES, lease, namespace, type=Lease)
    assert created.spec.renew_time == stamp
    assert parse_rfc3339(created.metadata.creation_timestamp).tzinfo is datetime.UTC


async def test_a_typed_pod_keeps_its_meaning(client, namespace):
    spec = PodSpec(
        containers=[Container("c", "i", command=["a"])], restart_policy="Never", host_network=True, host_pid=True
    )
    created = await client.create(PODS, Pod(ObjectMeta(name="t"), spec), namespace, type=Pod)
    assert (created.spec.restart_policy, created.spec.host_network, created.spec.host_pid) == ("Never", True, True)
    raw = await client.get(PODS, "t", namespace)
    sent = msgspec.json.decode(msgspec.json.encode(created))
    # every field that our type writes is one that the API knows, with the same value
    assert _contained(sent["spec"], raw["spec"])
    assert _contained(sent["metadata"], raw["metadata"])


def _contained(part, whole):
    if isinstance(part, dict):
        return all(key in whole and _contained(value, whole[key]) for key, value in part.items() if value != {})
    if isinstance(part, list):
        return len(part) == len(whole) and all(_contained(a, b) for a, b in zip(part, whole, strict=True))
    return part == whole


async def test_watch_from_a_list(client, namespace):
    found = await client.list(CONFIGMAPS, namespace)
    watch = client.watch(CONFIGMAPS, namespace, type=ConfigMap, resource_version=found.resource_version)
    await client.create(CONFIGMAPS, ConfigMap(ObjectMeta(name="w"), {"k": "1"}), namespace)
    await client.patch(CONFIGMAPS, "w", {"data": {"k": "2"}}, namespace)
    await client.delete(CONFIGMAPS, "w", namespace)
    seen = []
    async with asyncio.timeout(20):
        async for event in watch:
            if event.type == "BOOKMARK":
                continue
            seen.append((event.type, event.object.data["k"]))
            if len(seen) == 3:
                break
    await watch.aclose()
    assert seen == [("ADDED", "1"), ("MODIFIED", "2"), ("DELETED", "2")]


async def test_identities(cluster):
    config = load(cluster.kubeconfig)
    config._tls._cert = config._tls._key = None
    async with Client(config) as anonymous:
        with pytest.raises((errors.Unauthorized, errors.Forbidden)):
            await anonymous.list(PODS)
