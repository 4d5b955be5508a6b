"""VolumeBinding's writes, and the wait for the controllers that carry a decision out."""

import asyncio

import msgspec
import pytest

from nodewright.kube.errors import Conflict
from nodewright.scheduler.plugins.volume_binding import Args, VolumeBinding
from nodewright.scheduler.plugins.volume_prebind import BindError
from support.scheduler_builders import info, make_node, make_pod
from support.storage_builders import SELECTED, claim_pod, cluster, make_claim, make_class, make_volume, put

HOST = "kubernetes.io/hostname"


class Server:
    """Takes patches of claims and volumes; the watch shows nothing by itself."""

    def __init__(self, state, refuse=None):
        self.state = state
        self.refuse = refuse
        self.patches = []

    async def patch(self, resource, name, body, namespace=None, *, type):
        self.patches.append((resource.plural, name, body))
        if self.refuse == resource.plural:
            raise Conflict(409, "Conflict", "the object has been modified")
        storage = self.state.storage
        before = storage.claims[f"{namespace}/{name}"] if namespace else storage.volumes[name]
        return msgspec.structs.replace(
            before, metadata=msgspec.structs.replace(before.metadata, resource_version="1000000")
        )


class Attempt:
    """A Pod on its way to node `n`, as far as `pre_bind` has come."""

    def __init__(self, state, *claims, timeout=600, refuse=None):
        self.state = state
        self.server = Server(state, refuse)
        self.plugin = VolumeBinding(Args(timeout))
        self.pod = info(claim_pod(*claims, name="p"))
        state.add_pod(self.pod, "n")
        self.plugin.reserve(self.pod, "n", state)
        self.task = None

    async def start(self):
        self.task = asyncio.ensure_future(self.plugin.pre_bind(self.pod, "n", self.state, self.server))
        await self.settle()
        return self

    async def settle(self):
        for _ in range(5):
            await asyncio.sleep(0)

    async def show(self, *objects):
        """The watch shows objects, newer than any write."""
        for item in objects:
            item.metadata.resource_version = "1000001"
        put(self.state, *objects)
        await self.settle()

    async def failure(self):
        with pytest.raises(BindError) as caught:
            await self.task
        self.plugin.unreserve(self.pod, "n", self.state)
        return str(caught.value)


def static(*extra):
    return cluster(make_node("n"), make_node("m"), make_class(), make_claim("c"), make_volume("v"), *extra)


def provisioned(*extra):
    return cluster(make_node("n"), make_node("m"), make_class("wait", "csi"), make_claim("c"), *extra)


def held(name="v", **options):
    return make_volume(name, claim="c", claim_uid="uid-c", phase="Bound", **options)


async def test_a_volume_is_pointed_at_its_claim_and_the_claim_waited_for():
    state = static()
    version, claim_version = state.storage.volumes["v"], state.storage.claims["default/c"]
    attempt = await Attempt(state, "c").start()
    assert attempt.server.patches == [
        (
            "persistentvolumes",
            "v",
            {
                "metadata": {
                    "resourceVersion": version.metadata.resource_version,
                    "annotations": {"pv.kubernetes.io/bound-by-controller": "yes"},
                },
                "spec": {
                    "claimRef": {
                        "apiVersion": "v1",
                        "kind": "PersistentVolumeClaim",
                        "namespace": "default",
                        "name": "c",
                        "uid": "uid-c",
                        "resourceVersion": claim_version.metadata.resource_version,
                    }
                },
            },
        )
    ]
    await attempt.show(held())
    assert not attempt.task.done()
    await attempt.show(make_claim("c", volume="v"))
    await attempt.task
    assert state.storage.reservations == {}


async def test_a_volume_that_a_user_set_aside_stays_the_users():
    state = cluster(make_node("n"), make_class(), make_claim("c"), make_volume("v", claim="c"))
    attempt = await Attempt(state, "c").start()
    (_, _, patch), *_ = attempt.server.patches
    assert "annotations" not in patch["metadata"]
    assert patch["spec"]["claimRef"]["uid"] == "uid-c"
    await attempt.show(held(), make_claim("c", volume="v"))
    await attempt.task


async def test_a_claim_is_marked_for_the_node_and_waited_for():
    state = provisioned()
    version = state.storage.claims["default/c"].metadata.resource_version
    attempt = await Attempt(state, "c").start()
    marked = {"metadata": {"resourceVersion": version, "annotations": {SELECTED: "n"}}}
    assert attempt.server.patches == [("persistentvolumeclaims", "c", marked)]
    await attempt.show(make_claim("c", selected="n"))
    await attempt.show(make_claim("c", selected="n", volume="made"))
    # The volume itself has not been seen yet.
    assert not attempt.task.done()
    await attempt.show(held("made", affinity={HOST: "n"}))
    await attempt.task


async def test_what_the_api_says_already_is_not_written_again():
    state = cluster(make_node("n"), make_class("wait", "csi"), make_claim("c", selected="n"))
    put(state, make_claim("d", "hand"), make_class("hand"), make_volume("v", "hand", claim="d", claim_uid="uid-d"))
    attempt = await Attempt(state, "c", "d").start()
    assert attempt.server.patches == []
    await attempt.show(make_claim("c", selected="n", volume="made"), held("made"), make_claim("d", "hand", volume="v"))
    await attempt.task


async def test_volumes_are_written_before_claims():
    state = provisioned(make_claim("d", "hand"), make_class("hand"), make_volume("v", "hand"))
    attempt = await Attempt(state, "c", "d").start()
    assert [kind for kind, _, _ in attempt.server.patches] == ["persistentvolumes", "persistentvolumeclaims"]
    attempt.task.cancel()


async def test_bound_claims_and_pods_without_any_have_nothing_to_wait_for():
    state = cluster(make_node("n"), make_claim("c", volume="v"), make_volume("v", claim="c"))
    attempt = Attempt(state, "c")
    await attempt.plugin.pre_bind(attempt.pod, "n", state, attempt.server)
    await attempt.plugin.pre_bind(info(make_pod()), "n", state, attempt.server)
    assert attempt.server.patches == []


@pytest.mark.parametrize("kind", ["persistentvolumes", "persistentvolumeclaims"])
async def test_a_refused_write_ends_the_attempt_and_frees_all(kind):
    state = provisioned(make_claim("d", "hand"), make_class("hand"), make_volume("v", "hand"))
    attempt = Attempt(state, "c", "d", refuse=kind)
    with pytest.raises(Conflict):
        await attempt.plugin.pre_bind(attempt.pod, "n", state, attempt.server)
    attempt.plugin.unreserve(attempt.pod, "n", state)
    assert [v.key for v in state.storage.free_volumes("hand")] == ["v"]
    assert state.storage.selected_node(state.storage.claims["default/c"]) is None


async def test_a_provisioner_that_gives_up_ends_the_attempt():
    attempt = await Attempt(provisioned(), "c").start()
    # Older than the write: says nothing.
    put(attempt.state, make_claim("c"))
    await attempt.settle()
    assert not attempt.task.done()
    await attempt.show(make_claim("c", selected="n"))
    await attempt.show(make_claim("c"))
    assert await attempt.failure() == 'binding volumes: provisioning failed for PVC "c"'
    assert attempt.state.storage.selected_node(attempt.state.storage.claims["default/c"]) is None


async def test_a_volume_made_elsewhere_ends_the_attempt():
    attempt = await Attempt(provisioned(), "c").start()
    await attempt.show(held("made", affinity={HOST: "m"}), make_claim("c", selected="n", volume="made"))
    assert await attempt.failure() == (
        'binding volumes: pv "made" node affinity doesn\'t match node "n": no matching NodeSelectorTerms'
    )


async def test_a_volume_that_is_unbound_again_ends_the_attempt():
    attempt = await Attempt(static(), "c").start()
    await attempt.show(make_volume("v"))
    assert await attempt.failure() == 'binding volumes: ClaimRef got reset for pv "v"'


@pytest.mark.parametrize(
    ("goes", "message"),
    [
        ("claim", 'persistentvolumeclaim "c" not found'),
        ("volume", 'failed to check binding: persistentvolume "v" not found'),
        ("pod", 'pod does not exist any more: pod "p" not found'),
        ("node", 'failed to get node "n": node "n" not found'),
    ],
)
async def test_whatever_goes_away_ends_the_attempt_at_once(goes, message):
    attempt = await Attempt(static(), "c").start()
    await attempt.show(held())
    storage = attempt.state.storage
    match goes:
        case "claim":
            storage.on_claim(storage.claims["default/c"], None)
        case "volume":
            storage.on_volume(storage.volumes["v"], None)
        case "pod":
            attempt.state.remove_pod(attempt.pod.uid)
        case "node":
            attempt.state.remove_node("n")
    assert await attempt.failure() == f"binding volumes: {message}"


async def test_what_is_held_is_given_back_when_nobody_waits_any_more():
    attempt = await Attempt(static(), "c").start()
    attempt.task.cancel()
    await asyncio.gather(attempt.task, return_exceptions=True)
    assert [v.key for v in attempt.state.storage.free_volumes("wait")] == ["v"]
    assert attempt.state.storage.reservations == {}


async def test_what_takes_too_long_ends_the_attempt():
    attempt = await Attempt(provisioned(), "c", timeout=0).start()
    assert await attempt.failure() == "binding volumes: context deadline exceeded"
    assert not attempt.state.storage.waiters._waiting  # nobody is left waiting
