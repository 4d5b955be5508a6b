"""Whatever happens to a pod, and in whatever order: invariants of the machine and of what is reported."""

import asyncio
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from unit.pods.pod_doubles import FakeOperations, ImageProblem, Rig, StartError, deleted, make_pod, run_virtual

ERRORS = {
    "sandbox": OSError("sandbox"),
    "volumes": OSError("volumes"),
    "image a": ImageProblem("ErrImagePull", "no"),
    "image b": ImageProblem("ErrImageNeverPull", "no"),
    "create a": StartError("CreateContainerConfigError", "no"),
    "create b": StartError("CreateContainerError", "no"),
    "start a": StartError("RunContainerError", "no", ran=True),
    "start i": StartError("RunContainerError", "no", ran=True),
    "teardown": OSError("busy"),
}
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("pass"), st.floats(0.01, 40)),
        st.tuples(st.just("end"), st.sampled_from(["a", "b", "i", "s"]), st.integers(0, 3)),
        st.tuples(st.just("fail"), st.sampled_from(sorted(ERRORS))),
        st.tuples(st.just("live"), st.sampled_from(["a", "s"])),
        st.tuples(st.just("image"), st.sampled_from(["img", "img2"])),
        st.tuples(st.just("delete"), st.integers(0, 60)),
        st.tuples(st.just("remove")),
    ),
    min_size=2,
    max_size=16,
)


def pod_of(policy: str, image: str = "img", init: bool = True) -> Any:
    inits = [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}] if init else []
    return make_pod({"name": "a", "image": image}, {"name": "b"}, init=inits, policy=policy)


async def play(policy: str, init: bool, steps: list[Any], stubborn: bool) -> None:
    operations = FakeOperations(ignore_term={"a", "s"} if stubborn else set())
    rig = Rig(pod_of(policy, init=init), operations)
    current = pod_of(policy, init=init)
    gone_or_deleted = False
    try:
        for step in steps:
            await asyncio.sleep(0.05)
            match step:
                case ("pass", seconds):
                    await asyncio.sleep(seconds)
                case ("end", name, code):
                    for run in [run for run in operations.running.values() if run.name == name]:
                        operations.end(run.id, code)
                case ("fail", what):
                    operations.failures.setdefault(what, []).append(ERRORS[what])
                case ("live", name):
                    run = rig.worker.state.latest(name)
                    if run is not None:
                        run.liveness = False
                    rig.worker.wake()
                case ("image", image) if not gone_or_deleted:
                    current = pod_of(policy, image, init)
                    rig.worker.update(current)
                case ("delete", grace):
                    current = deleted(current, grace)
                    gone_or_deleted = True
                    rig.worker.update(current)
                case ("remove",):
                    gone_or_deleted = True
                    rig.worker.remove()
            check(rig)
        # In the end a deletion always gets through, whatever went before.
        rig.worker.update(deleted(current, 5))
        await asyncio.sleep(120)
        check(rig)
        assert rig.task.done()
        rig.task.result()
        assert not operations.running
        assert operations.calls[-1] == "forget"
    finally:
        await rig.close()


def check(rig: Rig) -> None:
    operations = rig.operations
    assert all(most == 1 for most in operations.most_at_once.values()), operations.most_at_once
    phases = [status.phase for status in rig.sink.statuses]
    for before, after in pairwise(phases):
        assert before not in ("Succeeded", "Failed") or after == before, phases
        assert (before, after) != ("Running", "Pending"), phases
    counts: dict[str, int] = {}
    for status in rig.sink.statuses:
        for one in (*status.init_container_statuses, *status.container_statuses):
            assert one.restart_count >= counts.get(one.name, 0)
            counts[one.name] = one.restart_count
            states = [one.state.waiting, one.state.running, one.state.terminated]
            assert sum(state is not None for state in states) == 1
            assert not one.ready or one.state.running is not None or one.state.terminated is not None
    mains = [call for call in operations.calls if call in ("start a", "start b")]
    if rig.worker.pod.spec.init_containers and mains:
        first = operations.calls.index(mains[0])
        assert "start i" in operations.calls[:first]
        assert "start s" in operations.calls[:first]


@settings(max_examples=200)
@given(st.sampled_from(["Always", "OnFailure", "Never"]), st.booleans(), STEPS, st.booleans())
def test_invariants(policy, init, steps, stubborn):
    run_virtual(play(policy, init, steps, stubborn))
