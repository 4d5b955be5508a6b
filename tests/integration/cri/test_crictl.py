"""What a person does with crictl, on real containers."""

import os
import signal
import time
from pathlib import Path

import pytest

from support.cri_server import IMAGE, CriServer

pytestmark = pytest.mark.needs_root


def wait_for(cri: CriServer, cid: str, state: str) -> dict:
    deadline = time.monotonic() + 60
    while (status := cri.json("inspect", cid)["status"])["state"] != state:
        assert time.monotonic() < deadline, status
        time.sleep(0.05)
    return status


def test_version_and_info(cri):
    assert cri.crictl("version").split()[-1] == "v1"
    conditions = {item["type"]: item["status"] for item in cri.json("info")["status"]["conditions"]}
    assert conditions == {"RuntimeReady": True, "NetworkReady": True}
    assert cri.crictl("runtime-config").split()[-1] == "CGROUPFS"


def test_the_life_of_a_pod(cri):
    dns = {"servers": ["10.0.0.10"], "searches": ["a.b"], "options": ["ndots:5"]}
    pod = cri.pod(hostname="webhost", dns_config=dns, labels={"app": "web"}, annotations={"note": "n"})
    sandbox, cid = cri.started(pod, cri.container())
    shown = cri.json("inspectp", sandbox)["status"]
    assert (shown["state"], shown["labels"], shown["annotations"]) == ("SANDBOX_READY", {"app": "web"}, {"note": "n"})
    address = shown["network"]["ip"]
    assert "host=webhost" in cri.fetched(f"http://{address}:8080/")
    assert cri.crictl("exec", "-s", cid, "sh", "-c", "hostname; cat /etc/hostname").split() == ["webhost"] * 2
    resolver = cri.crictl("exec", "-s", cid, "cat", "/etc/resolv.conf").splitlines()
    assert resolver == ["search a.b", "nameserver 10.0.0.10", "options ndots:5"]
    assert "listening on port 8080" in cri.crictl("logs", cid)
    status = wait_for(cri, cid, "CONTAINER_RUNNING")
    assert status["image"]["image"] == IMAGE
    assert status["user"]["linux"]["uid"] == "0"
    cri.crictl("stop", "-t", "30", cid)
    status = cri.json("inspect", cid)["status"]
    assert (status["state"], status["exitCode"], status["reason"]) == ("CONTAINER_EXITED", 0, "Completed")
    assert cri.crictl("ps", "-q") == ""
    assert cri.crictl("ps", "-a", "-q", "--no-trunc") == cid
    cri.crictl("rm", cid)
    cri.crictl("stopp", sandbox)
    assert cri.json("inspectp", sandbox)["status"]["state"] == "SANDBOX_NOTREADY"
    cri.crictl("rmp", sandbox)
    assert cri.crictl("pods", "-q") == ""


def test_commands_by_streams(cri):
    _, cid = cri.started(cri.pod(), cri.container("main", "sleep", "1000"))
    assert cri.crictl("exec", cid, "sh", "-c", "echo out; echo err >&2") == "out"
    assert cri.crictl("exec", "-i", cid, "cat", stdin="over and back") == "over and back"
    with pytest.raises(AssertionError, match="exit code 7"):
        cri.crictl("exec", cid, "sh", "-c", "exit 7")


def test_attach(cri):
    container = cri.container("main", "sh", "-c", "read line; echo got $line", stdin=True, stdin_once=True)
    _, cid = cri.started(cri.pod(), container)
    assert cri.crictl("attach", "-i", cid, stdin="a line\n") == "got a line"
    assert wait_for(cri, cid, "CONTAINER_EXITED")["exitCode"] == 0


def test_a_program_that_is_not_there(cri):
    pod = cri.pod()
    sandbox = cri.crictl("runp", cri.file(pod))
    cid = cri.crictl("create", sandbox, cri.file(cri.container("main", "nosuch")), cri.file(pod))
    with pytest.raises(AssertionError, match="executable file not found"):
        cri.crictl("start", cid)
    status = cri.json("inspect", cid)["status"]
    assert (status["state"], status["exitCode"], status["reason"]) == ("CONTAINER_EXITED", 128, "StartError")
    assert "nosuch" in status["message"]


def test_processes_are_shared_unless_the_container_has_its_own(cri):
    pod = cri.pod()
    sandbox = cri.crictl("runp", cri.file(pod))
    own = {"security_context": {"namespace_options": {"pid": 1}}}
    for name, linux in (("one", {}), ("two", {}), ("alone", own)):
        config = cri.container(name, "sleep", f"1000{len(name)}", linux=linux)
        cri.crictl("start", cri.crictl("create", sandbox, cri.file(config), cri.file(pod)))
    ids = {item["metadata"]["name"]: item["id"] for item in cri.json("ps", "-o", "json")["containers"]}
    seen = cri.crictl("exec", "-s", ids["one"], "ps")
    assert seen.count("sleep 10003") == 2
    assert "/pause" in seen
    assert "sleep" not in cri.crictl("exec", "-s", ids["alone"], "ps").replace("sleep 10005", "")


def test_limits_and_usage(cri):
    resources = {"memory_limit_in_bytes": 64 << 20, "cpu_shares": 512}
    sandbox, cid = cri.started(cri.pod(), cri.container("main", "sleep", "1000", linux={"resources": resources}))
    assert cri.json("inspect", cid)["status"]["resources"]["linux"]["memoryLimitInBytes"] == str(64 << 20)
    cri.crictl("update", "--memory", str(32 << 20), cid)
    assert cri.json("inspect", cid)["status"]["resources"]["linux"]["memoryLimitInBytes"] == str(32 << 20)
    (stats,) = cri.json("stats", "-o", "json", cid)["stats"]
    assert int(stats["memory"]["availableBytes"]["value"]) <= 32 << 20
    (of_pod,) = cri.json("statsp", "-o", "json")["stats"]
    assert of_pod["attributes"]["id"] == sandbox
    assert int(of_pod["linux"]["process"]["processCount"]["value"]) >= 2


def test_a_log_is_reopened_after_it_was_renamed(cri):
    script = "trap 'echo again' USR1; echo first; while :; do sleep 0.1; done"
    _, cid = cri.started(cri.pod(), cri.container("main", "sh", "-c", script))
    path = cri.logs / "web/main.log"
    deadline = time.monotonic() + 60
    while not (path.exists() and "first" in path.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    path.rename(path.with_suffix(".1"))
    cri.crictl("logs", "-r", cid)
    cri.crictl("exec", "-s", cid, "kill", "-USR1", _first(cri, cid))
    while "again" not in path.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert "first" not in path.read_text()


def _first(cri: CriServer, cid: str) -> str:
    """The container's first process, by its number in the shared namespace."""
    lines = cri.crictl("exec", "-s", cid, "ps").splitlines()
    return next(line.split()[0] for line in lines if "trap" in line and "ps" not in line.split())


def test_all_goes_on_when_the_server_is_killed_and_started_anew(cri):
    pod = cri.pod()
    sandbox, running = cri.started(pod, cri.container("running", "sleep", "1000"))
    ended = cri.crictl("create", sandbox, cri.file(cri.container("ended", "sh", "-c", "exit 3")), cri.file(pod))
    made = cri.crictl("create", sandbox, cri.file(cri.container("made", "sleep", "1000")), cri.file(pod))
    address = cri.json("inspectp", sandbox)["status"]["network"]["ip"]
    pid = cri.json("inspect", running)["info"]["pid"]
    cri.stop(signal.SIGKILL)
    os.kill(pid, 0)
    cri.start()
    assert cri.json("inspectp", sandbox)["status"]["network"]["ip"] == address
    assert cri.json("inspect", running)["info"]["pid"] == pid
    assert cri.json("inspect", made)["status"]["state"] == "CONTAINER_CREATED"
    for cid in (ended, made):
        cri.crictl("start", cid)
    assert wait_for(cri, ended, "CONTAINER_EXITED")["exitCode"] == 3
    assert "sleep" in cri.crictl("exec", "-s", made, "ps")


def test_images(cri):
    (image,) = cri.json("images", "-o", "json")["images"]
    assert image["repoTags"] == [IMAGE]
    assert cri.json("inspecti", image["id"][:15])["status"]["id"] == image["id"]
    usage = cri.json("imagefsinfo")["status"]["imageFilesystems"]
    assert int(usage[0]["usedBytes"]["value"]) > 1 << 20
    assert Path(usage[0]["fsId"]["mountpoint"]) == cri.images
