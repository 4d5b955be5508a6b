"""What users read of images that cannot be had, and who may use one that is there already."""

import asyncio

import pytest

from nodewright_agent.pods import pulling
from nodewright_agent.pods.pulling import ImageProblem, ImagePuller
from nodewright_agent.pods.pullmetrics import PullMetrics, size_label
from nodewright_agent.runtime.images import reference
from nodewright_agent.runtime.images.access import PulledRecord, Shown, Verification, shown_by
from nodewright_agent.runtime.images.config import ImageConfig
from nodewright_agent.runtime.images.credentials import Credential, Origin
from nodewright_agent.runtime.images.errors import RegistryUnavailable
from nodewright_agent.runtime.images.model import Image, Pulled, PullProgress
from unit.pods import pod_doubles
from unit.pods.pod_doubles import FakeEvents, make_pod, run_virtual

IMAGE = Image(id="sha256:1", names=[], digests=[], size=5, config=ImageConfig(), layers=[])
PRESENT = 'Container image "a:1" already present on machine and can be accessed by the pod'
MISSING = 'Container image "a:1" is not present with pull policy of Never'
REPOSITORY = "docker.io/library/a"


def credential(name="s", password="p"):
    return Credential("docker.io", "u", password, origin=Origin("Secret", f"uid-{name}", "ns", name))


class Keys:
    """A keyring that knows some credentials."""

    def __init__(self, *credentials):
        self.credentials, self.asked = credentials, 0

    def lookup_once(self, pod, image):
        async def lookup():
            self.asked += 1
            return self.credentials

        return lookup


class Records:
    """Who may use which image."""

    def __init__(self, shown=None):
        self.record = shown if shown is None else PulledRecord("sha256:1", {REPOSITORY: shown})
        self.noted = []

    def get(self, image_id):
        return self.record

    def note(self, image_id, repository, credential):
        self.noted.append((image_id, repository, credential))


class Registry:
    """A store that has an image or not, and pulls anything."""

    def __init__(self, present=None, shown=None):
        self.present, self.pulled, self.pulls = present, Records(shown), []

    def resolve(self, ref):
        reference.parse(ref)
        return self.present

    async def pull_for(self, ref, *, auth=(), progress=None):
        self.pulls.append((ref, tuple(auth)))
        return Pulled(IMAGE, 0.0)


class Machine:
    """Another holder of images on the machine."""

    def __init__(self, image):
        self.image, self.asked = image, []

    async def current(self, ref, present):
        self.asked.append(ref)
        return self.image


class Lab:
    """A puller, what it has said, and what it was given."""

    def __init__(self, store, *sources, keys=None, verification=None):
        self.store, self.keys, self.events = store, keys or Keys(), FakeEvents()
        self.metrics = PullMetrics(lambda: 3)
        self.puller = ImagePuller(
            store, self.keys, self.events, lambda: 0.0, sources, verification or Verification(), self.metrics
        )

    async def ensure(self, policy="IfNotPresent", image="a:1"):
        pod = make_pod({"name": "a", "image": image, "imagePullPolicy": policy})
        return await self.puller.ensure(pod, pod.spec.containers[0])

    @property
    def said(self):
        return [(reason, message) for _, reason, message in self.events.seen]


async def test_a_bad_name_is_told_in_one_sentence():
    lab = Lab(Registry())
    with pytest.raises(ImageProblem) as caught:
        await lab.ensure(image="a/UPPER:1")
    assert caught.value.reason == "InvalidImageName"
    ((reason, message),) = lab.said
    assert reason == "InspectFailed"
    assert message == str(caught.value)
    assert message.count("Failed to apply default image tag") == 1


@pytest.mark.parametrize("policy", ["IfNotPresent", "Never"])
async def test_what_the_host_has_is_present(policy):
    lab = Lab(Registry(), Machine(IMAGE))
    await lab.ensure(policy)
    assert lab.store.pulls == []
    assert lab.said == [("Pulled", PRESENT)]
    assert lab.keys.asked == 0  # it is preloaded: nobody's credentials matter


async def test_what_the_host_lacks_is_pulled():
    machine = Machine(None)
    lab = Lab(Registry(), machine)
    await lab.ensure()
    assert (machine.asked, lab.store.pulls) == (["a:1"], [("a:1", ())])
    assert [reason for reason, _ in lab.said] == ["Pulling", "Pulled"]
    assert lab.said[1][1] == 'Successfully pulled image "a:1" in 0s (0s including waiting). Image size: 5 bytes.'


async def test_what_the_host_lacks_is_never_pulled_with_never():
    lab = Lab(Registry(), Machine(None))
    with pytest.raises(ImageProblem) as caught:
        await lab.ensure("Never")
    assert (caught.value.reason, caught.value.message) == ("ErrImageNeverPull", MISSING)
    assert lab.store.pulls == []


async def test_always_asks_the_registry_whatever_the_host_has():
    machine = Machine(IMAGE)
    lab = Lab(Registry(IMAGE), machine)
    await lab.ensure("Always")
    assert (machine.asked, lab.store.pulls) == ([], [("a:1", ())])


async def test_a_pod_with_the_credential_that_pulled_the_image_may_use_it():
    known = credential()
    lab = Lab(Registry(IMAGE, shown_by(known)), keys=Keys(known))
    await lab.ensure()
    assert lab.said == [("Pulled", PRESENT)]
    assert (lab.store.pulls, lab.store.pulled.noted) == ([], [])


async def test_an_equal_credential_in_another_secret_will_do_and_is_remembered():
    other = credential("other")
    lab = Lab(Registry(IMAGE, shown_by(credential())), keys=Keys(credential("x", "wrong"), other))
    await lab.ensure()
    assert lab.said == [("Pulled", PRESENT)]
    assert lab.store.pulled.noted == [("sha256:1", REPOSITORY, other)]


async def test_a_pod_without_it_asks_the_registry():
    mine = credential("mine", "another")
    lab = Lab(Registry(IMAGE, shown_by(credential())), keys=Keys(mine))
    await lab.ensure()
    assert lab.store.pulls == [("a:1", (mine,))]
    assert [reason for reason, _ in lab.said] == ["Pulling", "Pulled"]


async def test_with_never_an_image_of_others_is_as_good_as_absent():
    lab = Lab(Registry(IMAGE, shown_by(credential())))
    with pytest.raises(ImageProblem) as caught:
        await lab.ensure("Never")
    assert (caught.value.reason, caught.value.message) == ("ErrImageNeverPull", MISSING)
    assert lab.events.seen == [("Warning", "ErrImageNeverPull", MISSING)]
    assert lab.store.pulls == []


@pytest.mark.parametrize(
    ("policy", "shown", "pulls"),
    [
        ("NeverVerify", shown_by(credential()), 0),
        ("NeverVerifyPreloadedImages", Shown(everybody=True), 0),
        ("NeverVerifyPreloadedImages", Shown(), 1),
        ("AlwaysVerify", None, 1),
        ("NeverVerifyAllowlistedImages", None, 1),
    ],
)
async def test_policies(policy, shown, pulls):
    lab = Lab(Registry(IMAGE, shown), verification=Verification(policy, []))
    await lab.ensure()
    assert len(lab.store.pulls) == pulls


async def test_records_that_cannot_be_read_lead_to_the_registry(caplog):
    lab = Lab(Registry(IMAGE))

    def broken(image_id):
        raise OSError(5, "Input/output error")

    lab.store.pulled.get = broken
    await lab.ensure()
    assert len(lab.store.pulls) == 1
    assert "cannot read who may use an image" in caplog.text
    assert 'mustpull_checks_total{result="error"} 1' in lab.metrics.text()


class Slow(Registry):
    """A registry that takes its time, and may have none of it."""

    def __init__(self, seconds, error=None):
        super().__init__()
        self.seconds, self.error = seconds, error

    async def pull_for(self, ref, *, auth=(), progress=None):
        for second in range(self.seconds):
            await asyncio.sleep(1)
            for layer in range(2):
                progress(PullProgress(ref, f"sha256:{layer}", "pulling", (second + 1) * 10**6, 150 * 10**6))
        if self.error is not None:
            raise self.error
        return Pulled(IMAGE, self.seconds)


def test_a_long_pull_tells_how_far_it_is():
    lab = Lab(Slow(75))

    async def work():
        lab.puller._clock = pod_doubles.clock
        await lab.ensure()

    run_virtual(work())
    progress = [message for reason, message in lab.said if reason == "Pulling"]
    assert progress[0] == 'Pulling image "a:1"'
    assert progress[2] == 'Pulling image "a:1": 78 of 300 MB, 0 of 2 layers, 2.0 MB/s'
    assert len(progress) == 4  # after 10, 40 and 70 seconds
    assert lab.said[-1][1] == 'Successfully pulled image "a:1" in 1m15s (1m15s including waiting). Image size: 5 bytes.'
    assert 'kubelet_image_pull_duration_seconds_bucket{image_size_in_bytes="0-10MB",le="120"} 1' in lab.metrics.text()


def test_progress_is_told_ever_more_rarely():
    lab = Lab(Slow(3600))
    run_virtual(lab.ensure())
    assert len(lab.events.seen) < 20  # of 25 events that a Pod may have at once
    assert list(pulling.TELL_AFTER) == sorted(pulling.TELL_AFTER)


async def test_a_registry_that_is_away_has_its_own_reason():
    lab = Lab(Slow(0, RegistryUnavailable("it is away")))
    with pytest.raises(ImageProblem) as caught:
        await lab.ensure()
    assert caught.value.reason == "RegistryUnavailable"
    assert caught.value.message == "image pull failed for a:1 because the registry is unavailable: it is away"
    assert lab.events.seen[-1] == ("Warning", "Failed", 'Failed to pull image "a:1": it is away')


async def test_metrics_have_upstreams_names():
    lab = Lab(Registry(IMAGE, shown_by(credential())))
    await lab.ensure()
    with pytest.raises(ImageProblem):
        await lab.ensure("Never")
    lab.metrics.plugin_ran("ecr", 0.2, failed=True)
    text = lab.metrics.text()
    name = "kubelet_image_manager_ensure_image_requests_total"
    assert f'{name}{{present_locally="true",pull_policy="ifnotpresent",pull_required="true"}} 1' in text
    assert f'{name}{{present_locally="true",pull_policy="never",pull_required="true"}} 1' in text
    assert 'kubelet_imagemanager_image_mustpull_checks_total{result="mustAuthenticate"} 2' in text
    assert "kubelet_imagemanager_ondisk_pulledrecords 3" in text
    assert 'kubelet_credential_provider_plugin_errors{plugin_name="ecr"} 1' in text
    assert 'kubelet_credential_provider_plugin_duration_count{plugin_name="ecr"} 1' in text


@pytest.mark.parametrize(
    ("size", "label"),
    [(0, "N/A"), (1, "0-10MB"), (10 << 20, "0-10MB"), (11 << 20, "10MB-100MB"), (200 << 30, "GT100GB")],
)
def test_size_labels(size, label):
    assert size_label(size) == label
