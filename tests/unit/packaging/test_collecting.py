"""The scripts of the builder stage, on small trees of our own."""

from __future__ import annotations

import importlib
import os
import shutil
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

SCRIPTS = Path(__file__).parents[3] / "tools/images"
NAMES = ("rootfs", "stdlib", "hosttools")


@pytest.fixture
def scripts() -> Iterator[dict[str, ModuleType]]:
    """The modules as they import each other: by plain names, from their folder."""
    sys.path.insert(0, str(SCRIPTS))
    try:
        yield {name: importlib.import_module(name) for name in NAMES}
    finally:
        sys.path.remove(str(SCRIPTS))
        for name in NAMES:
            del sys.modules[name]


def test_links_are_copied_with_what_they_lead_to(scripts: dict[str, ModuleType], tmp_path: Path) -> None:
    source = tmp_path / "usr/bin"
    source.mkdir(parents=True)
    (source / "tool-1.2").write_text("x")
    (source / "tool").symlink_to("tool-1.2")
    (tmp_path / "bin").symlink_to("usr/bin")
    tree = scripts["rootfs"].Tree(tmp_path / "image")
    tree.copy(tmp_path / "bin/tool")
    assert os.readlink(tree.at(source / "tool")) == "tool-1.2"
    assert tree.at(source / "tool-1.2").read_text() == "x"
    assert not tree.at(tmp_path / "bin").exists()


def test_every_file_gets_the_same_time(
    scripts: dict[str, ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "lchown", lambda *_: None)  # which takes root
    tree = scripts["rootfs"].Tree(tmp_path / "image")
    tree.skeleton()
    tree.write("etc/one", "1")
    tree.finish(12345)
    paths = [tree.root, *tree.root.rglob("*")]
    assert {path.lstat().st_mtime for path in paths} == {12345}


def test_segments_out_of_step_are_not_loadable(scripts: dict[str, ModuleType], tmp_path: Path) -> None:
    """What strip does to libraries that were patched before."""
    program = tmp_path / "program"
    shutil.copy("/bin/true", program)
    assert scripts["rootfs"].loadable(program)
    data = bytearray(program.read_bytes())
    table, size = struct.unpack_from("<Q", data, 32)[0], struct.unpack_from("<H", data, 54)[0]
    at = next(at for at in range(table, len(data), size) if struct.unpack_from("<I", data, at)[0] == 1)
    struct.pack_into("<Q", data, at + 8, struct.unpack_from("<Q", data, at + 8)[0] + 8)
    program.write_bytes(data)
    assert not scripts["rootfs"].loadable(program)


def test_libraries_are_found_with_the_loader(scripts: dict[str, ModuleType]) -> None:
    names = {path.name for path in scripts["rootfs"].needed(Path(os.path.realpath("/bin/true")))}
    assert "libc.so.6" in names
    assert any(name.startswith("ld-") for name in names)


@pytest.mark.parametrize(
    ("path", "left_out"),
    [
        ("tkinter", True),
        ("unittest/test", True),
        ("lib-dynload/_test_x.so", True),
        ("unittest", False),
        ("asyncio", False),
        ("lib-dynload/_ssl.so", False),
    ],
)
def test_parts_of_the_standard_library(scripts: dict[str, ModuleType], path: str, left_out: bool) -> None:
    stdlib = scripts["stdlib"]
    assert stdlib._matches(Path(path), stdlib.LEAVE_OUT) is left_out


def test_prefix_depends_on_names_and_contents(scripts: dict[str, ModuleType], tmp_path: Path) -> None:
    prefix = scripts["hosttools"]._hash
    (tmp_path / "a").write_text("1")
    (tmp_path / "b").write_text("2")
    first = prefix({"bin/a": tmp_path / "a", "lib/b": tmp_path / "b"})
    assert prefix({"lib/b": tmp_path / "b", "bin/a": tmp_path / "a"}) == first
    assert prefix({"bin/a": tmp_path / "a"}) != first
    (tmp_path / "b").write_text("3")
    assert prefix({"bin/a": tmp_path / "a", "lib/b": tmp_path / "b"}) != first
