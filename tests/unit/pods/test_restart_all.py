"""RestartAllContainers (KEP-5532), and what becomes of a pod whose node was rebooted; in virtual time."""

import asyncio
from typing import Any

import msgspec
import pytest

from nodewright_agent.pods.backoff import BackoffPolicy
from nodewright_agent.pods.machine import Settings
from nodewright_agent.pods.model import Backoff, Instance, PodState
from nodewright_agent.pods.records import PodRecord
from nodewright_agent.pods.restart import over_after_reboot, rule_action
from unit.pods.pod_doubles import START, FakeOperations, Rig, deleted, make_pod, scenario

RULE = {"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [42]}}
SOURCE = {"restartPolicy": "Never", "restartPolicyRules": [RULE]}


def starts(rig: Rig) -> list[str]:
    return [call.split(" ")[1] for call in rig.operations.calls if call.startswith("start ")]


def condition(rig: Rig, kind: str, index: int = -1) -> Any:
    return {one.type: one for one in rig.sink.statuses[index].conditions}[kind]


@pytest.mark.parametrize(
    ("operator", "values", "code", "expected"),
    [
        ("In", [42], 42, "RestartAllContainers"),
        ("In", [42], 1, "Restart"),
        ("NotIn", [42], 1, "RestartAllContainers"),
        ("NotIn", [42], 42, "Restart"),
    ],
)
def test_the_first_rule_that_speaks_of_the_code_counts(operator, values, code, expected):
    rules = [
        {"action": "RestartAllContainers", "exitCodes": {"operator": operator, "values": values}},
        {"action": "Restart", "exitCodes": {"operator": "NotIn", "values": [0]}},
    ]
    pod = make_pod({"name": "a", "restartPolicy": "Never", "restartPolicyRules": rules})
    assert rule_action(pod.spec.containers[0], code) == expected


def test_all_containers_start_again_from_the_first_init_container():
    pod = make_pod(
        {"name": "a", **SOURCE, "lifecycle": {"preStop": {"exec": {"command": ["x"]}}}},
        {"name": "b"},
        init=[{"name": "i"}, {"name": "s", "restartPolicy": "Always"}],
        policy="Never",
    )
    operations = FakeOperations(lifetimes={"i": [(0.1, 0), (0.1, 0)], "a": [(5, 42)]}, ignore_term={"b", "s"})

    @scenario(pod, operations)
    async def _(rig: Rig) -> None:
        await asyncio.sleep(8)
        assert starts(rig) == ["i", "s", "a", "b"] * 2
        assert not any(call.split(" ")[0] in ("preStop", "term", "teardown") for call in operations.calls)
        assert sorted(call for call in operations.calls if call.startswith("kill")) == ["kill b", "kill s"]
        every = (*rig.status.init_container_statuses, *rig.status.container_statuses)
        assert {one.name: one.restart_count for one in every} == dict.fromkeys("isab", 1)
        assert rig.one.last_state.terminated.exit_code == 42
        assert rig.status.phase == "Running"
        told = [
            (s.phase, c.status, c.reason)
            for s in rig.sink.statuses
            for c in s.conditions
            if c.type == "AllContainersRestarting"
        ]
        assert ("Pending", "True", "RestartAllContainersStarted") in told
        assert told[-1] == ("Running", "False", "")
        assert not any(phase in ("Failed", "Succeeded") for phase, _, _ in told)
        initialised = [c.status for s in rig.sink.statuses for c in s.conditions if c.type == "Initialized"]
        assert initialised == sorted(initialised), "once initialised, always initialised"
        assert {call for call in operations.calls if call in ("sandbox", "volumes")} == {"sandbox", "volumes"}
        assert operations.calls.count("sandbox") == 1


def test_an_init_container_may_ask_for_it():
    pod = make_pod(init=[{"name": "s", "restartPolicy": "Always"}, {"name": "i", **SOURCE}], policy="Never")

    @scenario(pod, FakeOperations(lifetimes={"i": [(1, 42), (1, 0)]}))
    async def _(rig: Rig) -> None:
        await asyncio.sleep(5)
        assert starts(rig) == ["s", "i", "s", "i", "a"]
        assert rig.status.phase == "Running"
        assert rig.one.restart_count == 0


def test_a_loop_of_restarts_is_slowed_down_by_who_asks():
    pod = make_pod({"name": "a", **SOURCE}, {"name": "b", **SOURCE}, policy="Never")

    @scenario(pod, FakeOperations(lifetimes={"a": [(1, 42)] * 9}))
    async def _(rig: Rig) -> None:
        await asyncio.sleep(1 + 1 + 10 + 1 + 5)
        assert starts(rig) == ["a", "b"] * 2 + ["b", "a"] + ["b"]
        assert rig.one.state.waiting.reason == "CrashLoopBackOff"


def test_after_it_the_pod_fails_by_its_policy():
    pod = make_pod({"name": "a", **SOURCE}, init=[{"name": "i"}], policy="Never")

    @scenario(pod, FakeOperations(lifetimes={"i": [(1, 0), (1, 1)], "a": [(1, 42)]}))
    async def _(rig: Rig) -> None:
        await asyncio.sleep(8)
        assert rig.status.phase == "Failed"
        assert condition(rig, "AllContainersRestarting").reason == "PodFailed"


def test_a_deletion_ends_the_restart():
    pod = make_pod({"name": "a", **SOURCE}, {"name": "b"}, policy="Never")

    @scenario(pod, FakeOperations(lifetimes={"a": [(1, 42)]}, delays={"kill b": 5}))
    async def _(rig: Rig) -> None:
        await asyncio.sleep(3)
        rig.worker.update(deleted(rig.worker.pod, 5))
        await asyncio.sleep(10)
        assert rig.task.done()
        assert starts(rig) == ["a", "b"]


def test_it_survives_the_agents_restart():
    pod = make_pod({"name": "a", **SOURCE}, {"name": "b"}, policy="Never")
    state = PodState(start_time=START, restart_all=True)
    state.add(Instance("1", "a", 0, state="exited", exit_code=42, image="img"))
    state.add(Instance("2", "b", 0, state="running", image="img"))
    stored = msgspec.json.decode(msgspec.json.encode(PodRecord.of(pod, state)), type=PodRecord)
    operations = FakeOperations()
    operations.running["2"] = stored.runs[1]

    @scenario(pod, operations, stored.state())
    async def _(rig: Rig) -> None:
        await asyncio.sleep(1)
        assert operations.calls[0] == "kill b"
        assert starts(rig) == ["a", "b"]
        assert [one.restart_count for one in rig.status.container_statuses] == [1, 1]


def rebooted(**codes: int) -> PodState:
    state = PodState(start_time=START)
    for name, code in codes.items():
        run = Instance(name, name, 0, state="exited", exit_code=code, image="img", stale=True, finished_at=START)
        state.add(run)
    return state


@pytest.mark.parametrize(
    ("policy", "codes", "over"),
    [
        ("Always", {"i": 0, "a": 0}, False),
        ("Always", {"i": 0, "a": 137}, False),
        ("OnFailure", {"i": 0, "a": 0}, True),
        ("OnFailure", {"i": 0, "a": 137}, False),
        ("OnFailure", {"i": 0}, False),
        ("Never", {"i": 0, "a": 137}, True),
        ("Never", {"i": 137}, True),
        ("Never", {}, False),
    ],
)
def test_which_pods_are_over_after_a_reboot(policy, codes, over):
    pod = make_pod(init=[{"name": "i"}], policy=policy)
    assert over_after_reboot(pod, rebooted(**codes)) is over


@pytest.mark.parametrize(("policy", "over"), [("Always", False), ("OnFailure", False), ("Never", True)])
def test_an_end_that_was_not_told_yet_is_none(policy, over):
    state = rebooted(a=0)
    state.instances["a"][0].state = "running"
    assert over_after_reboot(make_pod(policy=policy), state) is over


def test_a_pod_that_is_never_restarted_ends_with_its_node():
    @scenario(make_pod(init=[{"name": "i"}], policy="Never"), state=rebooted(i=0, a=137))
    async def _(rig: Rig) -> None:
        await asyncio.sleep(1)
        assert rig.status.phase == "Failed"
        assert rig.operations.calls == ["teardown"]


def test_after_a_reboot_all_starts_anew_without_back_off():
    state = rebooted(i=0, a=137)
    state.backoffs["b"] = Backoff(300, START)

    @scenario(make_pod(init=[{"name": "i"}]), FakeOperations(lifetimes={"i": [(1, 0)]}), state)
    async def _(rig: Rig) -> None:
        await asyncio.sleep(3)
        assert starts(rig) == ["i", "a"]
        assert "SandboxChanged" in rig.events.reasons()
        assert rig.one.restart_count == 1
        assert "a" not in rig.worker.state.backoffs
        assert rig.worker.deps.settings == Settings(BackoffPolicy())
