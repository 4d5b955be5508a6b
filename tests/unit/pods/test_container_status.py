"""What the status of one container says while it is being restarted."""

import pytest

from nodewright.kube.objects import ContainerState, ContainerStateWaiting
from nodewright_agent.pods.model import Instance, PodState
from nodewright_agent.pods.status import container_status
from unit.pods.pod_doubles import make_pod

MISSING = ContainerState(waiting=ContainerStateWaiting(reason="ContainerCreating"))


@pytest.mark.parametrize(
    ("state", "count", "number", "shown"),
    [("created", 6, "old", "waiting"), ("running", 7, "new", "running"), ("exited", 7, "new", "terminated")],
)
def test_a_restart_counts_once_it_runs(state: str, count: int, number: str, shown: str) -> None:
    """Who sees the number change takes the times that stand beside it for those of that run (upstream's e2e does)."""
    pod = make_pod()
    name = pod.spec.containers[0].name
    ended = Instance("old", name, 6, "exited", started_at=100.0, finished_at=105.0)
    runs = PodState(instances={name: [ended, Instance("new", name, 7, state, started_at=405.0)]})
    status = container_status(pod.spec.containers[0], runs, None, None, MISSING, False)
    assert (status.restart_count, status.container_id) == (count, f"nodewright://{number}")
    assert getattr(status.state, shown) is not None
    assert status.last_state.terminated is not None
    assert status.last_state.terminated.finished_at == "1970-01-01T00:01:45Z"
