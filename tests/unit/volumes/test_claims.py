"""From claims to storage: every reason not to, in upstream's words."""

import msgspec
import pytest

from nodewright.kube.api.storage import PersistentVolume, PersistentVolumeClaim
from nodewright.kube.api.volumes import Volume
from nodewright.kube.errors import NotFound
from nodewright.kube.objects import Pod
from nodewright.kube.resources import PERSISTENTVOLUMECLAIMS
from nodewright_agent.pods.volumes import claims
from nodewright_agent.pods.volumes.errors import ClaimError, VolumeError, failed, unprocessed
from nodewright_agent.pods.volumes.paths import PodPaths
from nodewright_agent.pods.volumes.persistent import Claim, mount_options
from nodewright_agent.pods.volumes.plugin import Host, Request, VolumeContext


class FakeClient:
    """Answers with one claim and one volume."""

    def __init__(self, claim, volume):
        self.claim, self.volume, self.asked = claim, volume, []

    async def get(self, resource, name, namespace=None, *, type):
        self.asked.append((resource.plural, namespace, name))
        found = self.claim if resource is PERSISTENTVOLUMECLAIMS else self.volume
        if found is None:
            raise NotFound(404, "NotFound", f'{resource.plural} "{name}" not found')
        return msgspec.convert(found, type)


def claim(*, bound=True, owner="", **meta):
    owners = [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": owner, "controller": True}] if owner else []
    return {
        "metadata": {"name": "c", "namespace": "ns", "uid": "claim-uid", "ownerReferences": owners} | meta,
        "spec": {"volumeName": "pv"},
        "status": {"phase": "Bound" if bound else "Pending"},
    }


def pv(**spec):
    base = {"claimRef": {"name": "c", "namespace": "ns", "uid": "claim-uid"}, "hostPath": {"path": "/data"}}
    return {"metadata": {"name": "pv", "uid": "1"}, "spec": base | spec}


def pod(*, device=False, uid="pod-uid"):
    use = {"volumeDevices": [{"name": "v", "devicePath": "/dev/x"}]} if device else {
        "volumeMounts": [{"name": "v", "mountPath": "/m"}]}  # fmt: skip
    container = {"name": "a", "image": "x"} | use
    document = {"metadata": {"name": "p", "namespace": "ns", "uid": uid}, "spec": {"containers": [container]}}
    return msgspec.convert(document, Pod)


STATIC = msgspec.convert({"name": "v", "persistentVolumeClaim": {"claimName": "c"}}, Volume)
EPHEMERAL = msgspec.convert({"name": "v", "ephemeral": {"volumeClaimTemplate": {}}}, Volume)


@pytest.mark.parametrize(
    ("of", "volume", "said"),
    [
        (None, pv(), 'failed to fetch PVC from API server: persistentvolumeclaims "c" not found'),
        (claim(bound=False), pv(), "PVC is not bound"),
        (claim(deletionTimestamp="2026-01-01T00:00:00Z"), pv(), "PVC is being deleted"),
        (claim() | {"spec": {}}, pv(), "PVC has empty pvc.Spec.VolumeName"),
        (claim(), None, 'failed to fetch PV pv from API server: persistentvolumes "pv" not found'),
        (claim(), pv(claimRef=None), "found PV object pv but it has a nil pv.Spec.ClaimRef indicating it is not yet "
                                     "bound to the claim"),
        (claim(), pv(claimRef={"uid": "other"}), "found PV object pv but its pv.Spec.ClaimRef.UID other does not point "
                                                 "to claim.UID claim-uid"),
    ],
)  # fmt: skip
async def test_claims_that_lead_nowhere(of, volume, said):
    with pytest.raises(ClaimError) as caught:
        await claims.resolve(STATIC, pod(), FakeClient(of, volume))
    assert str(caught.value) == f"error processing PVC ns/c: {said}"


async def test_an_ephemeral_volume_is_a_claim_that_the_pod_owns():
    client = FakeClient(claim(owner="pod-uid"), pv())
    assert (await claims.resolve(EPHEMERAL, pod(), client)).name == "pv"
    assert client.asked[0] == ("persistentvolumeclaims", "ns", "p-v")
    with pytest.raises(ClaimError, match=r"was not created for pod ns/p \(pod is not owner\)"):
        await claims.resolve(EPHEMERAL, pod(), FakeClient(claim(owner="somebody"), pv()))


def test_devices_and_file_systems_are_not_mixed_up():
    block = claims.Claimed(msgspec.convert(pv(volumeMode="Block"), PersistentVolume))
    files = claims.Claimed(msgspec.convert(pv(), PersistentVolume))
    claims.check_mode(STATIC, pod(), files)
    claims.check_mode(STATIC, pod(device=True), block)
    with pytest.raises(ClaimError, match="volume v has volumeMode Block, but is specified in volumeMounts"):
        claims.check_mode(STATIC, pod(), block)
    with pytest.raises(ClaimError, match="volume v has volumeMode Filesystem, but is specified in volumeDevices"):
        claims.check_mode(STATIC, pod(device=True), files)


def host(of, volume):
    return Host(FakeClient(of, volume), None, None)


async def set_up(tmp_path, where, one=None, **context):
    one = one or pod()
    return await Claim().set_up(
        Request(STATIC, one, PodPaths(tmp_path, one.metadata.uid), where, VolumeContext(**context))
    )


async def test_what_a_pod_has_it_keeps(tmp_path):
    where = host(claim(), pv(hostPath={"path": "/data"}))
    assert str((await set_up(tmp_path, where)).path) == "/data"
    where.client.claim = claim(deletionTimestamp="2026-01-01T00:00:00Z")
    assert str((await set_up(tmp_path, where)).path) == "/data"


async def test_the_wrong_node(tmp_path):
    terms = [{"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["b"]}]}]
    where = host(claim(), pv(nodeAffinity={"required": {"nodeSelectorTerms": terms}}))
    with pytest.raises(VolumeError) as caught:
        await set_up(tmp_path, where, labels={"kubernetes.io/hostname": "a"}, node_name="a")
    text = 'MountVolume.NodeAffinity check failed for volume "pv" : no matching NodeSelectorTerms'
    assert failed("v", caught.value) == text
    assert await set_up(tmp_path, where, labels={"kubernetes.io/hostname": "b"}, node_name="b")


async def test_read_write_once_pod_is_for_one(tmp_path):
    where = host(claim(), pv(accessModes=["ReadWriteOncePod"]))
    await set_up(tmp_path, where)
    await set_up(tmp_path, where)
    with pytest.raises(VolumeError, match="is already in use by another pod"):
        await set_up(tmp_path, where, pod(uid="second"))


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"hostPath": None, "csi": {"driver": "d"}}, "driver name d not found in the list of registered CSI drivers"),
        ({"hostPath": None, "nfs": {"server": "s"}}, "no NFS client"),
        ({"mountOptions": ["ro"]}, "Mount options are not supported for volume type"),
        ({"hostPath": None, "local": {"path": "a"}}, "invalid path"),
        ({"hostPath": None, "local": {"path": "/no/such"}}, 'path "/no/such" does not exist'),
        ({"hostPath": None, "local": {"path": "/dev/null"}}, "neither a directory nor a block device"),
    ],
)
async def test_volumes_that_cannot_be_had_here(tmp_path, spec, said):
    with pytest.raises(VolumeError, match=said) as caught:
        await set_up(tmp_path, host(claim(), pv(**spec)))
    assert 'for volume "pv" : ' in failed("v", caught.value)


def test_mount_options():
    assert mount_options(["ro,noatime", "bind", "nodev"]) == ("ro", "noatime", "nodev")
    with pytest.raises(VolumeError, match="mount options size=1,upperdir=/x have no meaning"):
        mount_options(["size=1", "upperdir=/x"])


def test_the_events_text():
    assert unprocessed(["b", "a"], [("a", "error processing PVC ns/c: PVC is not bound")]) == (
        "Unable to attach or mount volumes: unmounted volumes=[a b], unattached volumes=[], failed to process "
        "volumes=[a]: error processing PVC ns/c: PVC is not bound"
    )


def test_claims_decode_what_the_api_sends():
    assert msgspec.convert(claim(), PersistentVolumeClaim).spec.volume_name == "pv"
