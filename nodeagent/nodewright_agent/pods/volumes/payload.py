"""What the files of configMap, secret, downwardAPI and projected volumes hold. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from nodewright.kube.api.volumes import DownwardAPIVolumeFile, KeyToPath
from nodewright.kube.objects import ConfigMap, Pod, Secret
from nodewright_agent.pods.volumes import fields
from nodewright_agent.pods.volumes.errors import VolumeError

DEFAULT_MODE = 0o644
MAX_PATH = 4096
MAX_NAME = 255


class File(msgspec.Struct, frozen=True):
    """One file: content, permission bits, and its owner when it is not root."""

    data: bytes
    mode: int
    uid: int | None = None


Payload = dict[str, File]


def keys(
    source: Mapping[str, bytes], items: Sequence[KeyToPath], mode: int, *, optional: bool, missing: str
) -> Payload:
    """Project keys to files: all under their own names, or only `items`. `missing` is the error for an absent key."""
    if not items:
        return {key: File(data, mode) for key, data in source.items()}
    result: Payload = {}
    for item in items:
        if item.key not in source:
            if optional:
                continue
            raise VolumeError(f"{missing}: {item.key}")
        result[item.path] = File(source[item.key], item.mode if item.mode is not None else mode)
    return result


def config_map(source: ConfigMap | None, items: Sequence[KeyToPath], mode: int, *, optional: bool) -> Payload:
    """The files of a ConfigMap; None is an absent one that is optional."""
    if source is None:
        return {}
    data = {key: text.encode() for key, text in source.data.items()} | source.binary_data
    return keys(data, items, mode, optional=optional, missing="configmap references non-existent config key")


def secret(source: Secret | None, items: Sequence[KeyToPath], mode: int, *, optional: bool) -> Payload:
    """The files of a Secret; None is an absent one that is optional."""
    if source is None:
        return {}
    return keys(source.data, items, mode, optional=optional, missing="references non-existent secret key")


def downward(pod: Pod, items: Sequence[DownwardAPIVolumeFile], mode: int, allocatable: Mapping[str, str]) -> Payload:
    """The files of a downwardAPI volume; all errors together."""
    result: Payload = {}
    problems = []
    for item in items:
        try:
            if item.field_ref is not None:
                text = fields.metadata_field(pod, item.field_ref.field_path)
            elif item.resource_field_ref is not None:
                text = fields.resource_field(pod, item.resource_field_ref, None, allocatable)
            else:
                raise fields.FieldError(f"{item.path}: neither fieldRef nor resourceFieldRef is set")
        except ValueError as error:
            problems.append(str(error))
            continue
        result[item.path] = File(text.encode(), item.mode if item.mode is not None else mode)
    if problems:
        raise VolumeError(problems[0] if len(problems) == 1 else f"[{', '.join(problems)}]")
    return result


def check(payload: Payload) -> Payload:
    """Normalise and check all paths (upstream's validatePayload); raises VolumeError."""
    result: Payload = {}
    for path, file in payload.items():
        check_path(path)
        clean = "/".join(part for part in path.split("/") if part not in ("", "."))
        result[clean] = file
    for path in result:
        parent = path
        while "/" in parent:
            parent = parent.rpartition("/")[0]
            if parent in result:
                raise VolumeError(f"invalid path: {parent} is both a file and a directory")
    return result


def check_path(path: str) -> None:
    """Refuse a path that leads out of the volume, or into what the atomic writer uses itself (..data)."""
    if not path.strip("/.") and ".." not in path.split("/"):
        raise VolumeError(f'invalid path: must not be empty: "{path}"')
    if path.startswith("/"):
        raise VolumeError(f"invalid path: must be relative path: {path}")
    if "\0" in path:
        raise VolumeError("invalid path: must not contain NUL")
    if len(path.encode()) > MAX_PATH:
        raise VolumeError(f"invalid path: must be less than or equal to {MAX_PATH} characters")
    for part in path.split("/"):
        if part == "..":
            raise VolumeError(f"invalid path: must not contain '..': {path}")
        if len(part.encode()) > MAX_NAME:
            raise VolumeError(f"invalid path: filenames must be less than or equal to {MAX_NAME} characters")
    if next(part for part in path.split("/") if part not in ("", ".")).startswith(".."):
        raise VolumeError(f"invalid path: must not start with '..': {path}")
