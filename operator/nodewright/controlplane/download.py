"""Official release downloads, accepted only with their published checksum."""

from __future__ import annotations

import errno
import http.client
import os
import re
import shutil
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from nodewright.controlplane import versions
from nodewright.controlplane.assetcache import AssetCache, sha256_of
from nodewright.controlplane.errors import PreconditionError
from nodewright.controlplane.progress import Step

KUBERNETES_URL_VARIABLE = "NODEWRIGHT_KUBERNETES_RELEASE_URL"
ETCD_URL_VARIABLE = "NODEWRIGHT_ETCD_RELEASE_URL"
KIND_URL_VARIABLE = "NODEWRIGHT_KIND_RELEASE_URL"
HELM_URL_VARIABLE = "NODEWRIGHT_HELM_RELEASE_URL"
TIMEOUT_VARIABLE = "NODEWRIGHT_DOWNLOAD_TIMEOUT"
_KUBERNETES_URL = "https://dl.k8s.io/release"
_ETCD_URL = "https://github.com/etcd-io/etcd/releases/download"
_KIND_URL = "https://github.com/kubernetes-sigs/kind/releases/download"
_HELM_URL = "https://get.helm.sh"
# Seconds without an answer or without data: an unreachable host must not hold up the start for long.
_TIMEOUT = 5.0
_ATTEMPTS = 2  # for a transfer that breaks off; the checksum guards the content
_CHUNK = 1 << 18
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MAX_CHECKSUM_FILE = 1 << 16  # bytes
_TRANSFER_ERRORS = (OSError, http.client.HTTPException)


class Unavailable(Exception):
    """The release host cannot be reached, or does not have the file: another source may."""


@dataclass(frozen=True)
class Release:
    """A file to download, where its checksum is published, and which member of the archive is wanted (if one)."""

    url: str
    checksum_url: str
    member: str = ""

    @property
    def host(self) -> str:
        """The host it comes from."""
        return urlsplit(self.url).netloc


def release(name: str, environ: Mapping[str, str]) -> Release:
    """Where binary `name` is released."""

    def base(variable: str, official: str) -> str:
        return (environ.get(variable) or official).rstrip("/")

    platform = f"linux-{versions.architecture()}"
    project, version = versions.release_of(name)
    if project == "etcd":
        stem = f"etcd-{version}-{platform}"
        url = f"{base(ETCD_URL_VARIABLE, _ETCD_URL)}/{version}"
        return Release(f"{url}/{stem}.tar.gz", f"{url}/SHA256SUMS", f"{stem}/etcd")
    if project == "kind":
        url = f"{base(KIND_URL_VARIABLE, _KIND_URL)}/{version}/kind-{platform}"
        return Release(url, f"{url}.sha256sum")
    if project == "helm":
        url = f"{base(HELM_URL_VARIABLE, _HELM_URL)}/helm-{version}-{platform}.tar.gz"
        return Release(url, f"{url}.sha256sum", f"{platform}/helm")
    url = f"{base(KUBERNETES_URL_VARIABLE, _KUBERNETES_URL)}/{version}/bin/{platform.replace('-', '/')}/{name}"
    return Release(url, f"{url}.sha256")


def fetch(name: str, cache: AssetCache, step: Step, environ: Mapping[str, str], unreachable: set[str]) -> Path:
    """Download, verify and install `name`. Hosts in `unreachable` are not tried again; a new one is added.

    Raises Unavailable to fall through, PreconditionError when the content is not what the checksum says: that is
    never papered over by another source.
    """
    if name in (*versions.CONFORMANCE, *versions.CRI_CLIENTS):
        raise Unavailable("no release has it as a file of its own")
    found = release(name, environ)
    if found.host in unreachable:
        raise Unavailable(f"{found.host} is not reachable")
    timeout = float(environ.get(TIMEOUT_VARIABLE) or _TIMEOUT)
    step.update(f"asking {found.host}")
    wanted = published_checksum(_read_checksums(found, timeout, unreachable), found)
    temporary = cache.temporary(name)
    try:
        _transfer(found, temporary, step, timeout)
        actual = sha256_of(temporary)
        if actual != wanted:
            raise PreconditionError(
                f"{found.url} has the sha256 {actual}, but its release says {wanted}: it was refused",
                "try again later; if it stays so, somebody between this machine and the release changes the file",
            )
        if found.member:
            temporary, actual = _extract(temporary, found, cache, name)
        return cache.install(name, temporary, actual, found.url)
    finally:
        temporary.unlink(missing_ok=True)


def published_checksum(text: str, found: Release) -> str:
    """The checksum of the file out of a checksum file: either only the hash, or lines of "hash  file name"."""
    file_name = found.url.rpartition("/")[2]
    for line in text.splitlines():
        fields = line.split()
        if fields and _SHA256.fullmatch(fields[0].lower()) and fields[1:] in ([], [file_name], [f"*{file_name}"]):
            return fields[0].lower()
    raise Unavailable(f"{found.checksum_url} holds no checksum of {file_name}")


def _read_checksums(found: Release, timeout: float, unreachable: set[str]) -> str:
    try:
        with _open(found.checksum_url, timeout) as response:
            return bytes(response.read(_MAX_CHECKSUM_FILE)).decode(errors="replace")
    except urllib.error.HTTPError as error:
        error.close()
        raise Unavailable(f"{found.checksum_url} answers {error.code}") from error
    except _TRANSFER_ERRORS as error:
        unreachable.add(found.host)
        raise Unavailable(f"{found.host} is not reachable ({_reason(error)})") from error


def _transfer(found: Release, temporary: Path, step: Step, timeout: float) -> None:
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return _transfer_once(found.url, temporary, step, timeout)
        except urllib.error.HTTPError as error:
            error.close()
            raise Unavailable(f"{found.url} answers {error.code}") from error
        except _TRANSFER_ERRORS as error:
            if _is_local(error):
                raise PreconditionError(f"cannot write {temporary}: {error}", "free some space") from error
            if attempt == _ATTEMPTS:
                raise Unavailable(f"the download from {found.host} broke off ({_reason(error)})") from error
            step.update(f"the transfer broke off ({_reason(error)}), once more")
    return None


def _transfer_once(url: str, temporary: Path, step: Step, timeout: float) -> None:
    with _open(url, timeout) as response, temporary.open("wb") as file:
        length = int(response.headers.get("Content-Length") or 0)
        done, shown = 0, 0.0
        while chunk := response.read(_CHUNK):
            file.write(chunk)
            done += len(chunk)
            if time.monotonic() - shown > 0.2:
                shown = time.monotonic()
                of = f" of {length / 1e6:.0f}" if length else ""
                step.update(f"downloading {done / 1e6:.0f}{of} MB from {urlsplit(url).netloc}")
        if length and done != length:  # http.client ends a cut body like a whole one when read in pieces
            raise ConnectionError(f"{done} of {length} bytes arrived")


def _extract(archive: Path, found: Release, cache: AssetCache, name: str) -> tuple[Path, str]:
    """Only the wanted regular file leaves the archive, under a name of ours."""
    target = archive.with_name(f"{archive.name}.member")
    try:
        with tarfile.open(archive, "r:gz") as tar:
            source = tar.extractfile(found.member)
            if source is None:
                raise KeyError(f"{found.member} is not a regular file")
            with source, target.open("wb") as file:
                shutil.copyfileobj(source, file, _CHUNK)
    except (tarfile.TarError, KeyError, EOFError, OSError) as error:
        target.unlink(missing_ok=True)
        raise PreconditionError(f"{found.url} is not the archive that was expected: {error}") from error
    archive.unlink()
    os.replace(target, archive)
    return archive, sha256_of(archive)


def _open(url: str, timeout: float) -> http.client.HTTPResponse:
    request = urllib.request.Request(url, headers={"User-Agent": "nodewright"})
    response: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=timeout)
    return response


def _is_local(error: BaseException) -> bool:
    """Whether writing failed, not the network."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def _reason(error: BaseException) -> str:
    reason = getattr(error, "reason", None) or error
    return str(reason) or type(error).__name__
