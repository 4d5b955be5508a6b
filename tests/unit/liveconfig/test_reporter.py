"""When an entry is written, and when not; with an API that remembers, and follows server-side apply's ownership."""

from __future__ import annotations

import msgspec
import pytest

from nodewright.kube.api.nodeconfigs import NodeAgentConfig, NodeAgentConfigStatus
from nodewright.kube.errors import ApiError, NotFound
from nodewright_agent.liveconfig import reporter as module
from nodewright_agent.liveconfig.merge import merge
from nodewright_agent.liveconfig.reporter import Reporter, field_manager, jitter
from nodewright_agent.liveconfig.verdict import APPLIED, Report
from unit.liveconfig.config_objects import config

REPORT = Report(frozenset(("maxPods",)))


class Api:
    """One object, of which entries are applied; each write makes a new version."""

    def __init__(self, obj: NodeAgentConfig) -> None:
        self.obj, self.writes, self.error = obj, [], None

    async def apply(self, resource, body, *, field_manager, type, subresource):
        if self.error is not None:
            raise self.error
        assert (subresource, body["metadata"]["uid"]) == ("status", self.obj.metadata.uid)
        self.writes.append(body)
        raw = msgspec.to_builtins(self.obj)
        entries = body.get("status", {}).get("nodes", [])
        raw["status"] = {"nodes": entries}
        raw["metadata"]["managedFields"] = [{"manager": field_manager}] if entries else []
        raw["metadata"]["resourceVersion"] = str(int(raw["metadata"]["resourceVersion"]) + 1)
        self.obj = msgspec.convert(raw, NodeAgentConfig)
        return self.obj


class Bench:
    def __init__(self, obj, delay=0.0):
        self.api, self.time = Api(obj), 0.0
        self.reporter = Reporter(
            self.api, "agent", "n", delay=lambda _: delay, clock=lambda: self.time, now=lambda: f"t{self.time:.0f}"
        )

    async def report(self, obj=None, labels=None):
        seen = obj if obj is not None else self.api.obj
        return await self.reporter.report([seen], merge([seen], labels or {}), REPORT, APPLIED)


def changed(obj, **spec):
    meta = obj.metadata
    generation, version = meta.generation + 1, str(int(meta.resource_version) + 1)
    newer = msgspec.structs.replace(meta, generation=generation, resource_version=version)
    return msgspec.structs.replace(obj, metadata=newer, spec=spec)


async def test_an_entry_is_written_once():
    bench = Bench(config("c", {"maxPods": 5}))
    assert await bench.report() is None
    (entry,) = bench.api.writes[0]["status"]["nodes"]
    assert (entry["name"], entry["observedGeneration"]) == ("n", 1)
    assert entry["conditions"][0]["status"] == "True"
    bench.time = 100
    await bench.report()
    assert len(bench.api.writes) == 1


async def test_the_watch_that_lags_behind_leads_to_no_second_write():
    old = config("c", {"maxPods": 5})
    bench = Bench(old)
    await bench.report(old)
    await bench.report(old)
    assert len(bench.api.writes) == 1


async def test_a_new_generation_is_reported_and_the_time_of_transition_kept():
    bench = Bench(config("c", {"maxPods": 5}))
    await bench.report()
    bench.api.obj, bench.time = changed(bench.api.obj, maxPods=6), 9
    await bench.report()
    (entry,) = bench.api.writes[1]["status"]["nodes"]
    assert entry["observedGeneration"] == 2
    assert entry["conditions"][0]["lastTransitionTime"] == "t0"


async def test_the_entry_goes_when_the_object_means_other_nodes():
    bench = Bench(config("c", {"maxPods": 5}))
    await bench.report()
    bench.api.obj = changed(bench.api.obj, maxPods=5, nodeSelector={"matchLabels": {"a": "b"}})
    await bench.report()
    assert "status" not in bench.api.writes[1]
    await bench.report()
    assert len(bench.api.writes) == 2, "an object without an entry of ours is left alone"
    await bench.report(labels={"a": "b"})
    assert len(bench.api.writes) == 3, "the node got the label"


async def test_an_entry_that_somebody_removed_is_written_again():
    bench = Bench(config("c", {"maxPods": 5}))
    await bench.report()
    meta = msgspec.structs.replace(bench.api.obj.metadata, managed_fields=[], resource_version="9")
    bench.api.obj = msgspec.structs.replace(bench.api.obj, metadata=meta, status=NodeAgentConfigStatus())
    await bench.report()
    assert len(bench.api.writes) == 2


async def test_writes_wait_their_turn():
    bench = Bench(config("c", {"maxPods": 5}), delay=8.0)
    assert await bench.report() == 8.0
    bench.time = 5.0
    assert await bench.report() == 3.0, "another look does not begin anew"
    assert bench.api.writes == []
    bench.time = 8.0
    assert await bench.report() is None
    assert len(bench.api.writes) == 1


async def test_failures_are_tried_again_later(caplog):
    bench = Bench(config("c", {"maxPods": 5}))
    bench.api.error = ApiError(500, "InternalError", "no")
    pause = await bench.report()
    assert pause is not None
    assert pause > 0
    assert "cannot report to NodeAgentConfig c" in caplog.text
    bench.api.error, bench.time = None, pause
    assert await bench.report() is None
    assert len(bench.api.writes) == 1


async def test_an_object_that_is_gone_is_not_waited_for():
    bench = Bench(config("c", {"maxPods": 5}))
    bench.api.error = NotFound(404, "NotFound", "gone")
    assert await bench.report() is None


def test_managers_differ_by_process_and_node_and_fit():
    long = "n" * 253
    names = {field_manager(c, n) for c in ("agent", "proxy") for n in ("a", "b", long, "m" + long)}
    assert len(names) == 8
    assert max(map(len, names)) <= 128


@pytest.mark.parametrize(("selected", "longest"), [(0, 0.0), (10, 0.2), (5000, module.LONGEST_JITTER)])
def test_many_nodes_spread_their_writes(selected, longest):
    obj = config("c", status={"selected": selected})
    drawn = [jitter(obj) for _ in range(200)]
    assert min(drawn) >= 0
    assert max(drawn) <= longest
    assert max(drawn) >= longest * 0.7
