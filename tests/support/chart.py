"""The Helm chart rendered, as objects. Needs Helm: a missing one fails tests, it does not skip them."""

from __future__ import annotations

import functools
import json
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from nodewright.controlplane.assets import Assets

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts/nodewright"
HELMS = ("helm", "helm4")
NAMESPACE = "nodewright-system"
KUBE_VERSION = "1.36.0"

Object = dict[str, Any]


@functools.cache
def helm_path(name: str = "helm") -> str:
    """Helm 3 or 4: $NODEWRIGHT_HELM, $NODEWRIGHT_HELM4, else where `nodewright assets` finds it."""
    named = os.environ.get({"helm": "NODEWRIGHT_HELM", "helm4": "NODEWRIGHT_HELM4"}[name])
    if named:
        return named
    located = Assets().locate(name)
    if located is None:
        pytest.fail(f"{name} is not there: run `nodewright assets {name}`, as `make unit` does, or set NODEWRIGHT_HELM")
    return str(located.path)


def helm(*arguments: str, name: str = "helm", check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run Helm, away from the user's cluster and settings."""
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("HELM_", "KUBE"))}
    environ["KUBECONFIG"] = os.devnull
    result = subprocess.run(
        [helm_path(name), *arguments], env=environ, capture_output=True, text=True, check=False, timeout=60
    )
    if check and result.returncode:
        pytest.fail(f"{name} {' '.join(arguments)}: {result.stderr}")
    return result


def template(
    values: Mapping[str, Any] | None = None,
    *,
    release: str = "nodewright",
    kube_version: str = KUBE_VERSION,
    name: str = "helm",
    check: bool = True,
    api_versions: Sequence[str] = (),
) -> subprocess.CompletedProcess[str]:
    """`helm template` with values by dotted path; null removes one. `api_versions` are kinds that the cluster has."""
    sets = [f"--set-json={path}={json.dumps(value)}" for path, value in (values or {}).items()]
    sets += [f"--api-versions={version}" for version in api_versions]
    options = ["--namespace", NAMESPACE, "--kube-version", kube_version, *sets]
    return helm("template", release, str(CHART), *options, name=name, check=check)


def render(values: Mapping[str, Any] | None = None, *, release: str = "nodewright", name: str = "helm") -> list[Object]:
    """The objects that the chart makes with these values, hooks and tests included."""
    return json.loads(_render(json.dumps(values or {}), release, name))


@functools.cache
def _render(values: str, release: str, name: str) -> str:
    text = template(json.loads(values), release=release, name=name).stdout
    return json.dumps([obj for obj in yaml.load_all(text, Loader=yaml.CSafeLoader) if obj is not None])


def find(objects: list[Object], kind: str, name: str) -> Object:
    """The one object of that kind and name."""
    found = [obj for obj in objects if (obj["kind"], obj["metadata"]["name"]) == (kind, name)]
    assert len(found) == 1, (
        f"{kind} {name}: {len(found)} of {sorted((o['kind'], o['metadata']['name']) for o in objects)}"
    )
    return found[0]


def pod_specs(objects: list[Object]) -> Iterator[tuple[str, Object]]:
    """`kind/name` and the Pod's spec of everything that makes Pods."""
    for obj in objects:
        where = f"{obj['kind']}/{obj['metadata']['name']}"
        if obj["kind"] == "Pod":
            yield where, obj["spec"]
        elif obj["kind"] in ("Deployment", "DaemonSet", "Job"):
            yield where, obj["spec"]["template"]["spec"]


def containers(spec: Object) -> Iterator[Object]:
    """All containers of a Pod, init containers first."""
    yield from spec.get("initContainers", ())
    yield from spec["containers"]
