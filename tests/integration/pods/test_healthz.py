"""The health endpoint of an agent that runs: up, stopped in its tracks, and its port taken."""

from __future__ import annotations

import os
import signal
import urllib.error
import urllib.request
from collections.abc import Callable

import pytest

from support.agent_node import AgentNode, wait_until
from support.pod_lab import PodLab

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_cluster]


def healthz(node: AgentNode, timeout: float = 10.0) -> tuple[int, str]:
    """Status and text; status 0 when nobody answers."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{node.settings['healthz_port']}/healthz", None, timeout) as got:
            return got.status, got.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except OSError as error:
        return 0, str(error)


def test_an_agent_that_runs_is_well_until_it_does_not_answer(own_lab: PodLab) -> None:
    node = own_lab.node
    wait_until("200", lambda: healthz(node) == (200, "ok"))
    assert node.process is not None
    os.kill(node.process.pid, signal.SIGSTOP)
    try:
        assert healthz(node, 1.0)[0] == 0
    finally:
        os.kill(node.process.pid, signal.SIGCONT)
    assert healthz(node) == (200, "ok")
    node.stop()
    assert healthz(node)[0] == 0


def test_a_taken_port_is_told_before_anything_is_done(
    shared_node: AgentNode, make_node: Callable[..., AgentNode]
) -> None:
    port = shared_node.settings["healthz_port"]
    wait_until("the first one listens", lambda: healthz(shared_node)[0])
    second = make_node(healthz_port=port)
    second.start()
    assert second.process is not None
    assert second.process.wait(30) == 2
    assert f"healthz_port: cannot listen at 127.0.0.1 port {port}" in " ".join(second.text().split())
