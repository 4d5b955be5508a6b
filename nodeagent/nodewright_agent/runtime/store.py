"""Container records on disk: what a restarted agent, or a purge without an agent, knows of the containers.

``<state_dir>/<id>/``  survives a reboot: ``spec.json``, ``state.json``, ``upper``, ``work`` (the writable layer)
``<run_dir>/c/<id>/``  does not: the bundle with ``config.json``, ``rootfs`` (mount point), the monitor's files
"""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from nodewright_agent.runtime import mountinfo, mounts
from nodewright_agent.runtime.spec import ContainerRecord, ContainerSpec, ContainerState


class Layout:
    """Where one runtime keeps what. Pure."""

    def __init__(self, run_dir: str | Path, state_dir: str | Path) -> None:
        self.run = Path(run_dir)
        self.state = Path(state_dir)
        self.bundles = self.run / "c"
        self.exits = self.run / "exits"
        self.runc = self.run / "runc"
        self.sockets = self.run / "s"
        self.run_id = self.run / "id"

    @cached_property
    def directories(self) -> tuple[Path, ...]:
        """All that must exist, parents first."""
        return (self.run, self.state, self.bundles, self.exits, self.runc, self.sockets)

    def bundle(self, cid: str) -> Path:
        """The OCI bundle."""
        return self.bundles / cid

    def rootfs(self, cid: str) -> Path:
        """The overlay's mount point."""
        return self.bundles / cid / "rootfs"

    def record(self, cid: str) -> Path:
        """The record's directory."""
        return self.state / cid

    def socket(self, cid: str) -> Path:
        """The monitor's link to the bundle. conmon cuts a path of more than 107 bytes off, so long ids are hashed."""
        return self.sockets / (cid if len(cid) <= 20 else hashlib.sha256(cid.encode()).hexdigest()[:20])

    def exit_file(self, cid: str) -> Path:
        """Where the monitor writes the exit code."""
        return self.exits / cid


class Store:
    """Reads and writes records; each file appears whole or not at all."""

    def __init__(self, layout: Layout, *, private: bool = True) -> None:
        """``private``: mounts below the run directory stay in this mount namespace; else they go where it is shared."""
        self.layout, self._private = layout, private
        self.run_id = ""
        """Identifies the run directory from ``prepare`` on: another one when it was lost, and made anew since."""

    def prepare(self) -> None:
        """Make the directories, for root only; idempotent."""
        for directory in self.layout.directories:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.chmod(directory, 0o700)
        if self._private:
            mounts.ensure_private(str(self.layout.run))
        self.run_id = self._identify()

    def write_spec(self, spec: ContainerSpec) -> None:
        """Make the record's directory and write the spec, first of all steps. Raises FileExistsError."""
        directory = self.layout.record(spec.id)
        directory.mkdir(mode=0o700)
        self._write(directory / "spec.json", spec)

    def rewrite_spec(self, spec: ContainerSpec) -> None:
        """Replace the spec of an existing record."""
        self._write(self.layout.record(spec.id) / "spec.json", spec)

    def write_state(self, cid: str, state: ContainerState) -> None:
        """Replace the state."""
        self._write(self.layout.record(cid) / "state.json", state)

    def read(self, cid: str) -> ContainerRecord | None:
        """A record; None when it is missing, half written or not understood."""
        directory = self.layout.record(cid)
        try:
            spec = msgspec.json.decode((directory / "spec.json").read_bytes(), type=ContainerSpec)
            state = msgspec.json.decode((directory / "state.json").read_bytes(), type=ContainerState)
        except (OSError, msgspec.DecodeError):
            return None
        return ContainerRecord(spec=spec, state=state)

    def ids(self) -> set[str]:
        """Every id of which anything exists: record, bundle, runtime state, exit file."""
        found: set[str] = set()
        for directory in (
            self.layout.state,
            self.layout.bundles,
            self.layout.runc,
            self.layout.exits,
        ):
            try:
                # The monitor writes exit files as a temporary name first; those begin with a dot.
                found.update(name for name in os.listdir(directory) if not name.startswith("."))
            except FileNotFoundError:
                continue
        return found

    def remove(self, cid: str) -> None:
        """Unmount the root and delete every file of a container; idempotent. The record goes last."""
        layout = self.layout
        bundle = layout.bundle(cid)
        if bundle.exists():
            mounts.unmount_below(bundle)
            remove_tree(bundle)
        remove_tree(layout.runc / cid)
        layout.exit_file(cid).unlink(missing_ok=True)
        layout.socket(cid).unlink(missing_ok=True)
        remove_tree(layout.record(cid))

    def sweep_sockets(self) -> None:
        """Remove links of monitors whose bundle is gone."""
        for entry in os.scandir(self.layout.sockets):
            if not os.path.exists(entry.path):
                os.unlink(entry.path)

    def _identify(self) -> str:
        try:
            if found := self.layout.run_id.read_text():
                return found
        except FileNotFoundError:
            pass
        made = uuid.uuid4().hex
        temporary = self.layout.run_id.with_name(".id.tmp")
        temporary.write_text(made)
        temporary.replace(self.layout.run_id)
        return made

    @staticmethod
    def _write(path: Path, value: Any) -> None:
        temporary = path.with_name(f".{path.name}.tmp")
        temporary.write_bytes(msgspec.json.encode(value))
        temporary.replace(path)


_TRIES = 20


def remove_tree(directory: Path) -> None:
    """Delete a directory of ours. Raises OSError when something is still mounted below it: that is somebody's data."""
    if not os.path.lexists(directory):
        return
    if left := mountinfo.below(mountinfo.read(), directory):
        raise OSError(f"not deleting {directory}: still mounted: {', '.join(left)}")
    for tries_left in reversed(range(_TRIES)):
        try:
            shutil.rmtree(directory)
        except FileNotFoundError:  # a monitor that ends takes its own files away meanwhile; the others are still there
            if not os.path.lexists(directory):
                return
            if not tries_left:
                raise
        else:
            return
