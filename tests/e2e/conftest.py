"""The cluster under test: the one that $KUBECONFIG names, else one with two node hosts started from the command line.

The suite in `common` runs on both; `embedded` tests the command line's own cluster, `chaos` and `helm` need kind.
The embedded cluster lives in a network namespace that the session makes for itself.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nodewright.controlplane.assets import Assets
from support import host_state
from support.cluster import Cluster
from support.gather import gather
from support.live import Live
from support.live_facts import Facts, look
from support.live_objects import IMAGE, NEXT_IMAGE
from support.network import own_namespace

NAME = "e2e"
_FOLDERS = ("common", "chaos", "helm")
_LIVE: pytest.StashKey[Live] = pytest.StashKey()
_FIGURES: pytest.StashKey[list[str]] = pytest.StashKey()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Clusters are slow: five minutes for a test, not one; and what needs kind says so where there is none."""
    for item in items:
        if item.path.parent.name in _FOLDERS:
            item.add_marker(pytest.mark.timeout(300))


@pytest.fixture(scope="session")
def network() -> Iterator[None]:
    """Move the session into its own network namespace."""
    if os.geteuid() != 0:
        pytest.fail("the end-to-end tests make namespaces and containers: run them as root")
    with own_namespace():
        yield


@pytest.fixture(scope="session")
def state_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the cluster keeps its state."""
    return tmp_path_factory.mktemp("nw")


@pytest.fixture(scope="session")
def marks(state_dir: Path) -> tuple[str, ...]:
    """What stands in the command line of every process of the cluster."""
    return (str(state_dir), f"/run/nodewright/{NAME}")


@pytest.fixture(scope="session")
def before(network: None, marks: tuple[str, ...]) -> dict[str, list[str]]:
    """The machine before the cluster was there."""
    return host_state.snapshot(marks)


@pytest.fixture(scope="session")
def cluster(before: dict[str, list[str]], state_dir: Path) -> Iterator[Cluster]:
    """A running cluster with two node hosts Ready and the demo image in their store."""
    made = Cluster(NAME, state_dir)
    try:
        made.run("up", "--name", made.name, "--nodes", "2", "--wait", timeout=600)
        for image in (IMAGE, NEXT_IMAGE):
            archive = str(state_dir / "demo.tar")
            made.run("image", "demo", archive, "--as", image)
            made.run("image", "load", "--name", made.name, archive)
        yield made
    finally:
        kept = os.environ.get("NODEWRIGHT_E2E_LOGS")
        if kept and made.logs_dir().exists():
            shutil.copytree(made.logs_dir(), kept, dirs_exist_ok=True)
        made.run("down", "--name", made.name, "--purge", check=False)


@pytest.fixture(scope="session")
def live(request: pytest.FixtureRequest) -> Live:
    """The cluster under test, by its API only."""
    if given := os.environ.get("KUBECONFIG"):
        kubeconfig = Path(given)
    else:
        embedded: Cluster = request.getfixturevalue("cluster")
        kubeconfig = embedded.state_dir / "clusters" / embedded.name / "kubeconfigs" / "admin.conf"
    kubectl = os.environ.get("KUBECTL") or Assets().obtain(["kubectl"])["kubectl"]
    request.config.stash[_LIVE] = made = Live(kubeconfig, Path(kubectl))
    return made


@pytest.fixture(scope="session")
def facts(live: Live) -> Facts:
    """What kind of cluster it is; printed once, so that a log tells what was tested."""
    found = look(live)
    assert found.nodes, "the cluster has no node that takes Pods"
    print(f"\ncluster under test: {found}")
    return found


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Note a measured figure: all are printed at the end, whether tests pass or fail."""
    return request.config.stash.setdefault(_FIGURES, []).append


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the figures."""
    if noted := config.stash.get(_FIGURES, []):
        terminalreporter.section("figures")
        for line in noted:
            terminalreporter.write_line(line)


@pytest.fixture
def namespace(live: Live, request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace of its own for the test, with its default ServiceAccount; deleted afterwards."""
    name = "t-" + request.node.name.split("[")[0].removeprefix("test_").replace("_", "-")[:40].strip("-")
    name = f"{name}-{os.urandom(2).hex()}"
    live.kubectl("create", "namespace", name)
    live.wait(
        "default ServiceAccount",
        lambda: live.kubectl("get", "serviceaccount", "default", "-n", name, "--ignore-not-found"),
    )
    yield name
    live.kubectl("delete", "namespace", name, "--wait=false", check=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Gather logs, events, objects, rules and links when a test fails, while all of it is still there."""
    report = yield
    live = item.config.stash.get(_LIVE, None)
    if report.failed and call.when in ("setup", "call") and live is not None:
        root = Path(os.environ.get("NODEWRIGHT_E2E_ARTIFACTS") or item.config.rootpath / "build" / "e2e-artifacts")
        folder = root / item.name.replace("/", "-")
        try:
            gather(live, folder, getattr(item, "funcargs", {}).get("namespace"))
        except Exception as error:  # the report of the failure matters more than its pictures
            print(f"gathering into {folder} ended early: {error!r}")
        report.sections.append(("gathered", f"logs, objects, rules and links are in {folder}"))
    return report
