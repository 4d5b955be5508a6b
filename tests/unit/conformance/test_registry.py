"""The registry, asked by the agent's own puller's rules: manifests by tag and digest, blobs, nothing else."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.client import HTTPMessage
from pathlib import Path

import pytest

from conformance.oci import MANIFEST, BlobStore, Tree
from conformance.registry import Registry

NO_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    made = BlobStore(tmp_path)
    layer = made.layer(Tree(files={"a": (b"1", 0o644)}))
    made.set_names({"registry.example/team/app:1.0": made.image([layer], {}, "amd64")})
    return made


@pytest.fixture
def registry(store: BlobStore) -> Iterator[Registry]:
    made = Registry(store, "registry.example", "127.0.0.1")
    yield made
    made.close()


def ask(registry: Registry, path: str, method: str = "GET") -> tuple[int, HTTPMessage, bytes]:
    request = urllib.request.Request(registry.url + path, method=method)
    try:
        with NO_PROXY.open(request) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read()


def test_the_base_answers(registry: Registry) -> None:
    assert ask(registry, "/v2/")[0] == 200


def test_an_image_is_served_whole(registry: Registry, store: BlobStore) -> None:
    status, headers, body = ask(registry, "/v2/team/app/manifests/1.0")
    digest = store.names()["registry.example/team/app:1.0"]
    assert (status, headers["Content-Type"], headers["Docker-Content-Digest"]) == (200, MANIFEST, digest)
    assert ask(registry, f"/v2/team/app/manifests/{digest}")[2] == body
    for part in (json.loads(body)["config"], *json.loads(body)["layers"]):
        status, headers, data = ask(registry, f"/v2/team/app/blobs/{part['digest']}")
        assert (status, len(data)) == (200, part["size"])
        assert headers["Content-Type"] == "application/octet-stream"


def test_head_has_no_body(registry: Registry) -> None:
    status, headers, body = ask(registry, "/v2/team/app/manifests/1.0", "HEAD")
    assert (status, body) == (200, b"")
    assert int(headers["Content-Length"]) > 0


@pytest.mark.parametrize(
    "path",
    [
        "/v2/team/app/manifests/2.0",
        "/v2/other/app/manifests/1.0",
        "/v2/team/app/blobs/sha256:" + "0" * 64,
        "/v2/team/app/blobs/../names.json",
        "/v2/team/app/tags/list",
        "/",
    ],
)
def test_everything_else_is_unknown(registry: Registry, path: str) -> None:
    status, _, body = ask(registry, path)
    assert status == 404
    assert json.loads(body)["errors"][0]["code"] == "MANIFEST_UNKNOWN"


def test_two_requests_on_one_connection(registry: Registry) -> None:
    import http.client

    connection = http.client.HTTPConnection(registry.url.removeprefix("http://"))
    try:
        for _ in range(2):
            connection.request("GET", "/v2/team/app/manifests/1.0")
            assert json.loads(connection.getresponse().read())["mediaType"] == MANIFEST
    finally:
        connection.close()


@pytest.mark.parametrize(("error", "told"), [(ConnectionResetError(), False), (ValueError("a bug"), True)])
def test_a_client_that_hangs_up_is_no_error(
    registry: Registry, capsys: pytest.CaptureFixture[str], error: Exception, told: bool
) -> None:
    try:
        raise error
    except type(error):
        registry._server.handle_error(None, ("127.0.0.1", 1))
    assert ("a bug" in capsys.readouterr().err) is told
