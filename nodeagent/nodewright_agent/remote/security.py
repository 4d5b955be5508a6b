"""The security contexts of sandboxes and containers in CRI's words, by kubelet's rules. Pure.

Upstream: kuberuntime/security_context.go, util/util_linux.go (namespaces), helpers_linux.go (profiles).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nodewright.kube.objects import AppArmorProfile, Container, Pod, SeccompProfile, SELinuxOptions
from nodewright_agent.cri import wire
from nodewright_agent.pods import security
from nodewright_agent.pods.model import all_containers
from nodewright_agent.pods.ports import StartError
from nodewright_agent.runtime.oci import MASKED_PATHS, READ_ONLY_PATHS
from nodewright_agent.runtime.spec import IdRange


def sandbox(pod: Pod, ids: IdRange | None) -> Any:
    """A LinuxSandboxSecurityContext. ``ids``: what the pod's user namespace maps."""
    shared, _ = security.contexts(pod, Container(name=""))
    user = security.user(pod, Container(name=""), "")
    made = wire.LinuxSandboxSecurityContext(
        namespace_options=namespaces(pod, ids),
        selinux_options=_selinux(shared.se_linux_options),
        supplemental_groups=user.additional_gids,
        supplemental_groups_policy=wire.Merge if user.merge_groups else wire.Strict,
        privileged=any(security.privileged(pod, one) for one in all_containers(pod)),
        # What upstream gives the pause process, whatever the containers have.
        seccomp=wire.SecurityProfile(profile_type=wire.RuntimeDefault),
    )
    if user.uid is not None:
        made.run_as_user.value = user.uid
        if user.gid is not None:
            made.run_as_group.value = user.gid
    return made


def container(
    pod: Pod, one: Container, image_user: str, ids: IdRange | None, seccomp_directory: Path, target: str = ""
) -> Any:
    """A LinuxContainerSecurityContext. Raises ``StartError``; ``target``: the container whose processes it sees."""
    security.verify_non_root(pod, one, image_user)
    security.capabilities(pod, one)  # runtimes leave out names that Linux does not have, and say nothing
    shared, own = security.contexts(pod, one)
    user = security.user(pod, one, image_user)
    unmasked = security.mask(pod, one) is not None
    made = wire.LinuxContainerSecurityContext(
        privileged=security.privileged(pod, one),
        namespace_options=namespaces(pod, ids, target),
        selinux_options=_selinux(own.se_linux_options or shared.se_linux_options),
        readonly_rootfs=security.read_only_root(pod, one),
        supplemental_groups=user.additional_gids,
        supplemental_groups_policy=wire.Merge if user.merge_groups else wire.Strict,
        no_new_privs=security.no_new_privileges(pod, one),
        masked_paths=[] if unmasked else MASKED_PATHS,
        readonly_paths=[] if unmasked else READ_ONLY_PATHS,
        seccomp=_seccomp(own.seccomp_profile or shared.seccomp_profile, seccomp_directory),
    )
    if own.capabilities is not None:
        made.capabilities.add_capabilities.extend(own.capabilities.add)
        made.capabilities.drop_capabilities.extend(own.capabilities.drop)
    _identity(made, user.uid, user.gid, image_user)
    _app_armor(made, own.app_armor_profile or shared.app_armor_profile)
    return made


def namespaces(pod: Pod, ids: IdRange | None, target: str = "") -> Any:
    """A NamespaceOption: whose network, IPC, processes and users."""
    spec = pod.spec
    made = wire.NamespaceOption(
        network=wire.NODE if spec.host_network else wire.POD,
        ipc=wire.NODE if spec.host_ipc else wire.POD,
        pid=wire.NODE if spec.host_pid else wire.POD if spec.share_process_namespace else wire.CONTAINER,
    )
    if target and made.pid == wire.CONTAINER:
        made.pid, made.target_id = wire.TARGET, target
    if ids is None:
        made.userns_options.mode = wire.NODE
    else:
        mapping = wire.IDMapping(host_id=ids.start, container_id=0, length=ids.length)
        made.userns_options.CopyFrom(wire.UserNamespace(mode=wire.POD, uids=[mapping], gids=[mapping]))
    return made


def _identity(made: Any, uid: int | None, gid: int | None, image_user: str) -> None:
    """Who it runs as; where the pod says nothing, what the image says, for a runtime takes no group without a user."""
    if uid is not None:
        made.run_as_user.value = uid
    else:
        name, _, _ = image_user.partition(":")
        if name.isdecimal():
            made.run_as_user.value = int(name)
        elif name:
            made.run_as_username = name
        elif gid is not None:
            made.run_as_user.value = 0
    if gid is not None:
        made.run_as_group.value = gid


def _seccomp(profile: SeccompProfile | None, directory: Path) -> Any:
    """A SecurityProfile; unset means the runtime's default (seccompDefault)."""
    if profile is None or profile.type == "RuntimeDefault":
        return wire.SecurityProfile(profile_type=wire.RuntimeDefault)
    if profile.type == "Unconfined":
        return wire.SecurityProfile(profile_type=wire.Unconfined)
    path = security.localhost_profile(profile.localhost_profile or "", directory)
    return wire.SecurityProfile(profile_type=wire.Localhost, localhost_ref=str(path))


def _app_armor(made: Any, profile: AppArmorProfile | None) -> None:
    """Both fields: runtimes of before 2022 only know the older one. Unset: the runtime's default."""
    if profile is None:
        return
    if profile.type == "RuntimeDefault":
        made.apparmor.profile_type, made.apparmor_profile = wire.RuntimeDefault, "runtime/default"
    elif profile.type == "Unconfined":
        made.apparmor.profile_type, made.apparmor_profile = wire.Unconfined, "unconfined"
    elif profile.type == "Localhost":
        name = profile.localhost_profile or ""
        made.apparmor.profile_type, made.apparmor.localhost_ref = wire.Localhost, name
        made.apparmor_profile = f"localhost/{name}"
    else:
        raise StartError("CreateContainerConfigError", f"unknown AppArmor profile type {profile.type!r}")


def _selinux(options: SELinuxOptions | None) -> Any:
    if options is None:
        return None
    return wire.SELinuxOption(user=options.user, role=options.role, type=options.type, level=options.level)
