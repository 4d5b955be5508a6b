"""What users read of images that cannot be had."""

import pytest

from nodewright_agent.pods.pulling import ImageProblem, ImagePuller
from nodewright_agent.runtime.images import reference
from nodewright_agent.runtime.images.config import ImageConfig
from nodewright_agent.runtime.images.model import Image
from unit.pods.pod_doubles import FakeEvents, make_pod


class Store:
    def resolve(self, ref):
        reference.parse(ref)


async def test_a_bad_name_is_told_in_one_sentence():
    events = FakeEvents()
    puller = ImagePuller(Store(), None, events, lambda: 0.0)
    pod = make_pod({"name": "a", "image": "a/UPPER:1", "imagePullPolicy": "IfNotPresent"})
    with pytest.raises(ImageProblem) as caught:
        await puller.ensure(pod, pod.spec.containers[0])
    assert caught.value.reason == "InvalidImageName"
    ((_, reason, message),) = events.seen
    assert reason == "InspectFailed"
    assert message == str(caught.value)
    assert message.count("Failed to apply default image tag") == 1


IMAGE = Image(id="sha256:1", names=[], digests=[], size=5, config=ImageConfig(), layers=[])
PRESENT = 'Container image "a:1" already present on machine and can be accessed by the pod'


class Registry(Store):
    """A store that has nothing, and pulls anything."""

    def __init__(self):
        self.pulled = []

    async def pull(self, ref, *, auth=()):
        self.pulled.append(ref)
        return IMAGE


class Machine:
    """Another holder of images on the machine."""

    def __init__(self, image):
        self.image, self.asked = image, []

    async def current(self, ref, present):
        self.asked.append(ref)
        return self.image


async def ensure(policy, machine):
    events, store = FakeEvents(), Registry()
    puller = ImagePuller(store, None, events, lambda: 0.0, [machine])
    pod = make_pod({"name": "a", "image": "a:1", "imagePullPolicy": policy})
    try:
        await puller.ensure(pod, pod.spec.containers[0])
    finally:
        store.said = [(reason, message) for _, reason, message in events.seen]
        machine.store = store
    return store


@pytest.mark.parametrize("policy", ["IfNotPresent", "Never"])
async def test_what_the_host_has_is_present(policy):
    store = await ensure(policy, Machine(IMAGE))
    assert store.pulled == []
    assert store.said == [("Pulled", PRESENT)]


async def test_what_the_host_lacks_is_pulled():
    machine = Machine(None)
    store = await ensure("IfNotPresent", machine)
    assert (machine.asked, store.pulled) == (["a:1"], ["a:1"])
    assert [reason for reason, _ in store.said] == ["Pulling", "Pulled"]


async def test_what_the_host_lacks_is_never_pulled_with_never():
    machine = Machine(None)
    with pytest.raises(ImageProblem) as caught:
        await ensure("Never", machine)
    assert caught.value.reason == "ErrImageNeverPull"
    assert machine.store.pulled == []


async def test_always_asks_the_registry_whatever_the_host_has():
    machine = Machine(IMAGE)
    store = await ensure("Always", machine)
    assert (machine.asked, store.pulled) == ([], ["a:1"])
