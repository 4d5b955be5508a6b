"""`nodewright cleanup` on a host where something still runs, or nothing ever ran."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PROGRAM = [sys.executable, "-m", "nodewright.cli.main"]

pytestmark = pytest.mark.needs_root


@pytest.fixture
def config(tmp_path: Path) -> Path:
    settings = {
        "state_dir": str(tmp_path / "state"),
        "run_dir": "/run/nodewright-test/nothing",
        "cgroup_root": "/nodewright-test-nothing",
        "node_ip": "127.0.0.1",
    }
    path = tmp_path / "agent.json"
    path.write_text(json.dumps(settings))
    return path


def cleanup(config: Path, *options: str, net: str = "--net") -> subprocess.Popen[str]:
    """In an empty network namespace: what is removed from the network is not this machine's."""
    words = ["unshare", net, *PROGRAM, "cleanup", f"--config={config}", *options]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_nothing_there_is_fine_and_it_stays_when_told(config: Path):
    with cleanup(config, "--stay") as process:
        try:
            assert process.stdout is not None
            lines = [process.stdout.readline().strip() for _ in range(7)]
            names = ("containers", "mounts", "network", "service rules", "log links", "files")
            assert lines[:-1] == [f"{name}: nothing there" for name in names]
            assert lines[-1] == "nothing of Nodewright is left on this host"
            time.sleep(0.3)
            assert process.poll() is None
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=10) == 0
        finally:
            process.kill()


def test_a_proxy_on_the_host_is_waited_for_and_one_elsewhere_is_not(config: Path, tmp_path: Path):
    script = tmp_path / "nodewright"
    script.write_text("import time; time.sleep(60)")
    holder = subprocess.Popen(["unshare", "--net", sys.executable, script, "proxy"])
    try:
        deadline = time.monotonic() + 10
        while os.readlink(f"/proc/{holder.pid}/ns/net") == os.readlink("/proc/self/ns/net"):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        elsewhere = cleanup(config, "--wait=5")
        elsewhere.communicate(timeout=30)
        assert elsewhere.returncode == 0

        words = ["nsenter", f"--net=/proc/{holder.pid}/ns/net", *PROGRAM, "cleanup", f"--config={config}", "--wait=0.3"]
        refused = subprocess.run(words, capture_output=True, text=True, check=False)
        assert refused.returncode == 3, refused.stdout
        assert f"a service proxy is still running on this host (process {holder.pid})" in refused.stderr

        patient = subprocess.Popen([*words[:-1], "--wait=30"], stdout=subprocess.PIPE, text=True)
        time.sleep(1)
        assert patient.poll() is None
    finally:
        holder.kill()
        holder.wait()
    output, _ = patient.communicate(timeout=30)
    assert patient.returncode == 0
    assert "nothing of Nodewright is left" in output


def test_settings_that_are_wrong_touch_nothing(config: Path):
    config.write_text('{"cgroup_root": "relative"}')
    process = cleanup(config)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 2
    assert "cgroup_root" in output
