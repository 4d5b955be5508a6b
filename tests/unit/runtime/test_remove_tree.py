"""Removing a container's directory while its monitor, which ends, removes files of it too."""

import os
from pathlib import Path

import pytest

from nodewright_agent.runtime.store import remove_tree


def test_files_that_somebody_else_removes_meanwhile_do_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = tmp_path / "bundle"
    (bundle / "rootfs").mkdir(parents=True)
    for name in ("attach", "ctl", "pidfile", "rootfs/file"):
        (bundle / name).touch()
    unlink = os.unlink

    def late(path: str, *, dir_fd: int | None = None) -> None:
        if path == "attach" and (bundle / "attach").exists():
            unlink(bundle / "attach")
        unlink(path, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", late)
    remove_tree(bundle)
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_there_is_removed(tmp_path: Path) -> None:
    remove_tree(tmp_path / "gone")
