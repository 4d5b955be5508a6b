"""Links to logs for log collectors."""

import os
from pathlib import Path

import pytest

from nodewright.kube.objects import ObjectMeta, Pod
from nodewright_agent.config import AgentConfig, complete
from nodewright_agent.configcheck import check
from nodewright_agent.pods import loglinks

POD = Pod(metadata=ObjectMeta(name="web", namespace="shop", uid="u1"))
ID = "0123456789abcdef0123456789abcdef"


def test_the_name_is_the_one_that_log_collectors_take_apart() -> None:
    assert loglinks.name(POD, "main", ID) == f"web_shop_main-{ID}.log"


def test_what_is_too_long_for_a_file_loses_its_end() -> None:
    long = Pod(metadata=ObjectMeta(name="w" * 253, namespace="shop"))
    assert loglinks.name(long, "main", ID) == "w" * 251 + ".log"


def test_only_links_to_the_logs_of_one_pod_are_removed(tmp_path: Path) -> None:
    links, logs = tmp_path / "containers", tmp_path / "pods"
    ours, other = logs / "shop_web_u1", logs / "shop_web_u10"
    for attempt, run in enumerate((ID, "2")):
        loglinks.make(links, POD, "main", run, ours / "main" / f"{attempt}.log")
    loglinks.make(links, POD, "main", ID, ours / "main" / "0.log")  # once more: an agent was killed
    loglinks.make(links, POD, "other", "3", other / "main" / "0.log")
    (links / "a-file.log").write_text("not ours")
    assert os.readlink(links / f"web_shop_main-{ID}.log") == str(ours / "main" / "0.log")
    assert loglinks.remove(links, ours) == 2
    assert loglinks.remove(links, ours) == 0
    assert sorted(os.listdir(links)) == ["a-file.log", "web_shop_other-3.log"]


def test_links_that_go_meanwhile_do_not_keep_others_from_being_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several Pods go at once, each in a thread of its own."""
    links, logs = tmp_path / "containers", tmp_path / "pods"
    for run in range(8):
        loglinks.make(links, POD, "main", str(run), logs / f"shop_web_u{run % 2}" / "main" / "0.log")
    readlink = os.readlink

    def late(path: Path) -> str:
        for run in range(0, 8, 2):
            (links / f"web_shop_main-{run}.log").unlink(missing_ok=True)
        return readlink(path)

    monkeypatch.setattr(os, "readlink", late)
    assert loglinks.remove(links, logs / "shop_web_u1") == 4
    assert list(links.iterdir()) == []


def test_a_directory_that_cannot_be_made_is_told_and_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    loglinks.make(tmp_path / "file" / "links", POD, "main", ID, tmp_path / "0.log")
    assert "a log is not linked" in caplog.text
    assert loglinks.remove(tmp_path / "nowhere", tmp_path) == 0


@pytest.mark.parametrize("directory", ["relative", "/var/../etc", "/logs", "/logs/links"])
def test_bad_directories(directory: str) -> None:
    config = AgentConfig(node_name="n", log_dir="/logs", log_links_dir=directory)
    complete(config)
    assert [text for text in check(config) if text.startswith("log_links_dir: ")]
