"""Building the binaries from the Go module proxy: the last source, for machines that reach no release host.

k8s.io/kubernetes is a module like any other; only its staging modules, which its own go.mod replaces by folders of
the repository, must be replaced by their matching v0 releases in ours. The Go command verifies every module
against the checksum database.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from nodewright.controlplane import versions
from nodewright.controlplane.assetcache import AssetCache, cache_root, sha256_of
from nodewright.controlplane.gotoolchain import GoUnavailable, find_go
from nodewright.controlplane.progress import Step

_STAGING = re.compile(r"^\s*(?:replace\s+)?(k8s\.io/\S+)\s+=>\s+\./staging/", re.MULTILINE)
_VERSION_PACKAGE = "k8s.io/component-base/version"
# Packages beside k8s.io/kubernetes/cmd that are built with its go.mod, with their own linker flags.
_BESIDE = {
    "ginkgo": ("github.com/onsi/ginkgo/v2/ginkgo", ""),
    "agnhost": ("k8s.io/kubernetes/test/images/agnhost", f"-X main.Version={versions.AGNHOST}"),
    "nonewprivs": ("k8s.io/kubernetes/test/images/nonewprivs", ""),
}


class BuildUnavailable(Exception):
    """No Go, no module proxy, or the build failed."""


@dataclass(frozen=True)
class Recipe:
    """How one binary is built: module, its version, the package, and the linker's flags. `test`: its test binary."""

    module: str
    version: str
    package: str
    ldflags: str
    go: str
    test: bool = False


def recipe(name: str) -> Recipe:
    """The recipe of binary `name`. Versions are linked in, as the official builds do."""
    if name == "etcd":
        module = "go.etcd.io/etcd/server/v3"
        return Recipe(module, versions.ETCD, module, "-s -w", "1.25.0")
    project, version = versions.release_of(name)
    go = ".".join(map(str, (*versions.GO_MINIMUM, 0)))
    if project == "kind":
        return Recipe("sigs.k8s.io/kind", version, "sigs.k8s.io/kind", "-s -w", go)
    if project == "helm":
        module = f"helm.sh/helm/{version.partition('.')[0]}"
        linked = f"-X {module}/internal/version.version={version}"
        return Recipe(module, version, f"{module}/cmd/helm", f"-s -w {linked}", go)
    if project == "coredns":
        return Recipe("github.com/coredns/coredns", version, "github.com/coredns/coredns", "-s -w", go)
    if project == "sample-apiserver":
        return Recipe("k8s.io/sample-apiserver", version, "k8s.io/sample-apiserver", "-s -w", go)
    if project == "cri-tools":
        linked = f"-X sigs.k8s.io/cri-tools/pkg/version.Version={version}"
        package = f"sigs.k8s.io/cri-tools/cmd/{name}"
        return Recipe("sigs.k8s.io/cri-tools", version, package, f"-s -w {linked}", go, test=name == "critest")
    if name in _BESIDE:
        package, own = _BESIDE[name]
        return Recipe("k8s.io/kubernetes", version, package, f"-s -w {own}".strip(), go)
    major, minor, _ = version.removeprefix("v").split(".")
    values = {"gitVersion": version, "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
    flags = [f"-X {_VERSION_PACKAGE}.{key}={value}" for key, value in values.items()]
    flags.append(f"-X k8s.io/client-go/pkg/version.gitVersion={version}")
    test = name == "e2e.test"
    package = "k8s.io/kubernetes/test/e2e" if test else f"k8s.io/kubernetes/cmd/{name}"
    return Recipe("k8s.io/kubernetes", version, package, " ".join(["-s -w", *flags]), go, test)


def staging_modules(go_mod: str) -> list[str]:
    """Modules that k8s.io/kubernetes' go.mod replaces by folders of its repository."""
    return sorted(set(_STAGING.findall(go_mod)))


def go_mod(made: Recipe, staging: Sequence[str]) -> str:
    """The go.mod of the scratch module that requires what is built."""
    text = f"module nodewright.dev/assets\n\ngo {made.go}\n\nrequire {made.module} {made.version}\n"
    if staging:
        lines = "".join(f"\t{module} => {module} v0.{made.version.removeprefix('v1.')}\n" for module in staging)
        text += f"\nreplace (\n{lines})\n"
    return text


def build(name: str, cache: AssetCache, step: Step, environ: Mapping[str, str]) -> Path:
    """Build and install `name`. Raises BuildUnavailable with the reason. About 4 minutes for the first on two cores."""
    made = recipe(name)
    try:
        go = find_go(cache_root(environ), step, environ)
    except GoUnavailable as error:
        raise BuildUnavailable(str(error)) from error
    env = build_environment(environ, None if go.own else cache_root(environ))
    work = cache.directory / f".build-{made.module.rpartition('/')[0].replace('/', '-')}"
    work.mkdir(parents=True, exist_ok=True)
    temporary = cache.temporary(name)
    try:
        if not (work / "go.sum").exists():
            step.update("fetching Go modules")
            staging = _staging_of(go.path, made, work, env) if made.module == "k8s.io/kubernetes" else []
            (work / "go.mod").write_text(go_mod(made, staging))
        _compile(go.path, made, temporary, work, env, step)
        return cache.install(name, temporary, sha256_of(temporary), f"go build {made.package}@{made.version}")
    finally:
        temporary.unlink(missing_ok=True)


def build_environment(environ: Mapping[str, str], own_root: Path | None) -> dict[str, str]:
    """Settings of the Go command. A Go that we brought keeps its modules in our cache, not in the user's home."""
    env = {**environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOWORK": "off", "GOOS": "linux"}
    env["GOARCH"] = versions.architecture()
    env["GOFLAGS"] = " ".join(flag for flag in (environ.get("GOFLAGS", ""), "-modcacherw") if flag)
    env.setdefault("HOME", str(Path.home()))
    if own_root is not None:
        env.setdefault("GOPATH", str(own_root / "go-modules"))
        env.setdefault("GOCACHE", str(own_root / "go-build"))
    return env


def _staging_of(go: Path, made: Recipe, work: Path, env: Mapping[str, str]) -> list[str]:
    result = subprocess.run(
        [go, "mod", "download", "-json", f"{made.module}@{made.version}"],
        cwd=work, env=dict(env), capture_output=True, text=True, check=False,
    )  # fmt: skip
    try:
        answer = msgspec.json.decode(result.stdout or "{}", type=dict)
    except msgspec.DecodeError:
        answer = {}
    if result.returncode != 0 or "GoMod" not in answer:
        reason = answer.get("Error") or result.stderr
        raise BuildUnavailable(f"{made.module} could not be fetched: {_last_line(str(reason))}")
    return staging_modules(Path(answer["GoMod"]).read_text())


def _compile(go: Path, made: Recipe, target: Path, work: Path, env: Mapping[str, str], step: Step) -> None:
    """Run `go build`, showing each package as it is compiled (-v prints them on standard error; `go test` cannot)."""
    argv = [
        str(go),
        *(("test", "-c") if made.test else ("build", "-v")),
        "-mod=mod",
        "-trimpath",
        "-buildvcs=false",
        f"-ldflags={made.ldflags}",
        "-o",
        str(target),
    ]
    step.update("resolving Go modules" if not made.test else "compiling, which takes many minutes")
    process = subprocess.Popen(
        [*argv, made.package], cwd=work, env=dict(env),
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace",
    )  # fmt: skip
    compiled = 0
    others: list[str] = []
    with process:
        try:
            assert process.stderr is not None
            for line in process.stderr:
                text = line.strip()
                if text.startswith("go: ") or " " in text:
                    others = [*others[-20:], text]
                    step.update(text.removeprefix("go: "))
                else:
                    compiled += 1
                    step.update(f"compiling, {compiled} packages: {text}")
        except BaseException:
            process.kill()
            raise
    if process.returncode != 0:
        reason = next((line for line in reversed(others) if not line.startswith("go: downloading")), "no output")
        raise BuildUnavailable(f"go build ended with {process.returncode}: {reason}")


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "no reason given"
