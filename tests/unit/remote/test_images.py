"""Images of another runtime, against an ImageService of the test's own."""

import asyncio

import grpc
import pytest

from nodewright_agent.cri import wire
from nodewright_agent.remote import labels
from nodewright_agent.remote.client import CallFailed, Missing
from nodewright_agent.remote.images import RemoteImages
from nodewright_agent.runtime.images.credentials import Credential, Origin
from nodewright_agent.runtime.images.errors import ErrImagePull, ImageError, ImageNotFound, RegistryUnavailable
from nodewright_agent.runtime.images.gate import Gate

ID = "sha256:" + "1" * 64
OTHER = "sha256:" + "2" * 64
NAME = "registry.test/app:1"


class Service:
    """Has what the test puts here; pulls with the password ``right``, or none."""

    def __init__(self):
        self.images, self.calls, self.problem, self.containers = {}, [], None, []

    def has(self, image_id=ID, name=NAME, **fields):
        self.images[image_id] = wire.Image(
            id=image_id, repo_tags=[name], repo_digests=[f"registry.test/app@{ID}"], size=5, **fields
        )

    async def images_call(self, method, **fields):
        self.calls.append((method, fields))
        if self.problem is not None:
            raise self.problem
        return await getattr(self, method)(**fields)

    async def ImageStatus(self, image):
        found = [one for one in self.images.values() if image.image in (one.id, *one.repo_tags)]
        return wire.ImageStatusResponse(image=found[0] if found else None)

    async def PullImage(self, image, auth):
        if auth is not None and auth.password != "right":
            raise CallFailed(f"{auth.username}: 401 Unauthorized", grpc.StatusCode.UNKNOWN)
        self.has()
        return wire.PullImageResponse(image_ref=ID)

    async def ListImages(self):
        return wire.ListImagesResponse(images=list(self.images.values()))

    async def ListContainers(self):
        return wire.ListContainersResponse(containers=self.containers)

    async def ImageFsInfo(self):
        used = wire.FilesystemUsage(used_bytes={"value": 7}, inodes_used={"value": 8})
        used.fs_id.mountpoint = "/images"
        return wire.ImageFsInfoResponse(image_filesystems=[used])

    async def RemoveImage(self, image):
        if self.images.pop(image.image, None) is None:
            raise Missing("no such image", grpc.StatusCode.NOT_FOUND)


class Client:
    def __init__(self, service):
        self._service = service

    async def images(self, method, *, deadline=0.0, **fields):
        return await self._service.images_call(method, **fields)

    runtime = images


@pytest.fixture
def service():
    return Service()


@pytest.fixture
async def images(service, tmp_path):
    return RemoteImages(Client(service), tmp_path, Gate(), "node-1")


def credential(password, **more):
    return Credential("registry.test", "who", password, **more)


@pytest.mark.parametrize(
    ("fields", "user"), [({}, ""), ({"uid": {"value": 0}}, "0"), ({"uid": {"value": 7}}, "7"), ({"username": "n"}, "n")]
)
async def test_what_is_there(service, images, fields, user):
    assert await images.current(NAME, None) is None
    service.has(**fields)
    found = await images.current(NAME, None)
    assert (found.id, found.size, found.config.user) == (ID, 5, user)
    assert images.resolve(NAME) is None


async def test_a_runtime_that_cannot_say(service, images):
    service.problem = CallFailed("disk on fire", grpc.StatusCode.UNKNOWN)
    with pytest.raises(ImageError, match="disk on fire") as caught:
        await images.current(NAME, None)
    assert caught.value.reason == "ImageInspectError"


async def test_credentials_are_tried_in_turn_and_the_good_one_is_noted(service, images):
    origin = Origin("Secret", "u", "ns", "good")
    auth = [credential("wrong"), credential("right", origin=origin)]
    pulled = await images.pull_for(NAME, auth=auth)
    assert pulled.image.id == ID
    record = images.pulled.get(ID)
    assert [use.origin for use in record.shown["registry.test/app"].secrets] == [origin]
    assert images.pulled.count() == 1


async def test_everybody_may_use_what_needed_no_credential(images):
    await images.pull_for(NAME)
    assert images.pulled.get(ID).shown["registry.test/app"].everybody


async def test_ids_without_an_algorithm_have_records_too(images):
    await asyncio.to_thread(images.pulled.write, "3" * 64, "r", None)
    assert images.pulled.get("3" * 64).shown["r"].everybody
    assert images.pulled.get("4" * 64) is None


async def test_no_credential_is_good(images):
    with pytest.raises(ErrImagePull, match=r"who: 401 Unauthorized$"):
        await images.pull_for(NAME, auth=[credential("wrong")])
    with pytest.raises(ErrImagePull, match=r"^\[who: 401 Unauthorized, who: 401 Unauthorized\]$"):
        await images.pull_for(NAME, auth=[credential("wrong"), credential("also wrong")])


async def test_a_registry_that_is_away(service, images):
    service.problem = CallFailed("RegistryUnavailable: dial tcp", grpc.StatusCode.UNKNOWN)
    with pytest.raises(RegistryUnavailable):
        await images.pull_for(NAME)


async def test_a_signature_that_is_not_good(service, images):
    service.problem = CallFailed("SignatureValidationFailed: who signed this?", grpc.StatusCode.UNKNOWN)
    with pytest.raises(ImageError, match="who signed this") as caught:
        await images.pull_for(NAME)
    assert caught.value.reason == "SignatureValidationFailed"


async def test_what_others_run_stays(service, images):
    service.has()
    service.has(OTHER, "registry.test/other:1")
    own, other = wire.Container(image_ref=ID, labels={labels.NODE: "node-1"}), wire.Container(image_ref=OTHER)
    service.containers = [own, other]
    assert [one.id for one in await asyncio.to_thread(images.list)] == [ID]
    other.image_ref, other.image.image = "", "registry.test/other:1"
    assert [one.id for one in await asyncio.to_thread(images.list)] == [ID]


async def test_the_collector_gets_what_may_go(service, images):
    service.has()
    service.has(OTHER, "registry.test/pinned:1", pinned=True)
    service.has("sha256:3", "registry.test/pause:1")
    images.sandbox_image = "registry.test/pause:1"
    found = await asyncio.to_thread(images.list)
    assert [one.id for one in found] == [ID]
    assert {one.id for one in images.all()} == {ID, OTHER, "sha256:3"}
    assert images.usage() == (7, 8)
    assert images.id_of("registry.test/app:1") == ID
    assert images.id_of("registry.test/unknown:1") == ""
    await asyncio.to_thread(images.remove, ID)
    assert ID not in service.images
    with pytest.raises(ImageNotFound):
        await asyncio.to_thread(images.remove, ID)
    service.problem = CallFailed("down", grpc.StatusCode.UNAVAILABLE)
    with pytest.raises(ImageError, match="down"):
        await asyncio.to_thread(images.list)


async def test_where_images_are(images):
    assert await images.mountpoint() == "/images"
