"""The control plane's binaries, and kind and Helm for the tests, from the first source that has them.

1. the directory that $NODEWRIGHT_ASSETS or $KUBEBUILDER_ASSETS names; for kind and Helm then $PATH, when new enough,
2. the cache below $XDG_CACHE_HOME/nodewright/assets,
3. the official release downloads, checked against their published checksums,
4. a build from the Go module proxy.

Each binary is looked for on its own and only when it is asked for. Moving on to the next source is always said.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nodewright.controlplane import download, gobuild, pathtools, versions
from nodewright.controlplane.assetcache import AssetCache, cache_root
from nodewright.controlplane.errors import PreconditionError
from nodewright.controlplane.progress import LoggedProgress, Progress, Step

USER_VARIABLES = ("NODEWRIGHT_ASSETS", "KUBEBUILDER_ASSETS")


@dataclass(frozen=True)
class Located:
    """A binary that is there: where, and from which source ("directory", "PATH" or "cache")."""

    path: Path
    source: str


@dataclass
class Assets:
    """Finds and makes binaries. `environ` is where settings are read from, `root` the cache directory."""

    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    root: Path | None = None

    def obtain(self, names: Iterable[str], progress: Progress | None = None) -> dict[str, Path]:
        """Paths of the binaries `names`, fetched or built where needed; PreconditionError when all sources fail."""
        progress = progress or LoggedProgress()
        found: dict[str, Path] = {}
        missing = []
        for name in names:
            located = self.locate(name)
            if located is None:
                missing.append(name)
            else:
                found[name] = located.path
        unreachable: set[str] = set()
        for name in missing:
            with progress.step(name) as step:
                found[name] = self._make(name, step, unreachable)
        return found

    def locate(self, name: str) -> Located | None:
        """The binary from the user's directory, PATH or the cache, without fetching anything."""
        if name not in versions.KNOWN:
            raise ValueError(f"unknown binary {name}")
        for directory in self.user_directories():
            path = directory / name
            if path.is_file() and os.access(path, os.X_OK):
                return Located(path, "directory")
        if name in versions.TOOLS and (path_tool := pathtools.find(name, self.environ)) is not None:
            return Located(path_tool, "PATH")
        cached = self.cache(name).get(name)
        return None if cached is None else Located(cached, "cache")

    def user_directories(self) -> list[Path]:
        """The directories that the user names; PreconditionError when one does not exist."""
        found = []
        for variable in USER_VARIABLES:
            if not (value := self.environ.get(variable)):
                continue
            path = Path(value).expanduser().absolute()
            if not path.is_dir():
                raise PreconditionError(
                    f"{variable} names {path}, which is not a directory", f"correct or unset {variable}"
                )
            found.append(path)
        return found

    def cache(self, name: str) -> AssetCache:
        """The cache directory that holds `name`."""
        project, version = versions.release_of(name)
        root = self.root or cache_root(self.environ)
        return AssetCache(root / f"{project}-{version}-linux-{versions.architecture()}")

    def _make(self, name: str, step: Step, unreachable: set[str]) -> Path:
        for directory in self.user_directories():
            step.note(f"not in {directory}")
        cache = self.cache(name)
        with cache.locked(lambda: step.update("another command is obtaining binaries, waiting for it")):
            if (cached := cache.get(name)) is not None:  # the other command has made it
                return cached
            problems = []
            try:
                path = download.fetch(name, cache, step, self.environ, unreachable)
                step.result("downloaded and verified")
                return path
            except download.Unavailable as error:
                problems.append(f"download: {error}")
                step.note(f"{error}; building it instead")
            try:
                path = gobuild.build(name, cache, step, self.environ)
                step.result("built from the Go module proxy")
                return path
            except gobuild.BuildUnavailable as error:
                problems.append(f"build: {error}")
        raise PreconditionError(
            f"{name} {versions.release_of(name)[1]} could not be obtained\n  " + "\n  ".join(problems),
            "connect this machine to the network, or put the binaries into a directory that NODEWRIGHT_ASSETS names",
        )
