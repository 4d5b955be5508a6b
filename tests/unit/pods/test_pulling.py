"""What users read of images that cannot be had."""

import pytest

from nodewright_agent.pods.pulling import ImageProblem, ImagePuller
from nodewright_agent.runtime.images import reference
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
