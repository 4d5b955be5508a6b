"""What `nodewright status` says of a cluster whose processes are not there."""

import json
from pathlib import Path

import pytest

from nodewright.cli import main as program
from nodewright.cli.status import examine
from nodewright.controlplane import state
from nodewright.controlplane.cluster import LocalCluster
from nodewright.controlplane.layout import Layout


@pytest.fixture
def stopped(tmp_path: Path) -> LocalCluster:
    """A cluster of one node host of which nothing runs."""
    layout = Layout(tmp_path, "default")
    cluster = LocalCluster.ensure(layout)
    state.save(layout, state.with_nodes(cluster.state, 1))
    return LocalCluster.load(layout)


def test_nodes_are_unknown_while_nobody_can_be_asked(stopped: LocalCluster) -> None:
    found = examine(stopped)
    assert [(node.name, node.ready, node.reason) for node in found.nodes] == [
        ("node1", None, "the API server does not answer")
    ]
    assert not found.healthy


def test_the_table_says_so_too(stopped: LocalCluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["status", "--state-dir", str(tmp_path)]) == 1
    assert "Unknown" in capsys.readouterr().out
    assert program.main(["status", "--state-dir", str(tmp_path), "-o", "json"]) == 1
    assert json.loads(capsys.readouterr().out)["nodes"][0]["ready"] is None
