"""The images, built from the tree as it is by the product's own script, under names of their own.

A Docker daemon is needed: the one of DOCKER_HOST or of this machine. `make e2e-kind` has one and runs these tests too.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support import image_contents

PROJECT = Path(__file__).parents[3]
REPOSITORY = f"localhost/nodewright-test-{os.getpid()}"

Docker = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def docker() -> Docker:
    """Runs docker with arguments; `check=False` to look at the exit code oneself."""
    program = shutil.which("docker")

    def run(*arguments: str, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
        options = {"text": True, "capture_output": True, "timeout": 120, **options}
        done = subprocess.run([program, *arguments], check=False, **options)
        assert not check or done.returncode == 0, f"docker {' '.join(arguments)}: {done.stderr}"
        return done

    if program is None or run("version", check=False).returncode:
        pytest.skip("no Docker daemon answers: these tests run in `make e2e-kind`")
    return run


@pytest.fixture(scope="session")
def build(docker: Docker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., None]]:
    """Runs tools/images/build.sh with a tag and further environment; the images are removed afterwards.

    On a copy of the project: all builds of a session see the same tree, even while somebody edits the original.
    """
    tags = []
    copy = tmp_path_factory.mktemp("copy") / "project"
    shutil.copytree(
        PROJECT, copy, symlinks=True, ignore=shutil.ignore_patterns(".venv", "build", "__pycache__", ".*_cache")
    )
    (copy / ".venv").symlink_to(PROJECT / ".venv")

    def run(tag: str, **environ: str) -> None:
        tags.append(tag)
        argv = [str(copy / "tools/images/build.sh"), "--tag", tag]
        done = subprocess.run(
            argv, env={**os.environ, "REPOSITORY": REPOSITORY, **environ}, text=True, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr

    yield run
    docker(
        "image", "rm", "--force", *(f"{REPOSITORY}/{image}:{tag}" for tag in tags for image in ("operator", "agent"))
    )


@pytest.fixture(scope="session")
def images(build: Callable[..., None]) -> dict[str, str]:
    """The images' names: {"operator": ..., "agent": ...}."""
    build("1")
    return {image: f"{REPOSITORY}/{image}:1" for image in ("operator", "agent")}


@pytest.fixture(scope="session")
def contents(
    images: dict[str, str], docker: Docker, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, image_contents.Entry]]:
    """The files of both images by path."""
    found = {}
    for image, name in images.items():
        container = docker("create", name).stdout.strip()
        archive = tmp_path_factory.mktemp("rootfs") / f"{image}.tar"
        docker("export", "--output", str(archive), container)
        docker("rm", container)
        found[image] = image_contents.entries(archive)
        archive.unlink()
    return found


@pytest.fixture
def inspect(docker: Docker) -> Callable[[str], Any]:
    """What docker knows about an image."""
    return lambda name: json.loads(docker("image", "inspect", name).stdout)[0]
