"""Pod + container + image to the runtime's order."""

from pathlib import Path

import msgspec
import pytest

from nodewright_agent.pods import security, spec
from nodewright_agent.pods.model import Instance
from nodewright_agent.pods.ports import StartError
from nodewright_agent.runtime.images.config import ImageConfig
from nodewright_agent.runtime.images.model import Image
from nodewright_agent.runtime.sandbox import SandboxPaths
from nodewright_agent.runtime.spec import Mount
from unit.pods.pod_doubles import make_pod

NODE = spec.NodeSettings("/nw", 4 << 30, Path("/seccomp"), Path("/logs"))
PATHS = SandboxPaths(net="/sb/net", ipc="/sb/ipc", uts="/sb/uts", shm="/sb/shm")


def image(**config):
    return Image("sha256:1", ["img"], [], 1, ImageConfig(**config), [Path("/l/2"), Path("/l/1")])


def order(container=None, given=None, env=(), volume_mounts=(), **pod_spec):
    pod = make_pod({"name": "a", **(container or {})}, **pod_spec)
    inputs = spec.Inputs(
        pod=pod,
        container=pod.spec.containers[0],
        run=Instance("cid", "a", 3),
        image=given or image(entrypoint=["/entry"], cmd=["cmd"], env=["PATH=/bin", "X=image"]),
        env=env,
        sandbox=spec.Sandbox(PATHS, "host", Path("/p/etc-hosts"), Path("/p/resolv.conf")),
        volume_mounts=volume_mounts,
        message_file=Path("/p/message"),
        expand=lambda text: text.replace("$(X)", "own"),
    )
    return spec.container_spec(inputs, NODE)


@pytest.mark.parametrize(
    ("container", "argv"),
    [
        ({}, ["/entry", "cmd"]),
        ({"args": ["x"]}, ["/entry", "x"]),
        ({"command": ["c"]}, ["c"]),
        ({"command": ["c"], "args": ["$(X)"]}, ["c", "own"]),
    ],
)
def test_command(container, argv):
    assert order(container).argv == argv


def test_what_every_container_gets():
    made = order(env=[("X", "own"), ("Y", "2")])
    assert made.lowers == ["/l/2", "/l/1"]
    assert made.env == ["PATH=/bin", "X=own", "Y=2"]
    assert (made.netns, made.ipc_ns, made.uts_ns, made.pid_ns) == ("/sb/net", "/sb/ipc", "/sb/uts", None)
    assert made.log_path == "/logs/ns_pod_uid-1/a/3.log"
    assert made.cgroup_parent == "/nw/kubepods/besteffort/poduid-1"
    assert made.oom_score_adj == 1000
    assert {mount.destination for mount in made.mounts} == {"/etc/hosts", "/etc/resolv.conf", "/dev/shm"}
    assert made.termination_log == "/p/message"
    assert made.seccomp is not None
    assert made.stop_signal == "SIGTERM"
    assert made.cwd == "/"


def test_own_mounts_replace_managed_files():
    container = {"volumeMounts": [{"name": "v", "mountPath": "/etc/hosts"}, {"name": "v", "mountPath": "/dev/shm/"}]}
    assert [mount.destination for mount in order(container).mounts] == ["/etc/resolv.conf"]


@pytest.mark.parametrize(
    ("container", "pod_context", "user", "problem"),
    [
        ({}, {}, "", None),
        ({}, {"runAsNonRoot": True}, "", "image will run as root"),
        ({}, {"runAsNonRoot": True}, "0", "image will run as root"),
        ({}, {"runAsNonRoot": True}, "1000:1000", None),
        ({}, {"runAsNonRoot": True}, "nobody", "non-numeric user (nobody)"),
        ({}, {"runAsNonRoot": True, "runAsUser": 5}, "nobody", None),
        ({"securityContext": {"runAsUser": 0}}, {"runAsNonRoot": True}, "7", "runAsUser breaks non-root policy"),
        ({"securityContext": {"runAsNonRoot": False}}, {"runAsNonRoot": True}, "", None),
    ],
)
def test_run_as_non_root(container, pod_context, user, problem):
    pod = make_pod({"name": "a", **container}, securityContext=pod_context)
    if problem is None:
        security.verify_non_root(pod, pod.spec.containers[0], user)
        return
    with pytest.raises(StartError, match=problem.replace("(", r"\(").replace(")", r"\)")) as caught:
        security.verify_non_root(pod, pod.spec.containers[0], user)
    assert caught.value.reason == "CreateContainerConfigError"


def test_security_settings():
    context = {
        "runAsUser": 7,
        "capabilities": {"add": ["NET_ADMIN"], "drop": ["ALL"]},
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "seccompProfile": {"type": "Unconfined"},
    }
    made = order(
        {"securityContext": context}, securityContext={"runAsGroup": 8, "fsGroup": 9, "supplementalGroups": [10]}
    )
    assert (made.user.uid, made.user.gid, made.user.additional_gids) == (7, 8, [9, 10])
    assert made.capabilities == ["CAP_NET_ADMIN"]
    assert made.no_new_privileges
    assert made.read_only_rootfs
    assert made.seccomp is None
    access = {mount.destination: mount.options[-1] for mount in made.mounts}
    assert (access["/etc/hosts"], access["/etc/resolv.conf"]) == ("rw", "ro")


def test_volumes_of_the_image_stay_writable():
    declared = image(entrypoint=["/entry"], volumes=["/data", "/tmp", "/etc/hosts", "/logs"])
    container = {
        "securityContext": {"readOnlyRootFilesystem": True},
        "volumeMounts": [{"name": "v", "mountPath": "/tmp/"}],
    }
    mounted = [Mount("/p/v", "/tmp/")]
    assert order(container, declared, volume_mounts=mounted).image_volumes == ["/data", "/logs"]
    assert order({}, declared).image_volumes == []


def test_localhost_seccomp_profiles_stay_in_their_directory():
    profile = {"type": "Localhost", "localhostProfile": "../etc/passwd"}
    with pytest.raises(StartError, match="is not a relative path"):
        order({"securityContext": {"seccompProfile": profile}})


def test_resources():
    given = {"requests": {"cpu": "250m", "memory": "64Mi"}, "limits": {"cpu": "500m", "memory": "128Mi"}}
    made = order({"resources": given}).resources
    assert (made.cpu_shares, made.cpu_quota, made.cpu_period, made.memory_limit) == (256, 50000, 100000, 128 << 20)


def test_order_survives_the_disk():
    made = order(env=[("X", "1")])
    assert msgspec.json.decode(msgspec.json.encode(made), type=spec.ContainerSpec) == made
