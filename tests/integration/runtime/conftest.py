"""A root file system from Debian's busybox-static, a runtime of its own per test, and the proof that nothing stays."""

import contextlib
import os
import shutil
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from nodewright_agent.runtime import cleanup
from nodewright_agent.runtime.runtime import Runtime
from nodewright_agent.runtime.sandbox import Sandboxes
from support.runtime_host import Host

TOOLS = ("sh", "sleep", "cat", "echo", "true", "id", "ps", "env", "mount", "hostname", "kill", "touch", "ls", "dd")
TOOLS += ("yes", "stat", "head", "seq", "grep", "readlink", "wc", "ln", "mkdir", "rm")


@pytest.fixture(scope="session")
def busybox_layer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One image layer with a static busybox."""
    layer = tmp_path_factory.mktemp("layer")
    layer.chmod(0o755)
    for name in ("bin", "proc", "dev", "sys", "etc", "tmp", "run", "var"):
        (layer / name).mkdir()
    shutil.copy("/usr/bin/busybox", layer / "bin/busybox")
    for tool in TOOLS:
        (layer / "bin" / tool).symlink_to("busybox")
    (layer / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nbob:x:1000:100::/:/bin/sh\n")
    (layer / "etc/group").write_text("root:x:0:\nusers:x:100:\naudio:x:29:bob\n")
    (layer / "var/run").symlink_to("/run")
    return layer


@pytest.fixture
def host(tmp_path: Path, busybox_layer: Path) -> Iterator[Host]:
    """Directories and a cgroup root of this test alone; afterwards everything must be gone after one purge."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    name = f"t{uuid.uuid4().hex[:8]}"
    here = Host(name=name, run=Path(f"/run/nodewright-test/{name}"), state=tmp_path / "state", layer=busybox_layer)
    here.logs.mkdir()
    before = here.leftovers()
    assert before == {}
    try:
        yield here
    finally:
        here.run.parent.mkdir(exist_ok=True)
        cleanup.purge(run_dir=here.run, state_dir=here.state, cgroup_root=here.cgroup_root, cgroups=here.cgroups)
        left = here.leftovers()
        with contextlib.suppress(OSError):  # another test run is there still, or has removed it
            here.run.parent.rmdir()
    assert left == {}


@pytest.fixture
async def runtime(host: Host) -> AsyncIterator[Runtime]:
    """An open runtime."""
    opened = host.runtime()
    await opened.open()
    try:
        yield opened
    finally:
        await opened.close()


@pytest.fixture
def sandboxes(host: Host) -> Sandboxes:
    """Sandboxes below the test's run directory."""
    return Sandboxes(host.run / "sandboxes")
