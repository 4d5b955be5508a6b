"""Fixtures: an image store, Debian's registry on loopback, and a registry that misbehaves on demand."""

import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

from nodewright_agent.runtime.images import registry as client
from nodewright_agent.runtime.images.store import ImageStore
from support.bad_registry import BadRegistry, serve
from support.image_makers import digest


@pytest.fixture
async def store(tmp_path):
    opened = ImageStore(tmp_path / "store")
    yield opened
    await opened.close()


@pytest.fixture
async def bad():
    registry = BadRegistry()
    runner, registry.host = await serve(registry.handle)
    yield registry
    await runner.cleanup()


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Back-offs of a test are short; how long they are in life is a unit's matter."""
    monkeypatch.setattr(client, "_delay", lambda attempt: 0.001)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class DebianRegistry:
    """A running docker-registry; `push` uses the protocol itself, so that broken images can be pushed, too."""

    def __init__(self, port):
        self.host = f"127.0.0.1:{port}"

    def _request(self, method, path, data=None, **headers):
        request = urllib.request.Request(f"http://{self.host}{path}", data=data, method=method, headers=headers)
        with urllib.request.urlopen(request) as response:
            return response.headers

    def push_blob(self, repository, data):
        location = self._request("POST", f"/v2/{repository}/blobs/uploads/", b"")["Location"]
        path = location.partition(self.host)[2] or location
        self._request("PUT", f"{path}&digest={digest(data)}", data, **{"Content-Type": "application/octet-stream"})

    def push(self, made, repository, tag):
        manifest, found = made.freeze()
        for name, blob in made.blobs.items():
            if name != found:
                self.push_blob(repository, blob)
        self._request(
            "PUT", f"/v2/{repository}/manifests/{tag}", manifest, **{"Content-Type": made.manifest["mediaType"]}
        )
        return f"{self.host}/{repository}:{tag}"


@pytest.fixture(scope="session")
def registry(tmp_path_factory):
    program = shutil.which("docker-registry")
    if program is None:
        pytest.skip("docker-registry is not installed")
    folder, port = tmp_path_factory.mktemp("registry"), free_port()
    config = folder / "config.yml"
    config.write_text(
        f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {folder}/data}}}}\n"
        f"http: {{addr: '127.0.0.1:{port}'}}\n"
    )
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen([program, "serve", str(config)], stdout=log, stderr=log)
    for _ in range(200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        assert process.poll() is None, (folder / "log").read_text()
        time.sleep(0.05)
    yield DebianRegistry(port)
    os.kill(process.pid, signal.SIGTERM)
    process.wait()


@pytest.fixture
def archive_path(tmp_path) -> Path:
    return tmp_path / "image.tar"
