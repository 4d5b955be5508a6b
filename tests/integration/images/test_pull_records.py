"""What a pull leaves behind for others: who may use the image, and how far it is while it lasts."""

import asyncio
import json
import random
import subprocess
import sys

import pytest
from aiohttp import web

from nodewright_agent.runtime.images import progress, records
from nodewright_agent.runtime.images.access import Shown, shown_by
from nodewright_agent.runtime.images.credentials import Credential, Origin
from nodewright_agent.runtime.images.errors import ErrImagePull, Unauthorized
from nodewright_agent.runtime.images.gate import Gate
from nodewright_agent.runtime.images.store import ImageStore
from support.bad_registry import BadRegistry, basic, guard, serve
from support.image_makers import BASE, TOP, entry, image, tar

pytestmark = pytest.mark.needs_root


@pytest.fixture(params=["Bearer T", basic("user", "right"), ""])
async def guarded(request):
    """A registry that wants a token, a password, or nothing."""
    registry = BadRegistry()
    registry.open = not request.param
    runner, registry.host = await serve(guard(registry, request.param) if request.param else registry.handle)
    yield registry
    await runner.cleanup()


def of_secret(host, password, name="s"):
    return Credential(host, "user", password, origin=Origin("Secret", f"uid-{name}", "ns", name))


async def test_what_gave_access_is_noted(store, guarded):
    """A credential counts when the registry asked for it; one that gives the image to anybody opens it to all."""
    ref, made = guarded.serve(image(BASE, TOP)), image(BASE, TOP)
    good, bad = of_secret(guarded.host, "right", "b"), of_secret(guarded.host, "wrong", "a")
    pulled = await store.pull_for(ref, auth=[bad, good])
    assert pulled.image.id == made.image_id
    record = store.pulled.get(made.image_id)
    repository = f"{guarded.host}/app"
    assert record.shown == {repository: Shown(everybody=True) if guarded.open else shown_by(good)}
    if guarded.open:
        return
    with pytest.raises(Unauthorized):
        await store.pull_for(ref)
    assert store.pulled.get(made.image_id) == record
    before = len(guarded.requests)
    await store.pull_for(ref, auth=[of_secret(guarded.host, "right", "c")])
    names = [use.origin.name for use in store.pulled.get(made.image_id).shown[repository].secrets]
    assert names == ["b", "c"]
    assert not [r for r in guarded.requests[before:] if made.manifest["layers"][0]["digest"] in r.path]
    await store.pull_for(ref, auth=[Credential(guarded.host, "user", "right")])  # the node's
    assert store.pulled.get(made.image_id).shown == {repository: Shown(everybody=True)}
    store.remove(made.image_id)
    assert store.pulled.get(made.image_id) is None


async def test_a_pull_by_hand_leaves_no_record(store, guarded):
    made = image(BASE)
    await store.pull(guarded.serve(made), auth=[of_secret(guarded.host, "right")])
    assert store.pulled.get(made.image_id) is None


@pytest.mark.parametrize("guarded", ["Bearer T"], indirect=True)
async def test_the_first_credentials_are_tried_first(store, guarded):
    """The order is the caller's: a Pod's secret comes before the node's, which may be more specific."""
    secret, node = of_secret(guarded.host, "right"), Credential(f"{guarded.host}/app", "user", "right")
    made = image(BASE)
    await store.pull_for(guarded.serve(made), auth=[secret, node])
    assert store.pulled.get(made.image_id).shown[f"{guarded.host}/app"] == shown_by(secret)


@pytest.mark.parametrize("guarded", ["Bearer T"], indirect=True)
async def test_a_crash_leaves_no_image_that_anybody_may_use(store, guarded, monkeypatch):
    """What gave access is on disk before any name leads to the image."""
    made, write = image(BASE), records.write

    def crash(path, record):
        if isinstance(record, records.NameRecord):
            raise OSError(5, "the machine goes down")
        write(path, record)

    monkeypatch.setattr(records, "write", crash)
    ref, secret = guarded.serve(made), of_secret(guarded.host, "right")
    with pytest.raises(ErrImagePull):
        await store.pull_for(ref, auth=[secret])
    assert store.resolve(ref) is None
    assert store.pulled.get(made.image_id).shown == {f"{guarded.host}/app": shown_by(secret)}


@pytest.fixture
async def dripping():
    """A registry whose blobs come in pieces, each when the test lets it."""
    registry, more = BadRegistry(), asyncio.Event()

    async def handle(request):
        if "/blobs/" not in request.path or len(registry.blobs[request.path.rpartition("/")[2]]) < 100_000:
            return await registry.handle(request)
        data = registry.blobs[request.path.rpartition("/")[2]]
        answer = web.StreamResponse()
        answer.content_length = len(data)
        await answer.prepare(request)
        await answer.write(data[:50_000])
        await more.wait()
        await answer.write(data[50_000:])
        return answer

    runner, registry.host = await serve(handle)
    registry.more = more
    yield registry
    more.set()
    await runner.cleanup()


def incompressible(seed):
    return tar(entry(f"f{seed}", data=random.Random(seed).randbytes(200_000)))


async def until(answer):
    for _ in range(3000):
        if found := answer():
            return found
        await asyncio.sleep(0.01)
    raise AssertionError("it never came")


async def test_everybody_sees_a_pull_under_way(tmp_path, dripping, monkeypatch):
    monkeypatch.setattr(progress, "FIRST_RECORD", 0.0)
    monkeypatch.setattr(progress, "RECORD_EVERY", 0.02)
    ref = dripping.serve(image(BASE, incompressible(1), incompressible(2)))
    store = ImageStore(tmp_path / "store", user="agent one")
    late = []
    first = asyncio.create_task(store.pull_for(ref))
    await until(lambda: any(pull.layers_done == 1 and pull.bytes > 100_000 for pull in store.under_way()))
    second = asyncio.create_task(store.pull_for(ref, progress=late.append))
    await until(lambda: len({step.layer for step in late}) == 3)  # who joins late hears of all layers at once
    program = [sys.executable, "-m", "nodewright.cli.main", "image", "list", "--root", str(tmp_path / "store")]
    table = await asyncio.to_thread(subprocess.run, program, capture_output=True, text=True, check=True)
    assert "pulling" in table.stdout
    assert "1 of 3 layers" in " ".join(table.stdout.split())
    asked = await asyncio.to_thread(
        subprocess.run, [*program, "-o", "json"], capture_output=True, text=True, check=True
    )
    (entry_,) = json.loads(asked.stdout)
    assert (entry_["names"], entry_["id"], entry_["layers"]) == ([ref], "", 3)
    assert (entry_["pull"]["by"], entry_["pull"]["layersDone"]) == ("agent one", 1)
    assert 100_000 < entry_["pull"]["bytes"] < entry_["pull"]["total"]
    dripping.more.set()
    assert (await first).image == (await second).image
    assert store.under_way() == []
    await store.close()


async def test_one_after_the_other(tmp_path, dripping):
    store = ImageStore(tmp_path / "store", gate=Gate(1))
    one = dripping.serve(image(incompressible(1)), name="one")
    two = dripping.serve(image(incompressible(2)), name="two")
    first = asyncio.create_task(store.pull_for(one))
    await until(lambda: any("/blobs/" in request.path for request in dripping.requests) or first.done())
    second = asyncio.create_task(store.pull_for(two))
    await asyncio.sleep(0.2)
    assert not [request for request in dripping.requests if "/two/" in request.path]
    dripping.more.set()
    waited = await asyncio.gather(first, second)
    assert all(pulled.seconds > 0 for pulled in waited)
    await store.close()
