"""Whose credentials are tried for a Pod's image, and in which order."""

import json

import pytest

from nodewright.kube.errors import Forbidden, NotFound, ServerUnavailable
from nodewright.kube.objects import ObjectMeta, Secret, ServiceAccount
from nodewright_agent.pods.pullkeys import Keyring
from nodewright_agent.runtime.images.accounts import ProviderError
from nodewright_agent.runtime.images.credentials import Credential, Origin
from nodewright_agent.runtime.images.reference import parse
from unit.pods.pod_doubles import FakeEvents, make_pod

IMAGE = parse("r.example/team/app:1")
MISSING = "Unable to retrieve some image pull secrets (%s); attempting to pull the image may not succeed."


class Api:
    """Answers for Secrets and ServiceAccounts; an exception among the answers is raised."""

    def __init__(self, **answers):
        self.answers, self.created = answers, []

    async def get(self, resource, name, namespace, *, type):
        answer = self.answers.get(name, NotFound(404, "NotFound", f"{name} not found"))
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def create(self, resource, body, namespace, *, name, subresource):
        answer = self.answers.get("token", "tok")
        if isinstance(answer, Exception):
            raise answer
        self.created.append((name, subresource, body["spec"]))
        return {"status": {"token": answer}}


class Files:
    def __init__(self, *credentials):
        self.credentials = list(credentials)

    def current(self):
        return self.credentials


class Providers:
    """Give one credential, with what they were told of the Pod's account."""

    def __init__(self):
        self.account = None

    async def lookup(self, image, accounts):
        self.account = await accounts()
        return [Credential("r.example/team/app", "provider")]


def secret(name, user, registry="r.example", kind="kubernetes.io/dockerconfigjson"):
    entry = {registry: {"username": user, "password": "p"}}
    body = entry if kind.endswith("dockercfg") else {"auths": entry}
    data = {".dockercfg" if kind.endswith("dockercfg") else ".dockerconfigjson": json.dumps(body).encode()}
    return Secret(metadata=ObjectMeta(name=name, namespace="ns", uid=f"uid-{name}"), type=kind, data=data)


def pod(*secrets, **spec):
    return make_pod({"name": "a"}, imagePullSecrets=[{"name": name} for name in secrets], **spec)


def users(found):
    return [one.username for one in found]


async def test_secrets_then_the_nodes_files_then_the_providers():
    api = Api(
        one=secret("one", "wide"),
        two=secret("two", "narrow", "r.example/team"),
        old=secret("old", "old", kind="kubernetes.io/dockercfg"),
        far=secret("far", "far", "other.example"),
    )
    files = Files(Credential("r.example/team/app", "file"))
    keyring = Keyring(api, FakeEvents(), files, Providers())
    found = await keyring.lookup(pod("one", "two", "old", "far"), IMAGE)
    assert users(found) == ["narrow", "wide", "old", "file", "provider"]
    assert found[0].origin == Origin("Secret", "uid-two", "ns", "two")
    assert [one.origin for one in found[3:]] == [None, None]


async def test_secrets_that_are_of_no_use_are_told_together():
    bad = secret("bad", "x")
    bad.data[".dockerconfigjson"] = b"{"
    events = FakeEvents()
    keyring = Keyring(Api(one=secret("one", "u"), bad=bad, shut=Forbidden(403, "Forbidden", "no")), events)
    assert users(await keyring.lookup(pod("absent", "one", "bad", "shut"), IMAGE)) == ["u"]
    assert events.seen == [("Warning", "FailedToRetrieveImagePullSecret", MISSING % "absent, bad, shut")]


async def test_a_secret_serves_on_while_the_api_server_is_away():
    api, events = Api(one=secret("one", "u")), FakeEvents()
    keyring = Keyring(api, events)
    assert users(await keyring.lookup(pod("one"), IMAGE)) == ["u"]
    api.answers["one"] = ServerUnavailable(0, "", "connection refused")
    assert users(await keyring.lookup(pod("one"), IMAGE)) == ["u"]
    assert events.seen == []
    api.answers["one"] = NotFound(404, "NotFound", "it was deleted")
    assert await keyring.lookup(pod("one"), IMAGE) == []
    api.answers["one"] = ServerUnavailable(0, "", "connection refused")
    assert await keyring.lookup(pod("one"), IMAGE) == []
    assert len(events.seen) == 2


async def test_only_so_many_secrets_are_remembered():
    api = Api(**{f"s{number}": secret(f"s{number}", "u") for number in range(140)})
    keyring = Keyring(api, FakeEvents())
    for number in range(140):
        await keyring.lookup(pod(f"s{number}"), IMAGE)
    assert len(keyring._last) == 128


async def test_nobody_is_asked_before_it_matters_and_then_once():
    api = Api(one=secret("one", "u"))
    lookup = Keyring(api, FakeEvents()).lookup_once(pod("one"), IMAGE)
    assert users(await lookup()) == ["u"]
    api.answers.clear()
    assert users(await lookup()) == ["u"]


async def test_providers_get_the_pods_account():
    account = ServiceAccount(metadata=ObjectMeta(name="sa", namespace="ns", uid="uid-sa", annotations={"a": "b"}))
    api, providers = Api(sa=account), Providers()
    keyring = Keyring(api, FakeEvents(), None, providers)
    await keyring.lookup(pod(serviceAccountName="sa"), IMAGE)
    assert (providers.account.origin, providers.account.annotations) == (
        Origin("ServiceAccount", "uid-sa", "ns", "sa"),
        {"a": "b"},
    )
    assert await providers.account.token("aud") == "tok"
    bound = {"apiVersion": "v1", "kind": "Pod", "name": "pod", "uid": "uid-1"}
    assert api.created == [("sa", "token", {"audiences": ["aud"], "boundObjectRef": bound})]
    api.answers["token"] = Forbidden(403, "Forbidden", "audience")
    with pytest.raises(ProviderError, match="token of ServiceAccount ns/sa: audience"):
        await providers.account.token("aud")
    await keyring.lookup(pod(), IMAGE)
    assert providers.account is None
    with pytest.raises(ProviderError, match="ServiceAccount ns/none: none not found"):
        await keyring.lookup(pod(serviceAccountName="none"), IMAGE)
