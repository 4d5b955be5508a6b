"""A container's security context in CRI, in the runtime's words. Pure, but for seccomp profiles that are files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec

from nodewright_agent.cri import wire
from nodewright_agent.cri.errors import Invalid, Lacking
from nodewright_agent.runtime import apparmor, seccomp, syscalls
from nodewright_agent.runtime import capabilities as caps
from nodewright_agent.runtime.spec import IdRange, User

_RUNTIME_DEFAULT, _LOCALHOST = "runtime/default", "localhost/"


def user(context: Any, image_user: str) -> User:
    """Who the process is: a number, a name, or what the image says. Raises Invalid."""
    has_user, has_group = context.HasField("run_as_user"), context.HasField("run_as_group")
    if has_user and context.run_as_username:
        raise Invalid("run_as_user and run_as_username are both set: only one may be")
    if has_group and not has_user and not context.run_as_username:
        raise Invalid("user group is specified without user: run_as_group needs run_as_user or run_as_username")
    return User(
        uid=context.run_as_user.value if has_user else None,
        gid=context.run_as_group.value if has_group else None,
        additional_gids=list(context.supplemental_groups),
        image_user=context.run_as_username or image_user,
        merge_groups=context.supplemental_groups_policy != wire.Strict,
    )


def capabilities(context: Any) -> list[str]:
    """The complete set. Raises Invalid for a name that Linux does not have, Lacking for ambient ones."""
    wanted = context.capabilities
    if wanted.add_ambient_capabilities:
        raise Lacking("add_ambient_capabilities: ambient capabilities are not implemented")
    try:
        return caps.effective(wanted.add_capabilities, wanted.drop_capabilities, caps.available())
    except ValueError as error:
        raise Invalid(str(error)) from None


def seccomp_profile(context: Any, granted: list[str]) -> dict[str, Any] | None:
    """The seccomp filter; None: unconfined, which is what CRI has where nothing is said. Raises Invalid."""
    kind, path = _profile(context, "seccomp", context.seccomp_profile_path)
    if context.privileged or kind == wire.Unconfined:
        return None
    if kind == wire.RuntimeDefault:
        return seccomp.default_profile(granted, os.uname().machine, x32=syscalls.has_x32())
    if not path.startswith("/"):
        raise Invalid(f"seccomp localhost_ref {path!r} is not an absolute path")
    try:
        loaded = msgspec.json.decode(Path(path).read_bytes())
    except (OSError, msgspec.DecodeError) as error:
        raise Invalid(f"cannot load seccomp profile {path}: {error}") from None
    if not isinstance(loaded, dict):
        raise Invalid(f"seccomp profile {path} is not a JSON object")
    return loaded


def app_armor(context: Any, available: bool) -> str:
    """The name of the AppArmor profile; empty: none. ``available``: the host has it, and our default profile."""
    if not context.HasField("apparmor") and context.apparmor_profile in ("", _RUNTIME_DEFAULT):
        return apparmor.PROFILE if available and not context.privileged else ""
    kind, name = _profile(context, "apparmor", context.apparmor_profile)
    if kind == wire.RuntimeDefault:
        return apparmor.PROFILE if available and not context.privileged else ""
    return name if kind == wire.Localhost else ""


def ids(options: Any) -> IdRange | None:
    """What a sandbox's user namespace maps; None: it has none. Raises Invalid, Lacking."""
    space = options.userns_options
    if not options.HasField("userns_options") or space.mode == wire.NODE:
        return None
    if space.mode != wire.POD:
        raise Invalid("userns_options.mode: only POD and NODE can be asked for")
    if list(space.uids) != list(space.gids):
        raise Lacking("userns_options: uids and gids that are mapped differently")
    if len(space.uids) != 1 or space.uids[0].container_id != 0:
        raise Lacking("userns_options: exactly one mapping is supported, from container_id 0 on")
    return IdRange(space.uids[0].host_id, space.uids[0].length)


def _profile(context: Any, field: str, old: str) -> tuple[int, str]:
    """Kind and name of a profile, in the new field, or the old one (a text)."""
    if context.HasField(field):
        profile = getattr(context, field)
        return profile.profile_type, profile.localhost_ref
    if old == _RUNTIME_DEFAULT:
        return wire.RuntimeDefault, ""
    if old.startswith(_LOCALHOST):
        return wire.Localhost, old.removeprefix(_LOCALHOST)
    if old in ("", "unconfined"):
        return wire.Unconfined, ""
    raise Invalid(f"{field} profile {old!r} is none of {_RUNTIME_DEFAULT}, unconfined, {_LOCALHOST}NAME")
