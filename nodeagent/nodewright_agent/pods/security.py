"""The security settings of a container in effect: its own over the pod's over the image's. Pure, but for one file.

The only file that may be read is a Localhost seccomp profile, below a directory of the node's administrator.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec

from nodewright.kube.objects import AppArmorProfile, Container, Pod, PodSecurityContext, SeccompProfile, SecurityContext
from nodewright_agent.pods.model import all_containers, display_name
from nodewright_agent.pods.ports import StartError
from nodewright_agent.runtime import apparmor, seccomp, syscalls
from nodewright_agent.runtime import capabilities as caps
from nodewright_agent.runtime.spec import User

CONFIG_ERROR, CREATE_ERROR = "CreateContainerConfigError", "CreateContainerError"


def contexts(pod: Pod, container: Container) -> tuple[PodSecurityContext, SecurityContext]:
    """Return the pod's and the container's settings, empty ones where there are none."""
    return pod.spec.security_context or PodSecurityContext(), container.security_context or SecurityContext()


def user(pod: Pod, container: Container, image_user: str) -> User:
    """Return who the container runs as."""
    shared, own = contexts(pod, container)
    groups = list(shared.supplemental_groups)
    if shared.fs_group is not None:
        groups.insert(0, shared.fs_group)
    return User(
        uid=own.run_as_user if own.run_as_user is not None else shared.run_as_user,
        gid=own.run_as_group if own.run_as_group is not None else shared.run_as_group,
        additional_gids=groups,
        image_user=image_user,
        merge_groups=shared.supplemental_groups_policy != "Strict",
    )


def verify_non_root(pod: Pod, container: Container, image_user: str) -> None:
    """Hold a container to runAsNonRoot. Raises ``StartError`` with kubelet's texts."""
    shared, own = contexts(pod, container)
    required = own.run_as_non_root if own.run_as_non_root is not None else shared.run_as_non_root
    if not required:
        return
    where = f'(pod: "{display_name(pod)}", container: {container.name})'
    uid = user(pod, container, image_user).uid
    if uid is not None:
        if uid == 0:
            raise StartError(CONFIG_ERROR, f"container's runAsUser breaks non-root policy {where}")
        return
    name = image_user.partition(":")[0]
    if name and not name.isdecimal():
        problem = f"image has non-numeric user ({name}), cannot verify user is non-root"
        raise StartError(CONFIG_ERROR, f"container has runAsNonRoot and {problem} {where}")
    if not name or int(name) == 0:
        raise StartError(CONFIG_ERROR, f"container has runAsNonRoot and image will run as root {where}")


def capabilities(pod: Pod, container: Container) -> list[str]:
    """Return the container's capabilities. Raises ``StartError`` for a name that Linux does not have."""
    wanted = contexts(pod, container)[1].capabilities
    if wanted is None:
        return list(caps.DEFAULT)
    try:
        return caps.effective(wanted.add, wanted.drop, caps.available())
    except ValueError as error:
        raise StartError(CONFIG_ERROR, str(error)) from None


def privileged(pod: Pod, container: Container) -> bool:
    """Tell whether the container has all of the host's privileges."""
    return contexts(pod, container)[1].privileged is True


def read_only_root(pod: Pod, container: Container) -> bool:
    """Tell whether the container's root file system is read-only."""
    return contexts(pod, container)[1].read_only_root_filesystem is True


def no_new_privileges(pod: Pod, container: Container) -> bool:
    """Tell whether the process may not gain privileges: allowPrivilegeEscalation is false."""
    return contexts(pod, container)[1].allow_privilege_escalation is False


def seccomp_profile(pod: Pod, container: Container, granted: list[str], directory: Path) -> dict[str, Any] | None:
    """Return the seccomp filter; None: unconfined. Unset means the runtime's default (seccompDefault)."""
    shared, own = contexts(pod, container)
    profile = own.seccomp_profile or shared.seccomp_profile or SeccompProfile(type="RuntimeDefault")
    if profile.type == "Unconfined":
        return None
    if profile.type == "RuntimeDefault":
        return seccomp.default_profile(granted, os.uname().machine, x32=syscalls.has_x32())
    return _localhost_profile(profile.localhost_profile or "", directory)


def localhost_profile(name: str, directory: Path) -> Path:
    """Where a profile of the node's administrator is. Raises ``StartError`` with kubelet's reason."""
    if not name:
        raise StartError(CONFIG_ERROR, "localhostProfile must be set if seccompProfile type is Localhost.")
    if name.startswith("/") or ".." in Path(name).parts:
        raise StartError(CONFIG_ERROR, f"seccomp localhostProfile {name!r} is not a relative path without '..'")
    return directory / name


def _localhost_profile(name: str, directory: Path) -> dict[str, Any]:
    """Read a profile; the reasons and texts are kubelet's where it would refuse, else containerd's."""
    path = localhost_profile(name, directory)
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except OSError as error:
        said = f"open {path}: {(error.strerror or str(error)).lower()}"
        raise StartError(CREATE_ERROR, f'cannot load seccomp profile "{path}": {said}') from None
    except msgspec.DecodeError as error:
        raise StartError(CREATE_ERROR, f'decoding seccomp profile failed "{path}": {error}') from None


def mask(pod: Pod, container: Container) -> list[str] | None:
    """Return masked and read-only paths: None for the defaults, none at all with procMount Unmasked."""
    return [] if contexts(pod, container)[1].proc_mount == "Unmasked" else None


def app_armor_profile(pod: Pod, container: Container, by_default: bool) -> str:
    """Return the name of the container's AppArmor profile; empty: none is set.

    ``by_default``: ours where none is asked for. As with CRI runtimes, privileged containers have only one that they
    name.
    """
    profile = _wanted_profile(pod, container)
    if profile is None or profile.type == "RuntimeDefault":
        wanted = by_default if profile is None else True
        return apparmor.PROFILE if wanted and not privileged(pod, container) else ""
    return profile.localhost_profile or "" if profile.type == "Localhost" else ""


def app_armor_refusal(pod: Pod, enabled: bool) -> tuple[str, str] | None:
    """Return reason and message for a pod that asks for AppArmor on a host without (kubelet's admission)."""
    shared = pod.spec.security_context
    asked = [shared.app_armor_profile] if shared is not None else []
    asked += [one.security_context.app_armor_profile for one in all_containers(pod) if one.security_context is not None]
    if enabled or not any(profile is not None and profile.type != "Unconfined" for profile in asked):
        return None
    return "AppArmor", "Cannot enforce AppArmor: AppArmor is not enabled on the host"


def _wanted_profile(pod: Pod, container: Container) -> AppArmorProfile | None:
    shared, own = contexts(pod, container)
    return own.app_armor_profile or shared.app_armor_profile
