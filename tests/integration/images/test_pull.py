"""Pulls: from Debian's docker-registry on loopback; with credentials, mirrors and certificates."""

import asyncio
import os
import shutil
import ssl
import subprocess

import pytest
from aiohttp import web

from nodewright_agent.runtime.images.credentials import Credential
from nodewright_agent.runtime.images.errors import ImageNotFound, RegistryUnavailable, Unauthorized
from nodewright_agent.runtime.images.settings import RegistrySettings
from nodewright_agent.runtime.images.store import ImageStore
from support.bad_registry import BadRegistry, basic, guard, serve
from support.image_makers import BASE, BIG, TOP, digest, digest_of, image, leftovers, oci_files, write_archive

pytestmark = pytest.mark.needs_root


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
