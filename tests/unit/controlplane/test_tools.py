"""kind and Helm: where they come from, and which one on PATH is good enough."""

from __future__ import annotations

from pathlib import Path

import pytest

from nodewright.controlplane import download, gobuild, pathtools, versions
from nodewright.controlplane.assets import Assets

PLATFORM = f"linux-{versions.architecture()}"


def program(directory: Path, name: str, answer: str, code: int = 0) -> dict[str, str]:
    """A program on PATH that tells a version, and the environment that has only it."""
    directory.mkdir(exist_ok=True)
    path = directory / name
    path.write_text(f"#!/bin/sh\necho '{answer}'\nexit {code}\n")
    path.chmod(0o755)
    return {"PATH": str(directory), "XDG_CACHE_HOME": str(directory / "cache"), "HOME": str(directory)}


@pytest.mark.parametrize(
    ("answer", "wanted", "good"),
    [
        ("kind v0.33.0 go1.26.8 linux/amd64", "v0.33.0", True),
        ("kind v0.34.1 go1.26.8 linux/amd64", "v0.33.0", True),
        ("kind v0.32.0 go1.26.8 linux/amd64", "v0.33.0", False),
        ("v3.22.5+g1234567", "v3.22.0", True),
        ("v3.9.0+g1234567", "v3.22.0", False),
        ("v4.3.1+g1234567", "v3.22.0", False),
        ("v3.22.0+g1234567", "v4.3.1", False),
        ("no version at all", "v4.3.1", False),
    ],
)
def test_which_versions_are_new_enough(answer: str, wanted: str, good: bool) -> None:
    assert pathtools.new_enough(answer, wanted) is good


def test_a_program_on_path_is_used_when_new_enough(tmp_path: Path) -> None:
    environ = program(tmp_path / "bin", "kind", f"kind {versions.KIND} go1.26.8 linux/amd64")
    located = Assets(environ).locate("kind")
    assert located is not None
    assert (located.path, located.source) == (tmp_path / "bin" / "kind", "PATH")


def test_helm_on_path_serves_only_its_own_major_version(tmp_path: Path) -> None:
    environ = program(tmp_path / "bin", "helm", "v4.9.0+g1234567")
    assert Assets(environ).locate("helm") is None
    located = Assets(environ).locate("helm4")
    assert located is not None
    assert located.path == tmp_path / "bin" / "helm"


@pytest.mark.parametrize(("answer", "code"), [("kind v0.1.0", 0), ("kind v9.9.9", 1)])
def test_an_old_or_broken_program_on_path_is_passed_by(tmp_path: Path, answer: str, code: int) -> None:
    assert Assets(program(tmp_path / "bin", "kind", answer, code)).locate("kind") is None


def test_control_plane_binaries_are_not_taken_from_path(tmp_path: Path) -> None:
    assert Assets(program(tmp_path / "bin", "kubectl", "v1.99.0")).locate("kubectl") is None


def test_releases() -> None:
    kind, helm, helm4 = (download.release(name, {}) for name in versions.TOOLS)
    assert kind.url.endswith(f"/{versions.KIND}/kind-{PLATFORM}")
    assert (kind.checksum_url, kind.member) == (f"{kind.url}.sha256sum", "")
    assert helm.url.endswith(f"/helm-{versions.HELM3}-{PLATFORM}.tar.gz")
    assert (helm.checksum_url, helm.member) == (f"{helm.url}.sha256sum", f"{PLATFORM}/helm")
    assert helm4.url.endswith(f"/helm-{versions.HELM4}-{PLATFORM}.tar.gz")


def test_recipes() -> None:
    assert gobuild.recipe("kind").package == "sigs.k8s.io/kind"
    for name, module, version in (
        ("helm", "helm.sh/helm/v3", versions.HELM3),
        ("helm4", "helm.sh/helm/v4", versions.HELM4),
    ):
        made = gobuild.recipe(name)
        assert (made.module, made.version, made.package) == (module, version, f"{module}/cmd/helm")
        assert f"-X {module}/internal/version.version={version}" in made.ldflags


def test_each_release_has_a_cache_directory_of_its_own(tmp_path: Path) -> None:
    assets = Assets({}, tmp_path)
    directories = {name: assets.cache(name).directory.name for name in ("etcd", "kubectl", *versions.TOOLS)}
    assert len(set(directories.values())) == len(directories)
    assert directories["helm4"] == f"helm-{versions.HELM4}-{PLATFORM}"
