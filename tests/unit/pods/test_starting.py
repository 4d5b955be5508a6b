"""What becomes of a container that could not be started."""

from unittest.mock import Mock

import pytest

from nodewright_agent.pods.model import Instance, PodState
from nodewright_agent.pods.ports import StartError
from nodewright_agent.pods.starting import RETRY, Starter


@pytest.mark.parametrize(("stale", "pause"), [(False, RETRY), (True, 0.0)])
def test_a_sandbox_that_is_lost_holds_up_no_next_try(stale, pause):
    worker, run = Mock(state=PodState()), Instance("c", "a", 0, state="created", stale=stale)
    worker.state.add(run)
    worker.deps.owners, worker.deps.clock.return_value = {"c": worker}, 100.0
    Starter(worker)._start_failed(run, StartError("CreateContainerError", "the pod's sandbox is gone"))
    assert worker.state.failures["a"].retry_at == 100.0 + pause
    assert (worker.state.all_instances(), worker.deps.owners) == ([], {})
