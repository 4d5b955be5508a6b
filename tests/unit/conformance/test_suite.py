"""The suite's command line and process, the cluster DNS' objects."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from conformance import dns
from conformance.images import COREDNS_IMAGE
from conformance.suite import Programs, Selection, command, run

PROGRAMS = Programs(Path("/bin/ginkgo"), Path("/bin/e2e.test"), Path("/bin/kubectl"))


def test_all_conformance_tests_unless_told_otherwise() -> None:
    argv = command(PROGRAMS, Selection(), Path("/kubeconfig"), Path("/out"), 2)
    split = argv.index("/bin/e2e.test")
    assert argv[:split] == [
        "/bin/ginkgo",
        "--procs=2",
        "--no-color",
        "--timeout=24h",
        r"--focus=\[Conformance\]",
    ]
    assert argv[split + 1] == "--"
    assert {
        "--kubeconfig=/kubeconfig",
        "--kubectl-path=/bin/kubectl",
        "--report-dir=/out",
        "--num-nodes=2",
        "--allowed-not-ready-nodes=0",
    } <= set(argv[split + 2 :])


def test_a_choice_reaches_ginkgo() -> None:
    selection = Selection(("one", "two"), ("slow",), procs=4, flake_attempts=2, extra=("--dry-run",))
    argv = command(PROGRAMS, selection, Path("/k"), Path("/o"), 2)
    assert argv[1 : argv.index("/bin/e2e.test")] == [
        "--procs=4",
        "--no-color",
        "--timeout=24h",
        "--focus=one",
        "--focus=two",
        "--skip=slow",
        "--flake-attempts=2",
        "--dry-run",
    ]


@pytest.mark.parametrize("code", [0, 1])
def test_the_suite_runs_with_its_output_in_the_log(tmp_path: Path, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", "/of/somebody/else")
    script = (
        "import os, sys; print('out', os.environ.get('KUBECONFIG'), flush=True);"
        f" print('err', file=sys.stderr); sys.exit({code})"
    )
    log = tmp_path / "e2e.log"
    assert run([sys.executable, "-c", script], log) == code
    assert log.read_text().splitlines() == ["out None", "err"]


def test_dns_is_what_pods_ask_for() -> None:
    items = json.loads(dns.manifest("10.96.0.10"))["items"]
    by_kind = {item["kind"]: item for item in items}
    service, deployment = by_kind["Service"], by_kind["Deployment"]
    assert (service["metadata"]["namespace"], service["metadata"]["name"]) == ("kube-system", "kube-dns")
    assert service["spec"]["clusterIP"] == "10.96.0.10"
    template = deployment["spec"]["template"]
    assert service["spec"]["selector"].items() <= template["metadata"]["labels"].items()
    (container,) = template["spec"]["containers"]
    assert container["image"] == COREDNS_IMAGE
    assert template["spec"]["serviceAccountName"] == by_kind["ServiceAccount"]["metadata"]["name"]
    assert by_kind["ClusterRoleBinding"]["roleRef"]["name"] == by_kind["ClusterRole"]["metadata"]["name"]
