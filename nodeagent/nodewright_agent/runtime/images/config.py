"""The image configuration: what the agent needs of it, checked. Pure."""

import posixpath
from typing import Any, Final

import msgspec

from nodewright_agent.runtime.images import strictjson
from nodewright_agent.runtime.images.errors import ErrImagePull, ImageCorrupt
from nodewright_agent.runtime.images.manifest import Platform
from nodewright_agent.runtime.images.reference import is_digest

MAX_CONFIG_BYTES: Final = 4 << 20


class ImageConfig(msgspec.Struct, frozen=True):
    """Defaults that an image gives to its containers. `user` is raw text; it is resolved against the root fs."""

    entrypoint: list[str] = []
    cmd: list[str] = []
    env: list[str] = []
    user: str = ""
    working_dir: str = ""
    stop_signal: str = ""
    labels: dict[str, str] = {}
    volumes: list[str] = []


class ConfigDocument(msgspec.Struct, frozen=True):
    """A parsed configuration blob: the defaults, and the digests of the unpacked layers, lowest first."""

    config: ImageConfig
    diff_ids: tuple[str, ...]


def _volumes(value: Any) -> list[str]:
    if value is not None and not isinstance(value, dict):
        raise ImageCorrupt("config.Volumes must be an object")
    result = []
    for path in value or {}:
        # CVE-2022-23648: a volume path with .. made a runtime copy host files into a container (C06).
        clean = posixpath.normpath(path)
        if not path.startswith("/") or ".." in path.split("/") or clean in ("/", "/proc", "/sys") or "\0" in path:
            raise ImageCorrupt(f"config.Volumes has unsafe path {path[:100]!r}")
        result.append(clean)
    return result


def parse(data: bytes, platform: Platform) -> ConfigDocument:
    """Parse a configuration blob; refuses images for another platform and malformed fields."""
    document = strictjson.loads(data, "image config", limit=MAX_CONFIG_BYTES)
    os_name = strictjson.text(document.get("os"), "config.os")
    architecture = strictjson.text(document.get("architecture"), "config.architecture")
    if (os_name and os_name != platform.os) or (architecture and architecture != platform.architecture):
        raise ErrImagePull(f"image is for {os_name}/{architecture}, no match for platform {platform}")
    rootfs = document.get("rootfs")
    if not isinstance(rootfs, dict) or rootfs.get("type") != "layers":
        raise ImageCorrupt("config.rootfs must have type layers")
    diff_ids = strictjson.texts(rootfs.get("diff_ids"), "config.rootfs.diff_ids")
    for i, diff_id in enumerate(diff_ids):
        if not is_digest(diff_id):
            raise ImageCorrupt(f"config.rootfs.diff_ids[{i}] {diff_id[:100]!r} is not a digest")
    inner = document.get("config")
    if inner is not None and not isinstance(inner, dict):
        raise ImageCorrupt("config.config must be an object")
    inner = inner or {}
    return ConfigDocument(
        ImageConfig(
            entrypoint=strictjson.texts(inner.get("Entrypoint"), "config.Entrypoint"),
            cmd=strictjson.texts(inner.get("Cmd"), "config.Cmd"),
            # Entries without = are no variables; docker drops them too.
            env=[item for item in strictjson.texts(inner.get("Env"), "config.Env") if item.find("=") > 0],
            user=strictjson.text(inner.get("User"), "config.User"),
            working_dir=strictjson.text(inner.get("WorkingDir"), "config.WorkingDir"),
            stop_signal=strictjson.text(inner.get("StopSignal"), "config.StopSignal"),
            labels=strictjson.text_map(inner.get("Labels"), "config.Labels"),
            volumes=_volumes(inner.get("Volumes")),
        ),
        tuple(diff_ids),
    )
