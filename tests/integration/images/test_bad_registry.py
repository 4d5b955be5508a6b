"""Pulls from a registry that breaks every rule it can."""

import asyncio
import gzip
import json
import os
import shutil
import subprocess

import pytest
from aiohttp import web

from nodewright_agent.runtime.images import registry as client
from nodewright_agent.runtime.images.errors import ErrImagePull, ImageCorrupt, RegistryUnavailable
from support.image_makers import BASE, BIG, INDEX, MANIFEST, TOP, digest, digest_of, image, leftovers

pytestmark = pytest.mark.needs_root


def respond(**arguments):
    async def handler(request):
        return web.Response(**arguments)

    return handler


MANIFEST_PATH = "/v2/app/manifests/1"


@pytest.mark.parametrize(
    ("response", "said"),
    [
        ({"body": b""}, "not valid JSON"),
        ({"body": b"<html>login</html>", "content_type": "text/html"}, "not valid JSON"),
        ({"body": b"{" * 100_000}, "not valid JSON"),
        ({"body": b" " * (5 << 20)}, "larger than"),
        ({"body": b"{}", "headers": {"Docker-Content-Digest": "sha256:" + "0" * 64}}, "expected"),
        ({"status": 302, "headers": {"Location": "http://169.254.169.254/"}}, "not allowed"),
        ({"status": 302, "headers": {"Location": MANIFEST_PATH}}, "too often"),
        ({"status": 302, "headers": {"Location": "http://[x/"}}, "redirects to"),
        ({"status": 302}, "too often"),
        ({"status": 418}, "unexpected status"),
        ({"status": 401}, "authentication scheme"),
        ({"status": 401, "headers": {"WWW-Authenticate": 'Bearer realm="http://169.254.169.254/t"'}}, "not allowed"),
        ({"status": 401, "headers": {"WWW-Authenticate": 'Basic realm="x"'}}, "pull access denied"),
        ({"status": 403}, "pull access denied"),
    ],
)
async def test_bad_answers_to_the_manifest(store, bad, response, said):
    bad.routes[MANIFEST_PATH] = respond(**response)
    with pytest.raises(ErrImagePull) as caught:
        await store.pull(f"{bad.host}/app:1")
    assert said in str(caught.value)
    assert len(str(caught.value)) < 1000
    assert store.list() == []


@pytest.mark.parametrize("status", [429, 500, 502, 503])
async def test_overload_is_waited_for_within_bounds(store, bad, status):
    ref = bad.serve(image(BASE))
    answers = iter([{"status": status, "headers": {"Retry-After": "0"}}] * 2)
    real = bad.manifests[MANIFEST_PATH]

    async def sometimes(request):
        found = next(answers, None)
        return web.Response(**found) if found else web.Response(body=real, content_type=MANIFEST)

    bad.routes[MANIFEST_PATH] = sometimes
    assert await store.pull(ref)
    for header in ("86400", "-5", "soon"):
        bad.routes[MANIFEST_PATH] = respond(status=status, headers={"Retry-After": header})
        with pytest.raises(RegistryUnavailable, match="not available"):
            await store.pull(ref)


async def test_other_content_than_promised(store, bad):
    made = image(BASE, TOP)
    ref = bad.serve(made)
    for name in [made.manifest["config"]["digest"], digest_of(made, 0)]:
        good = bad.blobs[name]
        for wrong in (b"", good[:-1], good + b"x", good[:-1] + b"x", b"x" * len(good)):
            bad.blobs[name] = wrong
            with pytest.raises((ErrImagePull, RegistryUnavailable)):
                await store.pull(ref)
        bad.blobs[name] = good
    bad.manifests[f"/v2/app/manifests/sha256:{'1' * 64}"] = bad.manifests[MANIFEST_PATH]
    with pytest.raises(ImageCorrupt, match="expected sha256:1111"):
        await store.pull(f"{bad.host}/app@sha256:{'1' * 64}")
    assert store.list() == []
    assert not leftovers(store)
    assert await store.pull(ref)


async def test_diff_ids_that_lie(store, bad):
    made = image(BASE, TOP)
    made.config["rootfs"]["diff_ids"][1] = digest(b"other")
    with pytest.raises(ImageCorrupt, match="diff id"):
        await store.pull(bad.serve(made))
    made = image(BASE, TOP)
    made.config["rootfs"]["diff_ids"].pop()
    with pytest.raises(ImageCorrupt, match="1 diff ids, the manifest has 2 layers"):
        await store.pull(bad.serve(made, tag="2"))


@pytest.mark.parametrize("packing", ["plain", "two members", "zstd", "xz", "bzip2"])
async def test_compression_is_told_by_content(store, bad, packing):
    packed = {
        "plain": lambda: BASE,
        "two members": lambda: gzip.compress(BASE[:700]) + gzip.compress(BASE[700:]),
        "zstd": lambda: subprocess.run(["zstd", "-qc"], input=BASE, capture_output=True, check=True).stdout,
        "xz": lambda: __import__("lzma").compress(BASE),
        "bzip2": lambda: __import__("bz2").compress(BASE),
    }
    if packing == "zstd" and shutil.which("zstd") is None:
        pytest.skip("the zstd program is not installed")
    ref = bad.serve(image(BASE, packed=[packed[packing]()]))
    if packing in ("xz", "bzip2"):
        with pytest.raises(ErrImagePull, match=f"compressed with {packing}"):
            await store.pull(ref)
    else:
        assert (await store.pull(ref)).layers


@pytest.mark.parametrize("ranges", ["honoured", "ignored", "wrong"])
async def test_broken_connections_are_resumed(store, bad, ranges):
    made = image(BIG)
    ref = bad.serve(made)
    name = digest_of(made, 0)
    data = bad.blobs[name]
    starts = []

    async def cutting(request):
        start = int(request.headers.get("Range", "bytes=0-")[6:-1])
        starts.append(start)
        begin = 0 if ranges == "ignored" else start
        partial = start and ranges != "ignored"
        shown = begin + 1 if ranges == "wrong" else begin
        headers = {"Content-Range": f"bytes {shown}-{len(data) - 1}/{len(data)}"} if partial else {}
        answer = web.StreamResponse(status=206 if partial else 200, headers=headers)
        answer.content_length = len(data) - begin
        await answer.prepare(request)
        end = len(data) if len(starts) > 3 else start + len(data) // 4
        await answer.write(data[begin:end])
        if end < len(data):
            request.transport.close()
        return answer

    bad.routes[f"/v2/app/blobs/{name}"] = cutting
    if ranges == "wrong":
        with pytest.raises(ImageCorrupt, match="another range"):
            await store.pull(ref)
    else:
        pulled = await store.pull(ref)
        assert len(os.listdir(pulled.layers[0])) == 100
        assert len(starts) == 4
        assert starts == sorted(starts)
    assert not leftovers(store)


async def test_a_connection_that_always_breaks_is_given_up(store, bad):
    made = image(BIG)
    ref = bad.serve(made)

    async def dead(request):
        request.transport.close()
        return web.Response()

    bad.routes[f"/v2/app/blobs/{digest_of(made, 0)}"] = dead
    with pytest.raises(RegistryUnavailable, match="failed to reach registry"):
        await store.pull(ref)


async def test_a_registry_that_only_trickles_is_given_up(store, bad, monkeypatch):
    monkeypatch.setattr(client, "_RATE_WINDOW", 0.3)
    monkeypatch.setattr(client, "_MIN_RATE", 1 << 20)
    made = image(BIG)
    ref = bad.serve(made)

    async def trickle(request):
        answer = web.StreamResponse()
        answer.content_length = len(bad.blobs[digest_of(made, 0)])
        await answer.prepare(request)
        while True:
            await answer.write(b"\x1f")
            await asyncio.sleep(0.05)

    bad.routes[f"/v2/app/blobs/{digest_of(made, 0)}"] = trickle
    with pytest.raises(ErrImagePull, match=r"too slowly|gzip"):
        await store.pull(ref)


def index(*entries):
    return json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": list(entries)}).encode()


async def test_indexes_choose_and_end(store, bad):
    made = image(BASE)
    bad.serve(made)
    data, found = made.freeze()
    good = {
        "mediaType": MANIFEST,
        "digest": found,
        "size": len(data),
        "platform": {"os": "linux", "architecture": "amd64"},
    }
    other = good | {"digest": "sha256:" + "5" * 64, "platform": {"os": "linux", "architecture": "arm64"}}
    top = index(other, good)
    bad.manifests["/v2/app/manifests/multi"] = top
    bad.types[top] = INDEX
    pulled = await store.pull(f"{bad.host}/app:multi")
    assert pulled.id == made.image_id
    assert pulled.digests == [f"{bad.host}/app@{digest(top)}"]
    inner = top
    for _ in range(3):
        bad.manifests[f"/v2/app/manifests/{digest(inner)}"] = inner
        inner = index(good | {"mediaType": INDEX, "digest": digest(inner)})
        bad.types[inner] = INDEX
    bad.manifests["/v2/app/manifests/deep"] = inner
    with pytest.raises(ErrImagePull, match="nested too deeply"):
        await store.pull(f"{bad.host}/app:deep")
    lying = index(good | {"mediaType": INDEX})
    bad.types[lying] = INDEX
    bad.manifests["/v2/app/manifests/lying"] = lying
    with pytest.raises(ImageCorrupt, match="was served as"):
        await store.pull(f"{bad.host}/app:lying")
