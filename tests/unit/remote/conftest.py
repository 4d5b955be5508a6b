"""Fixture: containers of a runtime of the test's own."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from nodewright_agent.remote import config
from nodewright_agent.remote.containers import RemoteContainers
from unit.remote.runtime_double import Cgroups, Runtime


@pytest.fixture
def made():
    runtime, cgroups = Runtime(), Cgroups()
    cgroups.below["/nw/kubepods/burstable/podu1"] = {"crio-c1", "crio-new.scope"}
    containers = RemoteContainers(runtime, cgroups, config.Host(), "n", "nw", Path("/layers"))
    told = []
    containers.on_exit = lambda cid, info: told.append((cid, info.code, info.oom_killed, info.reason))
    containers.on_sandbox_lost = lambda uid: told.append(("lost", uid))
    return SimpleNamespace(runtime=runtime, containers=containers, told=told)
