"""Pods with volumes, against a real API server; the tests play the volume controller and the provisioner."""

import contextlib

import pytest

from nodewright.kube.errors import NotFound
from nodewright.kube.resources import (
    CSIDRIVERS,
    CSINODES,
    CSISTORAGECAPACITIES,
    PERSISTENTVOLUMECLAIMS,
    PERSISTENTVOLUMES,
    PODS,
    STORAGECLASSES,
    VOLUMEATTACHMENTS,
)

from .conftest import eventually

pytestmark = pytest.mark.needs_cluster

SELECTED = "volume.kubernetes.io/selected-node"
HOST = "kubernetes.io/hostname"
ZONE = "topology.kubernetes.io/zone"


class Storage:
    """Storage objects for one test, and what controllers would do to them."""

    def __init__(self, space):
        self.space = space
        self.client = space.client
        self._made = []

    async def make(self, resource, body, namespace=None):
        self._made.append((resource, body["metadata"]["name"], namespace))
        return await self.client.create(resource, body, namespace)

    async def storage_class(
        self, name, provisioner="kubernetes.io/no-provisioner", mode="WaitForFirstConsumer", **more
    ):
        await self.make(
            STORAGECLASSES,
            {"metadata": {"name": name}, "provisioner": provisioner, "volumeBindingMode": mode, **more},
        )

    async def claim(self, name, class_name, size="1Gi", mode="ReadWriteOnce"):
        spec = {
            "storageClassName": class_name,
            "accessModes": [mode],
            "resources": {"requests": {"storage": size}},
        }
        await self.make(PERSISTENTVOLUMECLAIMS, {"metadata": {"name": name}, "spec": spec}, self.space.namespace)

    async def volume(self, name, class_name, size="1Gi", *, node="", labels=None, csi="", mode="ReadWriteOnce", **spec):
        """A volume, made available as the volume controller would."""
        source = {"csi": {"driver": csi, "volumeHandle": name}} if csi else {"hostPath": {"path": f"/nowhere/{name}"}}
        body = {"capacity": {"storage": size}, "accessModes": [mode], "storageClassName": class_name, **source, **spec}
        if node:
            match = [{"key": HOST, "operator": "In", "values": [node]}]
            body["nodeAffinity"] = {"required": {"nodeSelectorTerms": [{"matchExpressions": match}]}}
        await self.make(PERSISTENTVOLUMES, {"metadata": {"name": name, "labels": labels or {}}, "spec": body})
        await self.phase(name, "Available")

    async def phase(self, volume, phase):
        await self.client.patch(PERSISTENTVOLUMES, volume, {"status": {"phase": phase}}, subresource="status")

    async def bind(self, claim, volume):
        """The volume controller's last word: the two point at each other."""
        found = await self.client.get(PERSISTENTVOLUMECLAIMS, claim, self.space.namespace)
        ref = {"namespace": self.space.namespace, "name": claim, "uid": found["metadata"]["uid"]}
        await self.client.patch(PERSISTENTVOLUMES, volume, {"spec": {"claimRef": ref}})
        await self.phase(volume, "Bound")
        done = {"metadata": {"annotations": {"pv.kubernetes.io/bind-completed": "yes"}}, "spec": {"volumeName": volume}}
        await self.patch_claim(claim, done)
        await self.client.patch(
            PERSISTENTVOLUMECLAIMS, claim, {"status": {"phase": "Bound"}}, self.space.namespace, subresource="status"
        )

    async def patch_claim(self, name, body):
        await self.client.patch(PERSISTENTVOLUMECLAIMS, name, body, self.space.namespace)

    async def pod(self, name, *claims, **spec):
        volumes = [{"name": f"v{i}", "persistentVolumeClaim": {"claimName": claim}} for i, claim in enumerate(claims)]
        return await self.space.pod(name, volumes=volumes, **spec)

    async def selected(self, claim):
        """Wait until the claim is marked for a node; which."""

        async def check():
            found = await self.client.get(PERSISTENTVOLUMECLAIMS, claim, self.space.namespace)
            return found["metadata"].get("annotations", {}).get(SELECTED)

        return await eventually(check)

    async def held(self, volume):
        """Wait until the volume points at a claim; the volume."""

        async def check():
            found = await self.client.get(PERSISTENTVOLUMES, volume)
            return found if found["spec"].get("claimRef", {}).get("uid") else None

        return await eventually(check)

    async def told(self, pod, message):
        """Wait until the Pod's condition gives this reason for all nodes."""

        async def check():
            text = (await self.space.condition(pod)).get("message", "")
            assert message in text, text
            return True

        await eventually(check)

    async def clean(self):
        for resource, name, namespace in reversed(self._made):
            with contextlib.suppress(NotFound):
                # Protection finalizers are the volume controller's to remove.
                await self.client.patch(resource, name, {"metadata": {"finalizers": None}}, namespace)
                await self.client.delete(resource, name, namespace)


@pytest.fixture
async def storage(space):
    one = Storage(space)
    yield one
    for pod in (await space.client.list(PODS, space.namespace)).items:
        with contextlib.suppress(NotFound):
            await space.client.delete(PODS, pod["metadata"]["name"], space.namespace, grace_period_seconds=0)
    await one.clean()


async def test_a_local_volume_leads_its_pod_to_it(space, start, storage):
    await space.node("here")
    await space.node("there")
    await storage.storage_class("local")
    await storage.volume("pv-local", "local", node="there")
    await storage.claim("data", "local")
    start()
    await storage.pod("web", "data")
    volume = await storage.held("pv-local")
    ref = volume["spec"]["claimRef"]
    assert (ref["namespace"], ref["name"], ref["kind"]) == (space.namespace, "data", "PersistentVolumeClaim")
    assert volume["metadata"]["annotations"]["pv.kubernetes.io/bound-by-controller"] == "yes"
    assert await space.node_of("web") == ""
    await storage.bind("data", "pv-local")
    assert await space.bound("web") == {"web": "there"}


async def test_one_volume_is_given_away_once_and_the_other_pod_told_why(space, start, storage):
    await space.node("a")
    await space.node("b")
    await storage.storage_class("local")
    await storage.volume("pv-one", "local", node="a")
    await storage.claim("c1", "local")
    await storage.claim("c2", "local")
    start()
    await storage.pod("p1", "c1")
    await storage.held("pv-one")
    await storage.pod("p2", "c2")
    await storage.told("p2", "0/2 nodes are available: 2 node(s) didn't find available persistent volumes to bind.")
    await storage.bind("c1", "pv-one")
    assert await space.bound("p1") == {"p1": "a"}
    await storage.volume("pv-two", "local", node="b")
    await storage.held("pv-two")
    await storage.bind("c2", "pv-two")
    assert await space.bound("p2") == {"p2": "b"}


async def test_a_volume_is_made_where_the_pod_goes(space, start, storage):
    await space.node("a", labels={ZONE: "x"})
    await space.node("b", labels={ZONE: "y"})
    allowed = [{"matchLabelExpressions": [{"key": ZONE, "values": ["y"]}]}]
    await storage.storage_class("dynamic", "csi.example.com", allowedTopologies=allowed)
    await storage.claim("data", "dynamic")
    start()
    await storage.pod("web", "data")
    assert await storage.selected("data") == "b"
    assert await space.node_of("web") == ""
    await storage.volume("pv-made", "dynamic", node="b", csi="csi.example.com")
    await storage.bind("data", "pv-made")
    assert await space.bound("web") == {"web": "b"}


async def test_when_the_provisioner_gives_up_on_a_node_the_pod_is_decided_anew(space, start, storage):
    await space.node("a")
    await storage.storage_class("dynamic", "csi.example.com")
    await storage.claim("data", "dynamic")
    start()
    await storage.pod("web", "data")
    assert await storage.selected("data") == "a"
    await space.node("b")
    # Now only the new node will do.
    await space.client.patch(PODS, "web", {"metadata": {"labels": {"seen": "yes"}}}, space.namespace)
    await storage.make(CSIDRIVERS, {"metadata": {"name": "csi.example.com"}, "spec": {"storageCapacity": True}})
    await storage.make(
        CSISTORAGECAPACITIES,
        {
            "metadata": {"name": "segment-b"},
            "storageClassName": "dynamic",
            "nodeTopology": {"matchLabels": {HOST: "b"}},
            "capacity": "5Gi",
        },
        space.namespace,
    )
    await storage.patch_claim("data", {"metadata": {"annotations": {SELECTED: None}}})

    async def failed():
        events = await space.events("web", "FailedScheduling")
        return [e for e in events if 'provisioning failed for PVC "data"' in e["note"]]

    await eventually(failed)
    # The capacity may be seen after the first new attempt: the provisioner refuses again until it is.
    while await storage.selected("data") != "b":
        await storage.patch_claim("data", {"metadata": {"annotations": {SELECTED: None}}})
    await storage.volume("pv-made", "dynamic", node="b", csi="csi.example.com")
    await storage.bind("data", "pv-made")
    assert await space.bound("web") == {"web": "b"}


async def test_a_restart_takes_up_a_binding_that_was_under_way(space, start, storage):
    await space.node("a")
    await storage.storage_class("dynamic", "csi.example.com")
    await storage.claim("data", "dynamic")
    first = start()
    await storage.pod("web", "data")
    assert await storage.selected("data") == "a"
    first.task.cancel()
    await space.node("b")
    start()
    await storage.volume("pv-made", "dynamic", node="a", csi="csi.example.com")
    await storage.bind("data", "pv-made")
    assert await space.bound("web") == {"web": "a"}


async def test_bound_volumes_hold_pods_by_affinity_and_zone(space, start, storage):
    await space.node("a", labels={ZONE: "x"})
    await space.node("b", labels={ZONE: "y"})
    await storage.storage_class("now", "csi.example.com", "Immediate")
    await storage.claim("local", "now")
    await storage.claim("zonal", "now")
    start()
    await storage.pod("early", "local")
    await storage.told("early", "0/2 nodes are available: pod has unbound immediate PersistentVolumeClaims.")
    await storage.volume("pv-l", "now", node="b")
    await storage.volume("pv-z", "now", labels={ZONE: "x"})
    await storage.bind("local", "pv-l")
    await storage.bind("zonal", "pv-z")
    assert await space.bound("early") == {"early": "b"}
    await storage.pod("zonal", "zonal")
    assert await space.bound("zonal") == {"zonal": "a"}
    await storage.pod("torn", "local", "zonal")
    await storage.told(
        "torn",
        "0/2 nodes are available: 1 node(s) didn't match PersistentVolume's node affinity, "
        "1 node(s) had no available volume zone.",
    )


async def test_a_claim_for_one_pod_is_free_when_that_pod_is_gone(space, start, storage):
    await space.node("a")
    await storage.storage_class("now", "csi.example.com", "Immediate")
    await storage.claim("data", "now", mode="ReadWriteOncePod")
    await storage.volume("pv", "now", csi="csi.example.com", mode="ReadWriteOncePod")
    await storage.bind("data", "pv")
    start()
    await storage.pod("first", "data")
    await space.bound("first")
    await storage.pod("second", "data")
    reason = "PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod"
    await storage.told("second", f"0/1 nodes are available: 1 node(s) unavailable due to {reason}.")
    await space.client.delete(PODS, "first", space.namespace, grace_period_seconds=0)
    assert await space.bound("second") == {"second": "a"}


async def test_volumes_per_node_are_limited_until_one_is_detached(space, start, storage):
    await space.node("a")
    drivers = [{"name": "csi.example.com", "nodeID": "a", "allocatable": {"count": 1}}]
    await storage.make(CSINODES, {"metadata": {"name": "a"}, "spec": {"drivers": drivers}})
    await storage.storage_class("now", "csi.example.com", "Immediate")
    for name in ("old", "new"):
        await storage.claim(name, "now")
        await storage.volume(f"pv-{name}", "now", csi="csi.example.com")
        await storage.bind(name, f"pv-{name}")
    source = {"attacher": "csi.example.com", "nodeName": "a", "source": {"persistentVolumeName": "pv-old"}}
    await storage.make(VOLUMEATTACHMENTS, {"metadata": {"name": "va"}, "spec": source})
    start()
    await storage.pod("web", "new")
    await storage.told("web", "0/1 nodes are available: 1 node(s) exceed max volume count.")
    await space.client.delete(VOLUMEATTACHMENTS, "va")
    assert await space.bound("web") == {"web": "a"}


async def test_an_ephemeral_volume_waits_for_its_claim(space, start, storage):
    await space.node("a")
    await storage.storage_class("dynamic", "csi.example.com")
    template = {
        "spec": {
            "storageClassName": "dynamic",
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}},
        }
    }
    start()
    pod = await space.pod("web", volumes=[{"name": "tmp", "ephemeral": {"volumeClaimTemplate": template}}])
    reason = 'waiting for ephemeral volume controller to create the persistentvolumeclaim "web-tmp"'
    await storage.told("web", f"0/1 nodes are available: {reason}.")
    owner = {"apiVersion": "v1", "kind": "Pod", "name": "web", "uid": pod["metadata"]["uid"], "controller": True}
    body = {"metadata": {"name": "web-tmp", "ownerReferences": [owner]}, **template}
    await storage.make(PERSISTENTVOLUMECLAIMS, body, space.namespace)
    assert await storage.selected("web-tmp") == "a"
    await storage.volume("pv-made", "dynamic", node="a", csi="csi.example.com")
    await storage.bind("web-tmp", "pv-made")
    assert await space.bound("web") == {"web": "a"}
