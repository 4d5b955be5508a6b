"""runAsNonRoot, seccomp profiles of the host, sysctls, and a shared process namespace that is lost."""

import json
from pathlib import Path

import pytest

from nodewright_agent.pods import security
from nodewright_agent.pods.actions import CreateSandbox
from nodewright_agent.pods.admission import mismatch
from nodewright_agent.pods.machine import Settings, decide
from nodewright_agent.pods.model import Instance, PodState, Step, StepState
from nodewright_agent.pods.ports import StartError
from unit.pods.pod_doubles import make_pod


@pytest.mark.parametrize(
    ("context", "image_user", "problem"),
    [
        ({"runAsUser": 0}, "", "container's runAsUser breaks non-root policy"),
        ({"runAsUser": 7}, "root", ""),
        ({}, "", "container has runAsNonRoot and image will run as root"),
        ({}, "0", "container has runAsNonRoot and image will run as root"),
        ({}, "00:5", "container has runAsNonRoot and image will run as root"),
        ({}, "1000", ""),
        ({}, "1000:0", ""),
        ({}, "bob", "container has runAsNonRoot and image has non-numeric user (bob), cannot verify user is non-root"),
        ({}, "²", "container has runAsNonRoot and image has non-numeric user (²), cannot verify user is non-root"),
        ({}, "-1", "container has runAsNonRoot and image has non-numeric user (-1), cannot verify user is non-root"),
    ],
)
def test_run_as_non_root(context, image_user: str, problem: str):
    pod = make_pod({"name": "a", "securityContext": context}, securityContext={"runAsNonRoot": True})
    container = pod.spec.containers[0]
    if not problem:
        security.verify_non_root(pod, container, image_user)
        return
    with pytest.raises(StartError) as caught:
        security.verify_non_root(pod, container, image_user)
    meta = pod.metadata
    shown = f'(pod: "{meta.name}_{meta.namespace}({meta.uid})", container: a)'
    assert (caught.value.reason, caught.value.message) == ("CreateContainerConfigError", f"{problem} {shown}")


@pytest.mark.parametrize(
    ("name", "reason", "told"),
    [
        ("", "Config", "localhostProfile must be set if seccompProfile type is Localhost."),
        ("/etc/passwd", "Config", "seccomp localhostProfile '/etc/passwd' is not a relative path without '..'"),
        ("../x", "Config", "seccomp localhostProfile '../x' is not a relative path without '..'"),
        ("a/../../x", "Config", "seccomp localhostProfile 'a/../../x' is not a relative path without '..'"),
        ("missing.json", "", 'cannot load seccomp profile "{0}": open {0}: no such file or directory'),
        (".", "", 'cannot load seccomp profile "{1}": open {1}: is a directory'),
        ("broken.json", "", 'decoding seccomp profile failed "{0}": Input data was truncated'),
        ("list.json", "", 'decoding seccomp profile failed "{0}": Expected `object`, got `array`'),
    ],
)
def test_localhost_seccomp(tmp_path: Path, name: str, reason: str, told: str):
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "list.json").write_text("[]")
    profile = {"type": "Localhost", "localhostProfile": name}
    pod = make_pod({"name": "a", "securityContext": {"seccompProfile": profile}})
    with pytest.raises(StartError) as caught:
        security.seccomp_profile(pod, pod.spec.containers[0], [], tmp_path)
    text = told.format(tmp_path / name, tmp_path)
    assert (caught.value.reason, caught.value.message) == (f"CreateContainer{reason}Error", text)


def test_localhost_seccomp_is_given_as_it_is(tmp_path: Path):
    (tmp_path / "mine.json").write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW"}))
    profile = {"type": "Localhost", "localhostProfile": "mine.json"}
    pod = make_pod(securityContext={"seccompProfile": profile})
    found = security.seccomp_profile(pod, pod.spec.containers[0], [], tmp_path)
    assert found == {"defaultAction": "SCMP_ACT_ALLOW"}


@pytest.mark.parametrize(
    ("name", "host", "problem"),
    [
        ("net.core.somaxconn", {}, '"net.core.somaxconn" not allowlisted'),
        ("net/core/somaxconn", {}, '"net.core.somaxconn" not allowlisted'),
        (
            "net.ipv4.tcp_syncookies",
            {"hostNetwork": True},
            '"net.ipv4.tcp_syncookies" not allowed with host Net enabled',
        ),
        ("kernel.shm_rmid_forced", {"hostIPC": True}, '"kernel.shm_rmid_forced" not allowed with host IPC enabled'),
        ("kernel.msgmax", {"hostIPC": True}, '"kernel.msgmax" not allowed with host IPC enabled'),
        ("kernel.shm_rmid_forced", {"hostNetwork": True}, ""),
        ("kernel.msgmax", {}, ""),
    ],
)
def test_sysctls(name: str, host, problem: str):
    pod = make_pod(securityContext={"sysctls": [{"name": name, "value": "1"}]}, **host)
    refusal = mismatch(pod, {}, "node", ["kernel.msg*"])
    assert refusal == (("SysctlForbidden", f"forbidden sysctl: {problem}") if problem else None)


def test_unknown_capabilities_are_refused():
    given = {"add": ["NET_ADMIN", "FLY"]}
    pod = make_pod({"name": "a", "securityContext": {"capabilities": given}})
    with pytest.raises(StartError, match="unknown capability 'FLY'"):
        security.capabilities(pod, pod.spec.containers[0])


def test_a_changed_sandbox_waits_for_what_ran_in_the_old_one():
    pod = make_pod()
    state = PodState(sandbox=Step(), volumes=Step(StepState.READY))
    run = Instance("c1", "a", 0, state="running", image="img", stale=True)
    state.add(run)
    name = pod.spec.containers[0].name
    run.name = name
    state.instances = {name: [run]}
    assert not any(isinstance(action, CreateSandbox) for action in decide(pod, state, 1.0, Settings()).actions)
    run.state, run.exit_code = "exited", 137
    assert any(isinstance(action, CreateSandbox) for action in decide(pod, state, 1.0, Settings()).actions)
