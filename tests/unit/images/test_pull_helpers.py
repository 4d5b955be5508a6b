"""Credential files, the gate of pulls, the settings, and how progress is told."""

import asyncio
import json
import os

import pytest

from nodewright_agent.runtime.images import progress
from nodewright_agent.runtime.images.credentials import Credential, in_order
from nodewright_agent.runtime.images.credfiles import CredentialFiles
from nodewright_agent.runtime.images.fsutil import locked
from nodewright_agent.runtime.images.gate import Gate, Rate
from nodewright_agent.runtime.images.model import PullProgress
from nodewright_agent.runtime.images.progress import Meter, PullUnderWay
from nodewright_agent.runtime.images.pullsettings import PullSettings, check, configz
from nodewright_agent.runtime.images.records import Layout
from nodewright_agent.runtime.images.reference import parse


def config(user):
    return json.dumps({"auths": {"r.example": {"username": user, "password": "p"}}, "credsStore": "ignored"})


# Credential files


def test_the_first_file_that_can_be_read_counts(tmp_path, caplog):
    first, second = tmp_path / "config.json", tmp_path / "b" / ".dockercfg"
    second.parent.mkdir()
    second.write_text(json.dumps({"r.example": {"username": "old", "password": "p"}}))
    files = CredentialFiles([first, second])
    assert [one.username for one in files.current()] == ["old"]
    assert not caplog.text
    first.write_text("{")
    assert [one.username for one in files.current()] == ["old"]
    assert caplog.text.count("is of no use") == 1
    files.current()
    assert caplog.text.count("is of no use") == 1  # said once for each version of the file
    first.write_text(config("new"))
    assert [(one.username, one.origin) for one in files.current()] == [("new", None)]
    first.unlink()
    second.unlink()
    assert files.current() == []


def test_a_file_is_read_again_only_when_it_has_changed(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(config("one"))
    files = CredentialFiles([path])
    first = files.current()
    assert files.current() is first
    before = path.stat()
    path.write_text(config("two"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))  # as coarse as a clock may be
    assert [one.username for one in files.current()] == ["two"]


def test_a_file_that_may_not_be_read_is_told_once(tmp_path, caplog):
    files = CredentialFiles([tmp_path / "file" / "config.json"])
    (tmp_path / "file").write_text("no folder")
    assert files.current() == files.current() == []
    assert caplog.text.count("cannot be read") == 1


def test_credentials_of_one_place_come_before_those_of_the_next():
    image = parse("r.example/team/app:1")
    secrets = [Credential("r.example", "wide"), Credential("r.example/team", "narrow"), Credential("x.example", "no")]
    node = [Credential("r.example/team/app", "node")]
    assert [one.username for one in in_order([secrets, node], image)] == ["narrow", "wide", "node"]


# The gate


def test_a_burst_at_once_and_then_so_many_a_second():
    now = [100.0]
    rate = Rate(2, 3, lambda: now[0])
    assert [rate.delay() for _ in range(5)] == pytest.approx([0, 0, 0, 0.5, 1.0])
    now[0] += 1.0
    assert rate.delay() == pytest.approx(0.5)
    now[0] += 60.0
    assert [rate.delay() for _ in range(4)] == pytest.approx([0, 0, 0, 0.5])
    assert [Rate(0, 1).delay() for _ in range(3)] == [0, 0, 0]


async def test_pulls_wait_for_their_turn_in_order():
    gate, running, most, order = Gate(2), 0, 0, []

    async def pull(number):
        nonlocal running, most
        async with gate.passed():
            running += 1
            most = max(most, running)
            order.append(number)
            await asyncio.sleep(0)
            running -= 1

    await asyncio.gather(*(pull(number) for number in range(6)))
    assert (most, order) == (2, list(range(6)))


# Settings


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"image_credential_files": ["a.json"]}, "image_credential_files[0]: 'a.json' is not an absolute path"),
        ({"max_parallel_image_pulls": -1}, "max_parallel_image_pulls: -1 is negative"),
        ({"serialize_image_pulls": True, "max_parallel_image_pulls": 2}, "is above 1, with serialize_image_pulls"),
        ({"registry_pull_qps": -1}, "registry_pull_qps: -1 is negative"),
        ({"registry_burst": 0}, "registry_burst: 0 is not positive"),
        ({"preloaded_images_verification_allowlist": ["a"]}, "is for NeverVerifyAllowlistedImages, the policy is"),
        (
            {
                "preloaded_images_verification_allowlist": ["a", "b:1"],
                "image_pull_credentials_verification_policy": "NeverVerifyAllowlistedImages",
            },
            "preloaded_images_verification_allowlist[1]: 'b:1': has a tag",
        ),
        ({"image_credential_provider_config": "/a"}, "give both or none"),
        (
            {"image_credential_provider_config": "a", "image_credential_provider_bin_dir": "/none"},
            "image_credential_provider_config: 'a' is not an absolute path",
        ),
    ],
)
def test_settings_that_are_refused(settings, said):
    (problem,) = check(PullSettings(**settings))
    assert said in problem


def test_settings_as_they_come():
    assert check(PullSettings()) == []
    assert PullSettings().parallel_pulls == 0
    assert PullSettings(serialize_image_pulls=True).parallel_pulls == 1
    assert PullSettings(max_parallel_image_pulls=4).parallel_pulls == 4
    shown = configz(PullSettings(max_parallel_image_pulls=4))
    assert (shown["maxParallelImagePulls"], shown["registryPullQPS"]) == (4, 5)
    assert shown["imagePullCredentialsVerificationPolicy"] == "NeverVerifyPreloadedImages"


# Progress


def step(layer, state, current, total=100_000_000):
    return PullProgress("r.example/a:1", f"sha256:{layer}", state, current, total)


def test_a_pull_in_one_sentence():
    now = [50.0]
    meter = Meter("r.example/a:1", "agent n", lambda: now[0])
    assert meter.read().text == "waiting for its turn, or for the registry"
    for layer, state in enumerate(("waiting", "waiting", "exists")):
        meter.take(step(layer, state, 100_000_000 if state == "exists" else 0))
    now[0] += 5
    meter.take(step(0, "pulling", 10_000_000))
    meter.take(step(0, "pulling", 60_000_000))
    found = meter.read()
    assert found.text == "160 of 300 MB, 1 of 3 layers, 12 MB/s"
    assert (found.image, found.by, found.started, found.updated) == ("r.example/a:1", "agent n", 50.0, 55.0)
    now[0] += 30
    assert meter.read().rate < 2e6
    now[0] += 30
    assert meter.read().text == "160 of 300 MB, 1 of 3 layers, 0 B/s"  # it stands still
    meter.take(step(0, "done", 100_000_000))
    assert meter.read().layers_done == 2


def test_what_others_fetch_is_no_speed_of_ours():
    now = [0.0]
    meter = Meter("a", clock=lambda: now[0])
    meter.take(step(0, "waiting", 0))
    now[0] += 1
    meter.take(step(0, "done", 100_000_000))  # another process has made the layer
    assert meter.read().rate == 0


@pytest.mark.parametrize(
    ("done", "total", "text"),
    [(0, 999, "0 of 999 B"), (1500, 2500, "1.5 of 2.5 kB"), (1_200_000_000, 3_000_000_000, "1.2 of 3.0 GB")],
)
def test_sizes(done, total, text):
    shown = PullUnderWay("a", "", 1, 0.0, 0.0, layers=2, layers_done=1, bytes=done, total=total, rate=999.0)
    assert shown.text == f"{text}, 1 of 2 layers, 999 B/s"


@pytest.fixture
def layout(tmp_path):
    made = Layout(tmp_path)
    made.make()
    return made


async def until(answer):
    for _ in range(3000):
        if found := answer():
            return found
        await asyncio.sleep(0.01)
    raise AssertionError("it never came")


async def test_a_pull_shows_in_the_folder_while_it_lasts(layout, monkeypatch):
    monkeypatch.setattr(progress, "FIRST_RECORD", 0.0)
    monkeypatch.setattr(progress, "RECORD_EVERY", 0.01)
    meter = Meter("r.example/a:1", "agent n")
    async with progress.shown(layout, meter):
        found = await until(lambda: progress.under_way(layout))
        assert (found[0].image, found[0].by, found[0].layers) == ("r.example/a:1", "agent n", 0)
        assert found[0].pid == os.getpid()
        meter.take(step(0, "pulling", 1))
        await until(lambda: progress.under_way(layout)[0].layers)
    assert progress.under_way(layout) == []
    assert list(layout.pulls.iterdir()) == []


async def test_a_short_pull_leaves_no_trace(layout):
    async with progress.shown(layout, Meter("a")):
        await asyncio.sleep(0)
    assert list(layout.pulls.iterdir()) == []


def test_what_killed_processes_left_is_removed(layout):
    for name in ("a.lock", "a.json", ".a.json.7.7.tmp"):
        (layout.pulls / name).write_text("{}")
    (layout.pulls / "b.json").write_text("torn")
    with locked(layout.pulls / "b.lock"):
        assert progress.under_way(layout) == []
        assert sorted(path.name for path in layout.pulls.iterdir()) == ["b.json", "b.lock"]
