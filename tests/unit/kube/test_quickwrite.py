"""QuickWriter writes as Client does: the same requests, the same errors, and Client's patience where it is needed."""

import msgspec
import pytest

from nodewright.kube.client import Client
from nodewright.kube.config import Config
from nodewright.kube.errors import Conflict, Forbidden, ServerUnavailable
from nodewright.kube.quickwrite import QuickWriter
from nodewright.kube.resources import PODS

POD = {"metadata": {"generateName": "p-"}, "spec": {}}
MADE = {"kind": "PartialObjectMetadata", "metadata": {"name": "p-1", "namespace": "ns", "resourceVersion": "7"}}


async def test_an_object_is_created(stub, client):
    stub.answer(MADE, 201)
    made = await QuickWriter(client).create(PODS, POD, "ns")
    assert (made.metadata.name, made.metadata.resource_version) == ("p-1", "7")
    (request,) = stub.requests
    assert (request.method, request.path) == ("POST", "/api/v1/namespaces/ns/pods")
    assert request.headers["Accept"].startswith("application/json;as=PartialObjectMetadata;")
    assert msgspec.json.decode(stub.bodies[0]) == {"apiVersion": "v1", "kind": "Pod", **POD}


async def test_just_this_object_is_deleted(stub, client):
    stub.answer({"kind": "Status"})
    await QuickWriter(client).delete(PODS, "p-1", "ns", uid="u")
    (request,) = stub.requests
    assert (request.method, request.path) == ("DELETE", "/api/v1/namespaces/ns/pods/p-1")
    assert msgspec.json.decode(stub.bodies[0])["preconditions"] == {"uid": "u"}


async def test_refusals_are_the_clients_errors(stub, client, make):
    writer = QuickWriter(client)
    stub.answer(make.status(403, "Forbidden", "exceeded quota", causes=[{"reason": "X"}]), 403)
    with pytest.raises(Forbidden, match="exceeded quota") as refused:
        await writer.create(PODS, POD, "ns")
    assert refused.value.details["causes"] == [{"reason": "X"}]
    stub.answer(make.status(409, "Conflict"), 409)
    with pytest.raises(Conflict):
        await writer.delete(PODS, "p-1", "ns", uid="u")


async def test_a_busy_server_is_waited_for(stub, client, make):
    stub.answer(make.status(429, "TooManyRequests"), 429, Retry_After="0")
    stub.answer(make.status(429, "TooManyRequests"), 429, Retry_After="0")
    stub.answer(MADE, 201)
    assert (await QuickWriter(client).create(PODS, POD, "ns")).metadata.name == "p-1"
    assert len(stub.requests) == 3


async def test_a_write_with_an_open_fate_is_not_repeated(stub, client):
    stub.fail_connection()
    with pytest.raises(ServerUnavailable):
        await QuickWriter(client).create(PODS, POD, "ns")
    assert len(stub.requests) == 1


async def test_where_nothing_was_sent_the_client_says_why():
    async with Client(Config("http://127.0.0.1:1")) as client:
        with pytest.raises(ServerUnavailable, match="cannot connect"):
            await QuickWriter(client).create(PODS, POD, "ns")
