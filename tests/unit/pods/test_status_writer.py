"""The status writer against an API server that keeps one pod, and lets others write to it."""

import asyncio

import msgspec
import pytest

from nodewright.kube.errors import Invalid
from nodewright.kube.objects import ObjectMeta, Pod, PodCondition, PodStatus
from nodewright_agent.pods import status_writer
from nodewright_agent.pods.status_patch import status_patch
from nodewright_agent.pods.status_writer import StatusWriter

UID = "u"


def status(ready, phase="Running", **fields):
    return PodStatus(phase=phase, conditions=[PodCondition(type="Ready", status=ready)], **fields)


class Api:
    """Holds the pod; patches are taken as upstream does, `refuse` makes it answer 422."""

    def __init__(self):
        self.version, self.status = 10, PodStatus(phase="Pending")
        self.patches = []
        self.refuse = False
        self.before_answer = lambda: None

    def pod(self):
        meta = ObjectMeta(name="p", namespace="default", uid=UID, resource_version=str(self.version))
        return Pod(metadata=meta, status=self.status)

    def write(self, new):
        self.version += 1
        self.status = new
        return self.pod()

    async def patch(self, res, name, body, namespace, *, type, kind, subresource):
        assert body["metadata"] == {"uid": UID}
        self.patches.append(body["status"])
        await asyncio.sleep(0)
        if self.refuse:
            raise Invalid(422, "Invalid", "no")
        old = msgspec.to_builtins(self.status)
        conditions = {one["type"]: one for one in old.get("conditions", [])}
        for one in body["status"].get("conditions", []):
            conditions[one["type"]] = {key: value for key, value in one.items() if value is not None}
        merged = {**old, **body["status"], "conditions": list(conditions.values())}
        answer = self.write(msgspec.convert(merged, PodStatus))
        self.before_answer()
        return answer

    def ready(self):
        return {one.type: one.status for one in self.status.conditions}.get("Ready")


@pytest.fixture
def api(monkeypatch):
    monkeypatch.setattr(status_writer, "LAZY", 0.01)
    return Api()


async def until(true):
    async with asyncio.timeout(5):
        while not true():  # noqa: ASYNC110 - what is waited for tells nobody
            await asyncio.sleep(0.001)


async def published(api, **kwargs):
    writer = StatusWriter(api)
    writer.publish(api.pod(), status("True"), **kwargs)
    await writer.flushed(UID)
    return writer


async def test_what_the_node_controller_overwrote_is_written_again(api):
    writer = await published(api)
    writer.observed(api.write(status("False")))
    await writer.flushed(UID)
    assert api.ready() == "True"
    assert len(api.patches) == 2
    assert [one["type"] for one in api.patches[1]["conditions"]] == ["Ready"]


async def test_what_was_overwritten_while_no_agent_ran_is_written_again(api):
    shown = api.write(status("False"))
    record = msgspec.structs.replace(shown, status=status("True"))
    writer = StatusWriter(api)
    writer.publish(record, status("True"))
    await writer.flushed(UID)
    assert api.patches == []
    writer.observed(shown)
    await writer.flushed(UID)
    assert api.ready() == "True"


async def test_what_an_earlier_agent_recorded_but_never_wrote_is_written(api):
    """Part of it differs from the record, and is patched: the answer shows that the API lacks the rest as well."""
    record = msgspec.structs.replace(api.pod(), status=status("False", "Running"))
    writer = StatusWriter(api)
    writer.publish(record, status("True", "Running"))
    await writer.flushed(UID)
    writer.observed(api.pod())
    await writer.flushed(UID)
    assert (api.status.phase, api.ready()) == ("Running", "True")
    assert len(api.patches) == 2


async def test_own_writes_and_older_versions_are_no_news(api):
    old = api.write(status("False"))
    writer = await published(api)
    writer.observed(old)
    writer.observed(api.pod())
    writer.observed(api.write(api.status))  # somebody changed a label, say
    await asyncio.sleep(0.05)
    assert len(api.patches) == 1


async def test_a_write_by_others_while_ours_is_under_way_is_not_taken_for_ours(api):
    writer = StatusWriter(api)

    def interfere():
        api.before_answer = lambda: None
        writer.observed(api.write(status("False")))

    api.before_answer = interfere
    writer.publish(api.pod(), status("True"))
    await writer.flushed(UID)
    assert api.ready() == "True"


async def test_a_refused_status_is_dropped(api):
    api.refuse = True
    writer = await published(api)
    assert len(api.patches) == 1
    api.refuse = False
    writer.publish(api.pod(), status("True"))
    await writer.flushed(UID)
    assert api.ready() == "True"


async def test_a_pod_that_is_over_in_the_api_is_never_revived(api):
    writer = await published(api)
    writer.observed(api.write(status("False", "Failed", reason="Evicted")))
    await asyncio.sleep(0.05)
    assert (api.status.phase, api.status.reason, len(api.patches)) == ("Failed", "Evicted", 1)
    assert status_patch(api.status, status("True")) is None
    assert status_patch(api.status, status("False", "Succeeded")) is not None


async def test_what_can_wait_waits_also_after_a_write_and_one_write_tells_it_all(api):
    writer = StatusWriter(api)
    later = [status("False", "Pending", message=text) for text in "abc"]

    def follow():
        api.before_answer = lambda: None
        for one in later[:2]:
            writer.publish(api.pod(), one, lazy=True)

    api.before_answer = follow
    writer.publish(api.pod(), status("False", "Pending"), lazy=True)
    assert api.patches == []
    await asyncio.sleep(0.005)
    writer.publish(api.pod(), status("False", "Pending"), lazy=True)
    await until(lambda: api.patches)
    await asyncio.sleep(0)
    assert len(api.patches) == 1
    writer.publish(api.pod(), later[2], lazy=True)
    await until(lambda: len(api.patches) == 2)
    await writer.flushed(UID)
    assert (len(api.patches), api.status.message) == (2, "c")


async def test_what_cannot_wait_takes_along_what_could(api, monkeypatch):
    monkeypatch.setattr(status_writer, "LAZY", 60.0)
    writer = StatusWriter(api)
    writer.publish(api.pod(), status("False", "Pending"), lazy=True)
    writer.publish(api.pod(), status("True"))
    writer.publish(api.pod(), status("True", message="more"), lazy=True)  # what is to be written at once stays that
    await until(lambda: api.status.message == "more")
    assert writer._waiting == 0


async def test_somebody_who_waits_for_the_api_does_not_wait_for_a_better_status(api, monkeypatch):
    monkeypatch.setattr(status_writer, "LAZY", 60.0)
    writer = StatusWriter(api)
    api.before_answer = lambda: writer.publish(api.pod(), status("False", "Pending", message="more"), lazy=True)
    writer.publish(api.pod(), status("False", "Pending"), lazy=True)
    async with asyncio.timeout(5):
        await writer.flushed(UID)
    assert api.status.message == "more"


async def test_the_more_wait_the_longer(monkeypatch):
    delays = []
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(loop, "call_later", lambda delay, *rest: delays.append(delay) or loop.call_at(1e9, *rest))
    writer = StatusWriter(Api())
    pods = [Pod(metadata=ObjectMeta(name=str(i), uid=str(i), resource_version="1")) for i in range(40)]
    for pod in pods:
        writer.publish(pod, status("False", "Pending"), lazy=True)
        writer.publish(pod, status("False", "Pending", message="x"), lazy=True)
    assert (delays[0], len(delays)) == (status_writer.LAZY, 40)
    assert delays == sorted(delays)
    assert delays[-1] == status_writer.LAZY_MAX
    for pod in pods:
        writer.forget(pod.metadata.uid)
    writer.publish(pods[0], status("False", "Pending"), lazy=True)
    assert delays[-1] == status_writer.LAZY
    await writer.close()


async def test_the_end_writes_what_still_waits(api, monkeypatch):
    monkeypatch.setattr(status_writer, "LAZY", 60.0)
    writer = StatusWriter(api)
    writer.publish(api.pod(), status("False", "Pending"), lazy=True)
    await writer.close()
    assert (api.status.phase, len(api.patches)) == ("Pending", 1)
    last = status("False", "Succeeded")
    api.before_answer = lambda: writer.publish(api.pod(), last)
    writer.publish(api.pod(), status("True"))
    await writer.close()
    assert api.status.phase == "Succeeded"


async def test_the_end_does_not_wait_for_a_server_that_is_away(api, monkeypatch):
    monkeypatch.setattr(status_writer, "LAST_SECONDS", 0.01)
    monkeypatch.setattr(api, "patch", lambda *_, **__: asyncio.sleep(3600))
    writer = StatusWriter(api)
    writer.publish(api.pod(), status("True"))
    async with asyncio.timeout(5):
        await writer.close()
    assert not api.patches
