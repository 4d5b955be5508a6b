"""What the server knows of sandboxes and containers beside the runtime's own records; on disk, one file each.

``<root>/sandboxes/<id>/``  ``record.json``, and the files that containers get: hosts, hostname, resolv.conf
``<root>/containers/<id>.json``
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from nodewright_agent.cri import wire
from nodewright_agent.cri.errors import Invalid, NotFound
from nodewright_agent.runtime.errors import RuntimeUnavailable
from nodewright_agent.runtime.spec import ContainerSpec, IdRange


class Sandbox(msgspec.Struct, kw_only=True, dict=True):
    """A pod sandbox. ``request``: the PodSandboxConfig as it came, encoded. Times in nanoseconds since the epoch."""

    id: str
    request: bytes
    handler: str
    created_at: int
    hostname: str
    cgroup: str
    own_cgroup: bool
    """Whether the cgroup was made for it, and goes with it; else it is the caller's."""
    ids: IdRange | None = None
    made: bool = False
    """False while it is being made: such a one is removed at the next start."""
    ready: bool = False
    ip: str = ""

    @cached_property
    def config(self) -> Any:
        """The PodSandboxConfig."""
        return wire.PodSandboxConfig.FromString(self.request)

    @property
    def namespaces(self) -> Any:
        """The NamespaceOption."""
        return self.config.linux.security_context.namespace_options


class Container(msgspec.Struct, kw_only=True, dict=True):
    """A container. ``order``: what the runtime is to start.

    ``request``: the ContainerConfig as it came, encoded, but for mounts of images: they say where the image is.
    """

    id: str
    sandbox: str
    request: bytes
    order: ContainerSpec
    image: str
    """Id of the image."""
    created_at: int
    begun: bool = False
    """Whether it was let go: one of which the runtime knows nothing has been lost then."""
    failed_at: int = 0
    """When its start failed; 0: it did not."""
    failure: str = ""

    @cached_property
    def config(self) -> Any:
        """The ContainerConfig."""
        return wire.ContainerConfig.FromString(self.request)


Record = TypeVar("Record", Sandbox, Container)


class Records:
    """All records, held in memory; each file appears whole or not at all."""

    def __init__(self, root: Path) -> None:
        """Keep them below ``root``; ``load`` reads what is there."""
        self._sandboxes, self._containers = root / "sandboxes", root / "containers"
        self.sandboxes: dict[str, Sandbox] = {}
        self.containers: dict[str, Container] = {}

    def load(self) -> None:
        """Read all records; what is half made is removed. Raises RuntimeUnavailable: one cannot be read."""
        for directory in (self._sandboxes, self._containers):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        for path in sorted(self._sandboxes.iterdir()):
            if (sandbox := _read(path / "record.json", Sandbox)) is not None:
                self.sandboxes[sandbox.id] = sandbox
            elif path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        for path in sorted(self._containers.iterdir()):
            if path.name.startswith("."):
                path.unlink()
            elif (container := _read(path, Container)) is not None:
                self.containers[container.id] = container
            else:
                path.unlink()

    def directory(self, sandbox: str) -> Path:
        """Where a sandbox's files are."""
        return self._sandboxes / sandbox

    def keep(self, record: Sandbox | Container) -> None:
        """Write a record, new or changed."""
        if isinstance(record, Sandbox):
            path = self.directory(record.id) / "record.json"
            path.parent.mkdir(mode=0o755, exist_ok=True)
        else:
            path = self._containers / f"{record.id}.json"
        temporary = path.with_name(f".{path.name}.tmp")
        temporary.write_bytes(msgspec.json.encode(record))
        os.replace(temporary, path)
        if isinstance(record, Sandbox):
            self.sandboxes[record.id] = record
        else:
            self.containers[record.id] = record

    def drop(self, record: Sandbox | Container) -> None:
        """Remove a record and its files; idempotent."""
        if isinstance(record, Sandbox):
            self.sandboxes.pop(record.id, None)
            shutil.rmtree(self.directory(record.id), ignore_errors=True)
        else:
            self.containers.pop(record.id, None)
            (self._containers / f"{record.id}.json").unlink(missing_ok=True)

    def sandbox(self, text: str) -> Sandbox:
        """The sandbox with this id, or the only one whose id begins so. Raises NotFound, Invalid."""
        return self.sandboxes[_resolve(text, self.sandboxes, "pod sandbox")]

    def container(self, text: str) -> Container:
        """The container with this id, or the only one whose id begins so. Raises NotFound, Invalid."""
        return self.containers[_resolve(text, self.containers, "container")]

    def of_sandbox(self, sandbox: str) -> list[Container]:
        """A sandbox's containers, oldest first."""
        found = [one for one in self.containers.values() if one.sandbox == sandbox]
        return sorted(found, key=lambda one: one.created_at)


def _resolve(text: str, ids: Iterable[str], what: str) -> str:
    if not text:
        raise Invalid(f"{what} id must not be empty")
    if text in ids:
        return text
    found = [one for one in ids if one.startswith(text)]
    if not found:
        raise NotFound(f'{what} "{text}" not found')
    if len(found) > 1:
        raise Invalid(f'{what} "{text}" is not unique: it is the beginning of {len(found)} ids')
    return found[0]


def _read(path: Path, kind: type[Record]) -> Record | None:
    """None: it was never written whole. Raises RuntimeUnavailable: what it is about may run, so it is not given up."""
    try:
        # Without a byte: the host lost its power meanwhile, and nothing runs any more.
        return msgspec.json.decode(data, type=kind) if (data := path.read_bytes()) else None
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise RuntimeUnavailable(f"{path} cannot be read: {error}") from error
