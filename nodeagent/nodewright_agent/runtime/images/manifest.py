"""Manifests and indexes of images, docker and OCI: parsing, rules, platform choice. Pure."""

import hashlib
import platform
from typing import Any, Final

import msgspec

from nodewright_agent.runtime.images import strictjson
from nodewright_agent.runtime.images.errors import ErrImagePull, ImageCorrupt
from nodewright_agent.runtime.images.reference import is_digest

MAX_MANIFEST_BYTES: Final = 4 << 20  # containerd's MaxManifestSize
MAX_LAYERS: Final = 500  # overlayfs takes no more lower directories
MAX_INDEX_DEPTH: Final = 3

OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
DOCKER_INDEX: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
ACCEPT: Final = ", ".join((OCI_INDEX, OCI_MANIFEST, DOCKER_INDEX, DOCKER_MANIFEST))
INDEX_TYPES: Final = frozenset((OCI_INDEX, DOCKER_INDEX))
MANIFEST_TYPES: Final = frozenset((OCI_MANIFEST, DOCKER_MANIFEST))
CONFIG_TYPES: Final = frozenset(
    ("application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json")
)
LAYER_TYPES: Final = frozenset(
    (
        "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.oci.image.layer.v1.tar+gzip",
        "application/vnd.oci.image.layer.v1.tar+zstd",
        "application/vnd.docker.image.rootfs.diff.tar",
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
        "application/vnd.docker.image.rootfs.diff.tar.zstd",
    )
)
_ARM_VARIANTS: Final = ("v8", "v7", "v6", "v5")


class Platform(msgspec.Struct, frozen=True):
    """os/architecture[/variant]."""

    os: str
    architecture: str
    variant: str = ""

    @classmethod
    def of_this_machine(cls) -> "Platform":
        """What this machine runs, in the words of image platforms."""
        machine = platform.machine()
        return cls("linux", {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine))

    @classmethod
    def parse(cls, text: str) -> "Platform":
        """From `linux/amd64` or `linux/arm/v7`."""
        parts = text.split("/")
        if len(parts) not in (2, 3) or not all(parts):
            raise ValueError(f"platform {text!r} is not os/architecture[/variant]")
        return cls(*parts)

    def __str__(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))


class Descriptor(msgspec.Struct, frozen=True):
    """A reference to content: what it is, its digest and its exact size in bytes."""

    media_type: str
    digest: str
    size: int
    platform: Platform | None = None
    annotations: dict[str, str] = {}


class Manifest(msgspec.Struct, frozen=True):
    """One image: its configuration and its layers, lowest first."""

    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]


class Index(msgspec.Struct, frozen=True):
    """Several images, usually one per platform."""

    media_type: str
    manifests: tuple[Descriptor, ...]


def sha256(data: bytes) -> str:
    """The digest of some bytes."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def verify(data: bytes, digest: str, what: str) -> None:
    """Raise ImageCorrupt unless `data` has this digest (which must have passed `is_digest`)."""
    algorithm = digest.partition(":")[0]
    found = f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"
    if found != digest:
        raise ImageCorrupt(f"{what} has digest {found}, expected {digest}")


def parse_descriptor(value: Any, where: str) -> Descriptor:
    """Check one descriptor; `where` names it in errors."""
    if not isinstance(value, dict):
        raise ImageCorrupt(f"{where} must be an object")
    digest = strictjson.text(value.get("digest"), f"{where}.digest")
    if not is_digest(digest):
        raise ImageCorrupt(f"{where}.digest {digest[:100]!r} is not a sha256 or sha512 digest")
    size = value.get("size")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < 1 << 62:
        raise ImageCorrupt(f"{where}.size must be a number of bytes")
    platform = value.get("platform")
    if platform is not None:
        if not isinstance(platform, dict):
            raise ImageCorrupt(f"{where}.platform must be an object")
        platform = Platform(
            *(
                strictjson.text(platform.get(key), f"{where}.platform.{key}")
                for key in ("os", "architecture", "variant")
            )
        )
    return Descriptor(
        media_type=strictjson.text(value.get("mediaType"), f"{where}.mediaType"),
        digest=digest,
        size=size,
        platform=platform,
        annotations=strictjson.text_map(value.get("annotations"), f"{where}.annotations"),
    )


def _descriptors(value: Any, where: str) -> tuple[Descriptor, ...]:
    if not isinstance(value, list):
        raise ImageCorrupt(f"{where} must be a list")
    return tuple(parse_descriptor(item, f"{where}[{i}]") for i, item in enumerate(value))


def _media_type(document: dict[str, Any], content_type: str) -> str:
    """The one type that document and transport agree on (CVE-2021-41190: no second reading of the same bytes)."""
    own = strictjson.text(document.get("mediaType"), "manifest.mediaType")
    known = INDEX_TYPES | MANIFEST_TYPES
    outer = content_type.partition(";")[0].strip().lower()
    if own and outer in known and own != outer:
        raise ImageCorrupt(f"manifest says mediaType {own!r}, but was served as {outer!r}")
    if own or outer in known:
        return own or outer
    return OCI_INDEX if "manifests" in document else OCI_MANIFEST  # both fields are optional in OCI


def parse(data: bytes, content_type: str = "") -> Manifest | Index:
    """Parse a manifest or an index; `content_type` is what the transport or the descriptor called it."""
    document = strictjson.loads(data, "manifest", limit=MAX_MANIFEST_BYTES)
    version = document.get("schemaVersion")
    if version == 1:
        raise ErrImagePull("image has a schema 1 manifest, which is obsolete and not supported; push it again")
    if version != 2:
        raise ImageCorrupt("manifest.schemaVersion must be 2")
    if "manifests" in document and ("layers" in document or "config" in document):
        raise ImageCorrupt("manifest is ambiguous: it has both manifests and layers or config")
    media_type = _media_type(document, content_type)
    if media_type in INDEX_TYPES:
        if "manifests" not in document:
            raise ImageCorrupt("index has no manifests")
        return Index(media_type, _descriptors(document["manifests"], "index.manifests"))
    if media_type not in MANIFEST_TYPES:
        raise ErrImagePull(f"manifest type {media_type[:100]!r} is not a container image")
    manifest = Manifest(
        media_type,
        parse_descriptor(document.get("config"), "manifest.config"),
        _descriptors(document.get("layers"), "manifest.layers"),
    )
    _check_types(manifest)
    return manifest


def _check_types(manifest: Manifest) -> None:
    if manifest.config.media_type not in CONFIG_TYPES:
        raise ErrImagePull(f"config type {manifest.config.media_type[:100]!r} is not that of a container image")
    if len(manifest.layers) > MAX_LAYERS:
        raise ErrImagePull(f"image has {len(manifest.layers)} layers, more than {MAX_LAYERS}")
    for i, layer in enumerate(manifest.layers):
        # Foreign layers name URLs of other hosts: following them leaks credentials and reaches anywhere (I07).
        if layer.media_type not in LAYER_TYPES:
            raise ErrImagePull(f"manifest.layers[{i}] has unsupported media type {layer.media_type[:100]!r}")


def _variant_rank(wanted: Platform, offered: Platform) -> int | None:
    """Lower is better, None is no match. arm takes older variants; amd64 takes v1, arm64 takes v8."""
    if wanted.architecture == "arm":
        ladder = _ARM_VARIANTS[_ARM_VARIANTS.index(wanted.variant or "v7") :]
        return ladder.index(offered.variant or "v7") if (offered.variant or "v7") in ladder else None
    default = {"amd64": "v1", "arm64": "v8"}.get(wanted.architecture, "")
    if (offered.variant or default) == (wanted.variant or default):
        return 0
    return 1 if (offered.variant or default) == default else None


def choose(index: Index, wanted: Platform) -> Descriptor:
    """The entry for a platform: best variant, first in order. Entries of no platform are taken if nothing fits."""
    best: tuple[int, Descriptor] | None = None
    for entry in index.manifests:
        offered = entry.platform
        if entry.media_type not in MANIFEST_TYPES | INDEX_TYPES:
            continue
        if offered is None or not offered.os:
            rank: int | None = 100
        elif (offered.os, offered.architecture) != (wanted.os, wanted.architecture):
            rank = None  # this also passes over attestations, whose platform is unknown/unknown
        else:
            rank = _variant_rank(wanted, offered)
        if rank is not None and (best is None or rank < best[0]):
            best = rank, entry
    if best is None:
        raise ErrImagePull(f"no match for platform {wanted} in manifest")
    return best[1]
