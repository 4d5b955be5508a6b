"""Pod + container to CRI's configs, by kubelet's rules."""

from pathlib import Path

import pytest

from nodewright_agent.cri import wire
from nodewright_agent.pods import resources, spec
from nodewright_agent.pods.files import DNS
from nodewright_agent.pods.model import Instance
from nodewright_agent.pods.ports import StartError
from nodewright_agent.remote import config, labels
from nodewright_agent.runtime.images.config import ImageConfig
from nodewright_agent.runtime.images.model import Image
from nodewright_agent.runtime.oci import MASKED_PATHS, READ_ONLY_PATHS
from nodewright_agent.runtime.sandbox import SandboxPaths
from nodewright_agent.runtime.spec import Device, IdRange, Mount
from unit.pods.pod_doubles import make_pod

NODE = spec.NodeSettings(
    "/nw", 4 << 30, Path("/seccomp"), Path("/logs"), cgroups=resources.CgroupSettings(page_sizes=("2MB",))
)
PLACING = config.Placing("node-1", NODE)
IDS = IdRange(131072, 65536)
HOST = config.Host()


def order(
    container=None, *, host=HOST, user="", mounts=(), devices=(), ids=None, target="", images=(), **pod_spec
):  # fmt: skip
    pod = make_pod({"name": "a", "image": "img:1", **(container or {})}, **pod_spec)
    inputs = spec.Inputs(
        pod=pod,
        container=pod.spec.containers[0],
        run=Instance("cid", "a", 3),
        image=Image("sha256:1", ["img:1"], ["img@sha256:2"], 1, ImageConfig(user=user), []),
        env=[("X", "own")],
        sandbox=spec.Sandbox(
            SandboxPaths(net=None, ipc=None, uts="", shm=""), "h", Path("/p/hosts"), Path("/p/resolv"), ids=ids
        ),
        volume_mounts=mounts,
        devices=devices,
        message_file=Path("/p/message"),
        expand=lambda text: text.replace("$(X)", "own"),
    )
    placing = config.Placing("node-1", NODE, host)
    return config.container(inputs, placing, target=target, images=images, program_user=user)


def sandbox(ids=None, **pod_spec):
    pod = make_pod({"name": "a", "image": "img:1", **pod_spec.pop("container", {})}, **pod_spec)
    return config.sandbox(pod, 2, "host", DNS(["10.0.0.10"], ["x.svc"], ["ndots:5"]), ids, PLACING)


def context(**fields):
    return order({"securityContext": fields}).linux.security_context


def test_a_sandbox():
    made = sandbox()
    meta = made.metadata
    assert (meta.name, meta.namespace, meta.uid, meta.attempt) == ("pod", "ns", "uid-1", 2)
    assert made.hostname == "host"
    assert made.log_directory == "/logs/ns_pod_uid-1"
    assert (list(made.dns_config.servers), list(made.dns_config.options)) == (["10.0.0.10"], ["ndots:5"])
    assert made.linux.cgroup_parent == "/nw/kubepods/besteffort/poduid-1"
    assert made.labels[labels.POD_UID] == "uid-1"
    assert made.labels[labels.NODE] == "node-1"
    space = made.linux.security_context.namespace_options
    assert (space.network, space.ipc, space.pid) == (wire.POD, wire.POD, wire.CONTAINER)
    assert space.userns_options.mode == wire.NODE
    assert not made.linux.security_context.privileged
    assert made.linux.security_context.seccomp.profile_type == wire.RuntimeDefault


def test_a_sandboxs_overhead_is_told_apart():
    amounts = {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"cpu": "100m", "memory": "64Mi"}}
    made = sandbox(container={"resources": amounts}, overhead={"cpu": "250m", "memory": "32Mi"})
    assert (made.linux.resources.cpu_quota, made.linux.resources.memory_limit_in_bytes) == (10000, 64 << 20)
    assert (made.linux.overhead.cpu_quota, made.linux.overhead.memory_limit_in_bytes) == (25000, 32 << 20)


def test_sysctls_are_spelled_with_dots():
    wanted = [{"name": "net/ipv4/conf/eth0.1/forwarding", "value": "1"}, {"name": "kernel.shmmax", "value": "2"}]
    made = sandbox(securityContext={"sysctls": wanted}).linux.sysctls
    assert dict(made) == {"net.ipv4.conf.eth0/1.forwarding": "1", "kernel.shmmax": "2"}


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({"hostNetwork": True}, (wire.NODE, wire.POD, wire.CONTAINER)),
        ({"hostIPC": True}, (wire.POD, wire.NODE, wire.CONTAINER)),
        ({"hostPID": True}, (wire.POD, wire.POD, wire.NODE)),
        ({"shareProcessNamespace": True}, (wire.POD, wire.POD, wire.POD)),
    ],
)
def test_whose_namespaces(fields, wanted):
    made = sandbox(**fields).linux.security_context.namespace_options
    assert (made.network, made.ipc, made.pid) == wanted
    own = order(**fields).linux.security_context.namespace_options
    assert (own.network, own.ipc, own.pid) == wanted


def test_a_debugger_sees_its_target_unless_it_sees_more_anyway():
    made = order(target="c1").linux.security_context.namespace_options
    assert (made.pid, made.target_id) == (wire.TARGET, "c1")
    shared = order(target="c1", shareProcessNamespace=True).linux.security_context.namespace_options
    assert (shared.pid, shared.target_id) == (wire.POD, "")


def test_the_host_network_has_the_hosts_name_and_no_ports():
    ports = {"ports": [{"containerPort": 80, "hostPort": 80}]}
    made = sandbox(container=ports, hostNetwork=True)
    assert made.hostname == ""
    assert not made.port_mappings


def test_host_ports():
    ports = [
        {"containerPort": 80, "hostPort": 8080, "hostIP": "127.0.0.1"},
        {"containerPort": 53, "hostPort": 53, "protocol": "UDP"},
        {"containerPort": 81},
    ]
    made = sandbox(container={"ports": ports}).port_mappings
    assert [(one.protocol, one.container_port, one.host_port, one.host_ip) for one in made] == [
        (wire.TCP, 80, 8080, "127.0.0.1"),
        (wire.UDP, 53, 53, ""),
    ]


def test_a_user_namespace():
    made = sandbox(ids=IDS, hostUsers=False).linux.security_context.namespace_options.userns_options
    assert made.mode == wire.POD
    assert [(one.host_id, one.container_id, one.length) for one in made.uids] == [(131072, 0, 65536)]
    assert made.uids == made.gids
    mount = order(ids=IDS, mounts=[Mount("/v", "/d", options=["rbind", "rw", "rprivate"])]).mounts[0]
    assert mount.uidMappings[0].host_id == mount.gidMappings[0].host_id == 131072


def test_a_sandbox_is_as_privileged_as_its_containers():
    made = sandbox(
        container={"securityContext": {"privileged": True}},
        securityContext={"runAsUser": 5, "runAsGroup": 6, "fsGroup": 7, "supplementalGroupsPolicy": "Strict"},
    ).linux.security_context
    assert made.privileged
    assert (made.run_as_user.value, made.run_as_group.value) == (5, 6)
    assert list(made.supplemental_groups) == [7]
    assert made.supplemental_groups_policy == wire.Strict


def test_a_container():
    made = order({"command": ["run", "$(X)"], "args": ["$(X)"], "workingDir": "/w", "tty": True, "stdin": True})
    assert (made.metadata.name, made.metadata.attempt) == ("a", 3)
    assert (made.image.image, made.image.user_specified_image) == ("sha256:1", "img:1")
    assert (list(made.command), list(made.args)) == (["run", "own"], ["own"])
    assert [(one.key, one.value) for one in made.envs] == [("X", "own")]
    assert (made.working_dir, made.log_path, made.tty, made.stdin) == ("/w", "a/3.log", True, True)
    assert made.labels[labels.CONTAINER_NAME] == "a"
    assert made.annotations["io.kubernetes.container.restartCount"] == "3"
    assert made.annotations[labels.IMAGE_ID] == "img@sha256:2"
    assert made.linux.resources.oom_score_adj == 1000
    assert [(one.page_size, one.limit) for one in made.linux.resources.hugepage_limits] == [("2MB", 0)]


def test_the_image_has_the_say_where_the_pod_says_nothing():
    made = order()
    assert (list(made.command), list(made.args), made.working_dir) == ([], [], "")
    assert made.stop_signal == 0


def test_the_pods_own_files():
    made = {one.container_path: one.host_path for one in order().mounts}
    assert made == {"/etc/hosts": "/p/hosts", "/dev/termination-log": "/p/message"}
    own = order({"volumeMounts": [{"name": "v", "mountPath": "/etc/hosts/"}], "terminationMessagePath": "/m"})
    assert {one.container_path for one in own.mounts} == {"/m"}


@pytest.mark.parametrize(
    ("options", "readonly", "rro", "propagation"),
    [
        (["rbind", "rw", "rprivate"], False, False, "PROPAGATION_PRIVATE"),
        (["rbind", "ro", "rslave"], True, False, "PROPAGATION_HOST_TO_CONTAINER"),
        (["rbind", "rw", "rshared"], False, False, "PROPAGATION_BIDIRECTIONAL"),
        (["rbind", "ro", "rprivate", "rro"], True, True, "PROPAGATION_PRIVATE"),
    ],
)
def test_volumes(options, readonly, rro, propagation):
    mount = order(mounts=[Mount("/src", "/dst", options=options)]).mounts[0]
    assert (mount.host_path, mount.container_path) == ("/src", "/dst")
    assert (mount.readonly, mount.recursive_read_only) == (readonly, rro)
    assert mount.propagation == getattr(wire, propagation)


def test_what_cri_has_no_word_for_is_refused():
    with pytest.raises(StartError, match="mount /d: options noexec cannot be given to a CRI runtime"):
        order(mounts=[Mount("/s", "/d", options=["rbind", "ro", "rprivate", "noexec"])])
    with pytest.raises(StartError, match="stop signal 'SIGNOPE' cannot be given"):
        order({"lifecycle": {"stopSignal": "SIGNOPE"}})


def test_a_device_goes_by_its_path_on_the_host():
    made = order(devices=[Device(path="/dev/x", major=1, minor=3, access="r", source="/dev/sda")]).devices[0]
    assert (made.container_path, made.host_path, made.permissions) == ("/dev/x", "/dev/sda", "r")


def test_image_volumes_are_the_runtimes():
    shown = config.ImageMount("/data", Image("sha256:9", [], [], 1, ImageConfig(), []), "sub")
    mount = order(images=[shown]).mounts[-1]
    assert (mount.container_path, mount.host_path) == ("/data", "")
    assert (mount.image.image, mount.image_sub_path, mount.readonly) == ("sha256:9", "sub", True)


@pytest.mark.parametrize(("name", "number"), [("SIGUSR1", "SIGUSR1"), ("SIGRTMIN+3", "SIGRTMINPLUS3")])
def test_stop_signals(name, number):
    made = order({"lifecycle": {"stopSignal": name}})
    assert wire.signal_names()[made.stop_signal] == number


def test_resources():
    given = {"requests": {"cpu": "500m", "memory": "64Mi"}, "limits": {"cpu": "1", "memory": "128Mi"}}
    made = order({"resources": given}).linux.resources
    assert (made.cpu_shares, made.cpu_quota, made.cpu_period) == (512, 100_000, 100_000)
    assert made.memory_limit_in_bytes == 128 << 20
    assert made.memory_swap_limit_in_bytes == 0
    assert not made.unified
    first = order({"resources": given}, host=config.Host(1, limits_swap=True)).linux.resources
    assert (first.memory_swap_limit_in_bytes, dict(first.unified)) == (128 << 20, {})
    for asked in (given, {}):  # no container has swap, whether or not its memory is limited
        later = order({"resources": asked}, host=config.Host(2, limits_swap=True)).linux.resources
        assert later.memory_swap_limit_in_bytes == 0
        assert dict(later.unified) == {"memory.oom.group": "1", "memory.swap.max": "0"}


def test_masked_paths():
    assert tuple(context().masked_paths) == MASKED_PATHS
    assert tuple(context().readonly_paths) == READ_ONLY_PATHS
    made = context(procMount="Unmasked")
    assert (list(made.masked_paths), list(made.readonly_paths)) == ([], [])


def test_privileges():
    made = context(
        privileged=True, readOnlyRootFilesystem=True, allowPrivilegeEscalation=False,
        capabilities={"add": ["NET_ADMIN"], "drop": ["ALL"]},
    )  # fmt: skip
    assert (made.privileged, made.readonly_rootfs, made.no_new_privs) == (True, True, True)
    assert list(made.capabilities.add_capabilities) == ["NET_ADMIN"]
    assert list(made.capabilities.drop_capabilities) == ["ALL"]


@pytest.mark.parametrize(
    ("fields", "image_user", "uid", "name", "gid"),
    [
        ({}, "", None, "", None),
        ({}, "1000", 1000, "", None),
        ({}, "nobody", None, "nobody", None),
        ({"runAsUser": 7}, "1000", 7, "", None),
        ({"runAsUser": 7, "runAsGroup": 8}, "", 7, "", 8),
        ({"runAsGroup": 8}, "1000", 1000, "", 8),
        ({"runAsGroup": 8}, "", 0, "", 8),  # a runtime takes no group without a user
    ],
)
def test_who_it_runs_as(fields, image_user, uid, name, gid):
    made = order({"securityContext": fields}, user=image_user).linux.security_context
    assert (made.run_as_user.value if made.HasField("run_as_user") else None) == uid
    assert made.run_as_username == name
    assert (made.run_as_group.value if made.HasField("run_as_group") else None) == gid


def test_capabilities_that_linux_does_not_have():
    with pytest.raises(StartError, match="FLY"):
        context(capabilities={"add": ["FLY"]})


def test_not_as_root():
    with pytest.raises(StartError, match="image will run as root"):
        order(securityContext={"runAsNonRoot": True})


@pytest.mark.parametrize(
    ("profile", "kind", "ref"),
    [
        (None, "RuntimeDefault", ""),
        ({"type": "RuntimeDefault"}, "RuntimeDefault", ""),
        ({"type": "Unconfined"}, "Unconfined", ""),
        ({"type": "Localhost", "localhostProfile": "a/b.json"}, "Localhost", "/seccomp/a/b.json"),
    ],
)
def test_seccomp(profile, kind, ref):
    made = (context(seccompProfile=profile) if profile else context()).seccomp
    assert (made.profile_type, made.localhost_ref) == (getattr(wire, kind), ref)


@pytest.mark.parametrize(
    ("profile", "kind", "ref", "old"),
    [
        ({"type": "RuntimeDefault"}, "RuntimeDefault", "", "runtime/default"),
        ({"type": "Unconfined"}, "Unconfined", "", "unconfined"),
        ({"type": "Localhost", "localhostProfile": "mine"}, "Localhost", "mine", "localhost/mine"),
    ],
)
def test_app_armor(profile, kind, ref, old):
    made = context(appArmorProfile=profile)
    assert (made.apparmor.profile_type, made.apparmor.localhost_ref) == (getattr(wire, kind), ref)
    assert made.apparmor_profile == old
    assert not context().HasField("apparmor")


def test_selinux_labels():
    made = order({"securityContext": {"seLinuxOptions": {"level": "s0:c1"}}}, securityContext={"seLinuxOptions": {}})
    assert made.linux.security_context.selinux_options.level == "s0:c1"
