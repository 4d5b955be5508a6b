"""Credential files of the node: docker's config.json, for every Pod. Read anew when they have changed."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from nodewright_agent.runtime.images.credentials import DOCKER_CFG, DOCKER_CONFIG_JSON, Credential, parse_docker_config

log = logging.getLogger(__name__)

_MAX_BYTES = 4 << 20
_Version = tuple[int, int, int, int]


class CredentialFiles:
    """The first of several files that can be read counts, as kubelet's search in its folders does.

    Of a config.json only `auths` is taken: helpers (`credHelpers`, `credsStore`) are for a person's login, and kubelet
    does not run them either. A file called `.dockercfg` has the older form.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        """Nothing is read before it is asked for."""
        self._paths = tuple(paths)
        self._known: dict[Path, tuple[_Version, list[Credential] | None]] = {}
        self._missing: set[Path] = set()

    def current(self) -> list[Credential]:
        """The credentials as the files are now. Blocking, but for files of some kilobytes; a bad file is logged."""
        for path in self._paths:
            found = self._read(path)
            if found is not None:
                return found
        return []

    def _read(self, path: Path) -> list[Credential] | None:
        try:
            info = os.stat(path)
            version = (info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns)
            known = self._known.get(path)
            if known is None or known[0] != version:
                known = self._known[path] = (version, self._parse(path, info.st_size))
            self._missing.discard(path)
            return known[1]
        except OSError as error:
            if not isinstance(error, FileNotFoundError) and path not in self._missing:
                log.warning("credential file %s cannot be read: %s", path, error.strerror)
                self._missing.add(path)
            self._known.pop(path, None)
            return None

    def _parse(self, path: Path, size: int) -> list[Credential] | None:
        kind = DOCKER_CFG if path.name == ".dockercfg" else DOCKER_CONFIG_JSON
        try:
            if size > _MAX_BYTES:
                raise ValueError(f"is larger than {_MAX_BYTES} bytes")
            return parse_docker_config(path.read_bytes(), secret_type=kind)
        except ValueError as error:
            log.warning("credential file %s is of no use: %s", path, error)
            return None
