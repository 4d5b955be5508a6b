from __future__ import annotations

import hashlib
import http.server
import io
import os
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nodewright.controlplane import assetcache, download, gobuild, versions
from nodewright.controlplane.assets import Assets
from nodewright.controlplane.errors import PreconditionError
from nodewright.controlplane.progress import Step

CONTENT = b"#!/bin/sh\necho kubectl\n" + b"x" * 100_000
KUBECTL = f"/k8s/{versions.KUBERNETES}/bin/linux/{versions.architecture()}/kubectl"
ETCD_STEM = f"etcd-{versions.ETCD}-linux-{versions.architecture()}"
ETCD = f"/etcd/{versions.ETCD}/{ETCD_STEM}.tar.gz"


class RecordedProgress:
    """Keeps what was said."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.results: list[str] = []
        self.updates: list[str] = []

    @contextmanager
    def step(self, _title: str) -> Iterator[Step]:
        yield self

    def note(self, text: str) -> None:
        self.notes.append(text)

    def result(self, text: str) -> None:
        self.results.append(text)

    def update(self, text: str) -> None:
        self.updates.append(text)


class Mirror:
    """A release host: path -> body, or a function that answers by itself."""

    def __init__(self) -> None:
        self.files: dict[str, bytes | Callable[[http.server.BaseHTTPRequestHandler], None]] = {}
        self.asked: list[str] = []
        mirror = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                mirror.asked.append(self.path)
                answer = mirror.files.get(self.path)
                if callable(answer):
                    answer(self)
                elif answer is None:
                    self.send_error(404)
                else:
                    send(self, answer)

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def publish(self, path: str, body: bytes, checksum: str | None = None) -> None:
        self.files[path] = body
        self.files[f"{path}.sha256"] = (checksum or hashlib.sha256(body).hexdigest()).encode()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def send(handler: http.server.BaseHTTPRequestHandler, body: bytes, length: int | None = None) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(body) if length is None else length))
    handler.end_headers()
    handler.wfile.write(body)


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    server = Mirror()
    yield server
    server.close()


@pytest.fixture
def environ(tmp_path: Path, mirror: Mirror) -> dict[str, str]:
    """Only the cache and the mirror; no Go, so that the last source says no at once."""
    (tmp_path / "empty").mkdir()
    return {
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "HOME": str(tmp_path),
        "PATH": str(tmp_path / "empty"),
        download.KUBERNETES_URL_VARIABLE: f"{mirror.url}/k8s",
        download.ETCD_URL_VARIABLE: f"{mirror.url}/etcd/",
        download.TIMEOUT_VARIABLE: "2",
    }


@pytest.fixture(autouse=True)
def no_build(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The build is not what these tests are about; they see whether it was reached."""
    reached: list[str] = []

    def build(name: str, *_: object) -> Path:
        reached.append(name)
        raise gobuild.BuildUnavailable("no Go here")

    monkeypatch.setattr(gobuild, "build", build)
    return reached


def test_the_users_directory_comes_first(tmp_path: Path, environ: dict[str, str], mirror: Mirror) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "kubectl").write_text("mine")
    (mine / "kubectl").chmod(0o755)
    for variable in ("NODEWRIGHT_ASSETS", "KUBEBUILDER_ASSETS"):
        found = Assets({**environ, variable: str(mine)}).obtain(["kubectl"])
        assert found == {"kubectl": mine / "kubectl"}
    assert mirror.asked == []


def test_what_the_users_directory_lacks_comes_from_further_on_and_that_is_said(
    tmp_path: Path, environ: dict[str, str], mirror: Mirror
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "kubectl").write_text("not executable")
    mirror.publish(KUBECTL, CONTENT)
    progress = RecordedProgress()
    found = Assets({**environ, "NODEWRIGHT_ASSETS": str(tmp_path / "mine")}).obtain(["kubectl"], progress)
    assert found["kubectl"].read_bytes() == CONTENT
    assert progress.notes == [f"not in {tmp_path / 'mine'}"]


def test_a_users_directory_that_is_not_there_is_an_error(tmp_path: Path, environ: dict[str, str]) -> None:
    with pytest.raises(PreconditionError, match="NODEWRIGHT_ASSETS names"):
        Assets({**environ, "NODEWRIGHT_ASSETS": str(tmp_path / "typo")}).obtain(["kubectl"])


def test_download_is_verified_cached_and_not_repeated(environ: dict[str, str], mirror: Mirror) -> None:
    mirror.publish(KUBECTL, CONTENT)
    path = Assets(environ).obtain(["kubectl"])["kubectl"]
    assert path.read_bytes() == CONTENT
    assert os.access(path, os.X_OK)
    asked = len(mirror.asked)
    assert Assets(environ).obtain(["kubectl"]) == {"kubectl": path}
    assert len(mirror.asked) == asked
    assert [entry.name for entry in path.parent.iterdir() if entry.name.endswith(".part")] == []


def test_only_what_is_asked_for_is_fetched(environ: dict[str, str], mirror: Mirror) -> None:
    mirror.publish(KUBECTL, CONTENT)
    Assets(environ).obtain(["kubectl"])
    assert mirror.asked == [f"{KUBECTL}.sha256", KUBECTL]


def test_etcd_comes_out_of_its_archive(environ: dict[str, str], mirror: Mirror) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, body in ((f"{ETCD_STEM}/README.md", b"read"), (f"{ETCD_STEM}/etcd", CONTENT)):
            info = tarfile.TarInfo(name)
            info.size = len(body)
            tar.addfile(info, io.BytesIO(body))
    archive = buffer.getvalue()
    mirror.files[ETCD] = archive
    sums = f"{'0' * 64}  other.tar.gz\n{hashlib.sha256(archive).hexdigest()}  {ETCD_STEM}.tar.gz\n"
    mirror.files[f"/etcd/{versions.ETCD}/SHA256SUMS"] = sums.encode()
    path = Assets(environ).obtain(["etcd"])["etcd"]
    assert path.read_bytes() == CONTENT
    assert sorted(e.name for e in path.parent.iterdir() if not e.name.startswith(".")) == ["etcd", "etcd.json"]


def test_an_archive_whose_member_is_a_link_is_refused(environ: dict[str, str], mirror: Mirror) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        info = tarfile.TarInfo(f"{ETCD_STEM}/etcd")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(info)
    archive = buffer.getvalue()
    mirror.files[ETCD] = archive
    line = f"{hashlib.sha256(archive).hexdigest()}  {ETCD_STEM}.tar.gz\n"
    mirror.files[f"/etcd/{versions.ETCD}/SHA256SUMS"] = line.encode()
    with pytest.raises(PreconditionError, match="not the archive that was expected"):
        Assets(environ).obtain(["etcd"])


def test_a_wrong_checksum_is_refused_and_nothing_else_is_tried(
    environ: dict[str, str], mirror: Mirror, no_build: list[str]
) -> None:
    mirror.publish(KUBECTL, CONTENT, checksum="0" * 64)
    with pytest.raises(PreconditionError, match="refused") as error:
        Assets(environ).obtain(["kubectl"])
    assert hashlib.sha256(CONTENT).hexdigest() in error.value.message
    assert no_build == []
    assert Assets(environ).locate("kubectl") is None


@pytest.mark.parametrize(
    "checksums", [b"<html>please log in</html>", b"", b"abc", b"0" * 63, ("0" * 64 + "  other").encode()]
)
def test_a_host_that_publishes_no_checksum_is_no_source(
    environ: dict[str, str], mirror: Mirror, no_build: list[str], checksums: bytes
) -> None:
    mirror.publish(KUBECTL, CONTENT)
    mirror.files[f"{KUBECTL}.sha256"] = checksums
    with pytest.raises(PreconditionError, match="holds no checksum"):
        Assets(environ).obtain(["kubectl"])
    assert no_build == ["kubectl"]


def test_a_missing_release_falls_through_and_says_so(
    environ: dict[str, str], mirror: Mirror, no_build: list[str]
) -> None:
    progress = RecordedProgress()
    with pytest.raises(PreconditionError) as error:
        Assets(environ).obtain(["kubectl"], progress)
    assert "answers 404" in error.value.message
    assert "no Go here" in error.value.message
    assert "NODEWRIGHT_ASSETS" in error.value.hint
    assert progress.notes == [f"{mirror.url}{KUBECTL}.sha256 answers 404; building it instead"]
    assert no_build == ["kubectl"]


def test_a_cut_transfer_is_repeated_once(environ: dict[str, str], mirror: Mirror) -> None:
    tries = []

    def cut_first(handler: http.server.BaseHTTPRequestHandler) -> None:
        tries.append(1)
        send(handler, CONTENT if len(tries) > 1 else CONTENT[:1000], length=len(CONTENT))

    mirror.publish(KUBECTL, CONTENT)
    mirror.files[KUBECTL] = cut_first
    assert Assets(environ).obtain(["kubectl"])["kubectl"].read_bytes() == CONTENT
    assert len(tries) == 2


def test_a_transfer_that_is_always_cut_falls_through(
    environ: dict[str, str], mirror: Mirror, no_build: list[str]
) -> None:
    mirror.publish(KUBECTL, CONTENT)
    mirror.files[KUBECTL] = lambda handler: send(handler, CONTENT[:1000], length=len(CONTENT))
    with pytest.raises(PreconditionError, match="1000 of"):
        Assets(environ).obtain(["kubectl"])
    assert no_build == ["kubectl"]
    cache = Assets(environ).cache("kubectl").directory
    assert [entry.name for entry in cache.iterdir() if entry.name.endswith(".part")] == []


def test_a_host_that_does_not_answer_is_asked_once_for_all(
    environ: dict[str, str], mirror: Mirror, no_build: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()
    mirror.files[f"{KUBECTL}.sha256"] = lambda _handler: release.wait(30) and None  # type: ignore[assignment,return-value]

    def build(name: str, cache: assetcache.AssetCache, *_: object) -> Path:
        no_build.append(name)
        temporary = cache.temporary(name)
        temporary.write_text("built")
        return cache.install(name, temporary, assetcache.sha256_of(temporary), "build")

    monkeypatch.setattr(gobuild, "build", build)
    progress = RecordedProgress()
    try:
        Assets({**environ, download.TIMEOUT_VARIABLE: "0.2"}).obtain(["kubectl", "kube-apiserver"], progress)
    finally:
        release.set()
    assert no_build == ["kubectl", "kube-apiserver"]
    assert mirror.asked == [f"{KUBECTL}.sha256"]
    assert all("not reachable" in note for note in progress.notes)


def test_a_refused_connection_falls_through(environ: dict[str, str], no_build: list[str]) -> None:
    closed = {download.KUBERNETES_URL_VARIABLE: "http://127.0.0.1:9"}
    with pytest.raises(PreconditionError, match="not reachable"):
        Assets({**environ, **closed}).obtain(["kubectl"])
    assert no_build == ["kubectl"]


def test_a_changed_file_in_the_cache_is_fetched_again(environ: dict[str, str], mirror: Mirror) -> None:
    mirror.publish(KUBECTL, CONTENT)
    path = Assets(environ).obtain(["kubectl"])["kubectl"]
    path.write_bytes(b"#!/bin/sh\nevil\n")
    assert Assets(environ).locate("kubectl") is None
    assert Assets(environ).obtain(["kubectl"])["kubectl"].read_bytes() == CONTENT


def test_verification_is_remembered_until_the_file_changes(
    environ: dict[str, str], mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror.publish(KUBECTL, CONTENT)
    path = Assets(environ).obtain(["kubectl"])["kubectl"]
    hashed: list[Path] = []
    original = assetcache.sha256_of
    monkeypatch.setattr(assetcache, "sha256_of", lambda p: hashed.append(p) or original(p))
    Assets(environ).obtain(["kubectl"])
    assert hashed == []
    os.utime(path, ns=(time.time_ns(), 1))  # same content, another time: looked at once more
    Assets(environ).obtain(["kubectl"])
    Assets(environ).obtain(["kubectl"])
    assert hashed == [path]


def test_an_installation_that_was_cut_short_is_not_used(environ: dict[str, str], mirror: Mirror) -> None:
    """The record is written last: a binary alone is half an installation."""
    mirror.publish(KUBECTL, CONTENT)
    path = Assets(environ).obtain(["kubectl"])["kubectl"]
    path.with_name("kubectl.json").unlink()
    assert Assets(environ).locate("kubectl") is None
    assert Assets(environ).obtain(["kubectl"])["kubectl"] == path


def test_two_at_once_fetch_once(environ: dict[str, str], mirror: Mirror) -> None:
    started, go_on = threading.Event(), threading.Event()

    def slow(handler: http.server.BaseHTTPRequestHandler) -> None:
        started.set()
        go_on.wait(10)
        send(handler, CONTENT)

    mirror.publish(KUBECTL, CONTENT)
    mirror.files[KUBECTL] = slow
    progress = RecordedProgress()
    threads = [threading.Thread(target=lambda: Assets(environ).obtain(["kubectl"], progress)) for _ in range(2)]
    threads[0].start()
    assert started.wait(10)
    threads[1].start()
    while not any("waiting for it" in text for text in progress.updates):
        assert threads[1].is_alive()
        time.sleep(0.01)
    go_on.set()
    for thread in threads:
        thread.join(20)
    assert mirror.asked.count(KUBECTL) == 1


def test_unknown_names_are_a_mistake_of_ours(environ: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="unknown binary"):
        Assets(environ).obtain(["kube-nothing"])


def test_the_official_hosts_are_the_default() -> None:
    assert download.release("kubectl", {}).url == (
        f"https://dl.k8s.io/release/{versions.KUBERNETES}/bin/linux/{versions.architecture()}/kubectl"
    )
    assert download.release("etcd", {}).checksum_url == (
        f"https://github.com/etcd-io/etcd/releases/download/{versions.ETCD}/SHA256SUMS"
    )
