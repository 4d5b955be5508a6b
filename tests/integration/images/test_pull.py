"""Pulls from Debian's docker-registry on loopback, and from a registry that breaks every rule it can."""

import asyncio
import gzip
import json
import os
import shutil
import ssl
import subprocess

import pytest
from aiohttp import web

from nodewright_agent.runtime.images import registry as client
from nodewright_agent.runtime.images.credentials import Credential
from nodewright_agent.runtime.images.errors import (
    ErrImagePull,
    ImageCorrupt,
    ImageNotFound,
    RegistryUnavailable,
    Unauthorized,
)
from nodewright_agent.runtime.images.settings import RegistrySettings
from nodewright_agent.runtime.images.store import ImageStore
from support.bad_registry import BadRegistry, basic, guard, serve
from support.image_makers import BASE, INDEX, MANIFEST, TOP, digest, entry, image, oci_files, tar, write_archive

pytestmark = pytest.mark.needs_root

BIG = tar(*(entry(f"f{i}", data=os.urandom(40_000)) for i in range(100)))


def leftovers(store):
    return list(store._layout.tmp.iterdir())


# The real registry


async def test_pull_by_tag_and_by_digest(store, registry):
    made = image(BASE, TOP, BIG, Entrypoint=["/bin/true"])
    ref = registry.push(made, "team/app", "1")
    _, found_digest = made.freeze()
    steps = []
    pulled = await store.pull(ref, progress=steps.append)
    assert pulled.id == made.image_id
    assert pulled.names == [ref]
    assert pulled.digests == [f"{registry.host}/team/app@{found_digest}"]
    assert pulled.config.entrypoint == ["/bin/true"]
    assert len(os.listdir(pulled.layers[0])) == 100
    big = [step for step in steps if step.layer == made.manifest["layers"][2]["digest"]]
    assert [step.current for step in big] == sorted(step.current for step in big)
    assert (big[0].state, big[-1].state, big[-1].current) == ("waiting", "done", big[-1].total)
    steps.clear()
    by_digest = await store.pull(f"{registry.host}/team/app@{found_digest}", progress=steps.append)
    assert by_digest.id == pulled.id
    assert {step.state for step in steps} == {"exists"}
    assert store.resolve(f"{registry.host}/team/app:other@{found_digest}").id == pulled.id


async def test_a_moved_tag_is_followed_by_always_and_not_by_if_not_present(store, registry):
    first, second = image(BASE), image(BASE, TOP)
    ref = registry.push(first, "moving", "latest")
    await store.pull(ref)
    registry.push(second, "moving", "latest")
    assert (await store.ensure(ref, "IfNotPresent")).id == first.image_id
    assert (await store.ensure(ref, "Always")).id == second.image_id
    assert store.resolve(ref).id == second.image_id


async def test_what_does_not_exist(store, registry):
    with pytest.raises(ImageNotFound, match=f'failed to pull and unpack image "{registry.host}/none:1": not found'):
        await store.pull(f"{registry.host}/none:1")
    registry.push(image(BASE), "exists", "1")
    with pytest.raises(ImageNotFound):
        await store.pull(f"{registry.host}/exists:2")
    with pytest.raises(ImageNotFound):
        await store.pull(f"{registry.host}/exists@sha256:{'0' * 64}")


async def test_no_registry_there(store):
    with pytest.raises(RegistryUnavailable, match=r"failed to reach registry 127\.0\.0\.1:1"):
        await store.pull("127.0.0.1:1/a:1")


async def test_fifty_pods_want_one_image(store, registry):
    made = image(BIG, TOP)
    ref = registry.push(made, "popular", "1")
    pulled = await asyncio.gather(*(store.pull(ref) for _ in range(50)))
    assert {found.id for found in pulled} == {made.image_id}
    assert not leftovers(store)


async def test_two_stores_on_one_folder_pull_the_same_image(tmp_path, registry):
    """As two agents on one machine; in one process here, but through the same file locks."""
    made = image(BIG, BASE, TOP)
    ref = registry.push(made, "shared", "1")
    stores = [ImageStore(tmp_path / "store") for _ in range(2)]
    seen = [[], []]
    pulls = (store.pull(ref, progress=steps.append) for store, steps in zip(stores, seen, strict=True))
    first, second = await asyncio.gather(*pulls)
    assert first.layers == second.layers
    fetched = [
        sum(1 for step in steps if step.state == "pulling" and step.layer == digest_of(made, 0)) for steps in seen
    ]
    assert 0 in fetched  # one of them downloaded the big layer, the other waited for it
    for store in stores:
        await store.close()


def digest_of(made, layer):
    return made.manifest["layers"][layer]["digest"]


@pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not installed")
async def test_images_pushed_by_another_tool(store, registry, tmp_path):
    made = image(BASE, TOP)
    archive = write_archive(tmp_path / "a.tar", oci_files((made, "x:1")))
    for fmt in ("v2s2", "oci"):
        target = f"{registry.host}/skopeo:{fmt}"
        command = ["skopeo", "copy", "-q", "--dest-tls-verify=false", "--format", fmt, f"oci-archive:{archive}",
                   f"docker://{target}"]  # fmt: skip
        await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True)
        pulled = await store.pull(target)
        assert [layer.name for layer in pulled.layers] == [digest(TOP)[7:31], digest(BASE)[7:31]]
    exported = tmp_path / "b.tar"
    command = ["skopeo", "copy", "-q", "--src-tls-verify=false", f"docker://{target}", f"docker-archive:{exported}:y:1"]
    await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True)
    (loaded,) = await store.load(exported)
    assert "docker.io/library/y:1" in loaded.names


# The bad registry


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


# Credentials


@pytest.fixture(params=["Bearer T", basic("user", "right")])
async def guarded(request):
    registry = BadRegistry()
    runner, registry.host = await serve(guard(registry, request.param))
    yield registry
    await runner.cleanup()


async def test_credentials_are_tried_in_order_until_one_works(store, guarded):
    made = image(BASE, TOP)
    ref = guarded.serve(made)
    auth = [Credential(guarded.host, "user", "wrong"), Credential("elsewhere", "user", "right"),
            Credential(guarded.host, "user", "right")]  # fmt: skip
    assert (await store.pull(ref, auth=auth)).id == made.image_id
    sent = {request.headers.get("Authorization") for request in guarded.requests if request.path.startswith("/v2")}
    assert len(guarded.requests) < 15
    assert basic("elsewhere", "right") not in sent


async def test_without_the_right_credential_access_is_denied(store, guarded):
    ref = guarded.serve(image(BASE))
    for auth in ([], [Credential(guarded.host, "user", "wrong")], [Credential("other.example", "user", "right")]):
        with pytest.raises(Unauthorized) as caught:
            await store.pull(ref, auth=auth)
        assert "right" not in str(caught.value)
        assert "wrong" not in str(caught.value)


async def test_credentials_do_not_follow_a_redirect_to_another_host(store, guarded, bad):
    made = image(BASE)
    ref = guarded.serve(made)
    bad.blobs |= made.blobs
    name = digest_of(made, 0)

    async def away(request):
        return web.Response(status=307, headers={"Location": f"http://{bad.host}/v2/app/blobs/{name}"})

    guarded.routes[f"/v2/app/blobs/{name}"] = away
    assert await store.pull(ref, auth=[Credential(guarded.host, "user", "right")])
    (request,) = bad.requests
    assert "Authorization" not in request.headers


# Configuration


async def test_mirrors_come_first_and_the_registry_after(tmp_path, bad):
    made = image(BASE)
    bad.serve(made)
    settings = {"registry": {"far.example": {"mirrors": ["http://127.0.0.1:1", f"http://{bad.host}"]}}}
    store = ImageStore(tmp_path / "store", settings=RegistrySettings.from_dict(settings))
    pulled = await store.pull("far.example/app:1")
    assert pulled.names == ["far.example/app:1"]
    await store.close()


async def test_names_that_are_not_local_are_not_fetched_in_clear(store, monkeypatch):
    asked = []

    async def get(self, method, url, **arguments):
        asked.append(url)
        raise ConnectionError("not in this test")

    monkeypatch.setattr("aiohttp.ClientSession._request", get)
    with pytest.raises(RegistryUnavailable):
        await store.pull("registry.example/a:1")
    assert {url.partition(":")[0] for url in asked} == {"https"}


async def test_certificates_are_verified(tmp_path, bad):
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")

    def make(name, san):
        key, cert = tmp_path / f"{name}.key", tmp_path / f"{name}.crt"
        subprocess.run([openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                        "-keyout", str(key), "-out", str(cert), "-subj", "/CN=x", "-addext", f"subjectAltName={san}",
                        "-days", "2"], check=True, capture_output=True)  # fmt: skip
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert, key)
        return cert, context

    made = image(BASE)
    bad.serve(made)
    for name, san, ca, good in (("own", "IP:127.0.0.1", True, True), ("unknown", "IP:127.0.0.1", False, False),
                                ("other", "DNS:other.example", True, False)):  # fmt: skip
        cert, context = await asyncio.to_thread(make, name, san)
        app = web.Application()
        app.router.add_route("*", "/{tail:.*}", bad.handle)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        host = f"127.0.0.1:{site._server.sockets[0].getsockname()[1]}"
        entry_ = {"plain-http": False} | ({"ca-file": str(cert)} if ca else {})
        settings = RegistrySettings.from_dict({"registry": {host: entry_}})
        store = ImageStore(tmp_path / f"store-{name}", settings=settings)
        if good:
            assert (await store.pull(f"{host}/app:1")).id == made.image_id
        else:
            with pytest.raises(RegistryUnavailable, match="certificate"):
                await store.pull(f"{host}/app:1")
        await store.close()
        await runner.cleanup()
