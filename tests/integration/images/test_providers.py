"""Credential providers as processes: the protocol, the caches, and programs that misbehave."""

import asyncio
import json
import os
import stat
from pathlib import Path

import pytest

from nodewright_agent.runtime.images import providers as module
from nodewright_agent.runtime.images.accounts import Account
from nodewright_agent.runtime.images.credentials import Origin
from nodewright_agent.runtime.images.providerconfig import EnvVar, Provider, TokenAttributes
from nodewright_agent.runtime.images.providers import Providers
from nodewright_agent.runtime.images.reference import parse

V1 = "credentialprovider.kubelet.k8s.io/v1"
IMAGE = parse("r.example/team/app:1")
ORIGIN = Origin("ServiceAccount", "uid", "ns", "default")


def answer(cache="Image", duration=None, **auth):
    body = {"kind": "CredentialProviderResponse", "apiVersion": V1, "cacheKeyType": cache}
    body["auth"] = auth["auth"] if auth else {"r.example": {"username": "u", "password": "p"}}
    return json.dumps(body | ({"cacheDuration": duration} if duration is not None else {}))


class Lab:
    """A provider made of a shell script; `runs` are the requests it got."""

    def __init__(self, folder):
        self.folder, self.metered = folder, []

    def make(self, script, *, name="plugin", token=None, **fields):
        path = self.folder / name
        path.write_text(f"#!/bin/sh\ncat >{self.folder}/run.$$\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        given = {
            "match_images": ["r.example", "*.example"],
            "default_cache_duration": "1h",
            "api_version": V1,
            **fields,
        }
        provider = Provider(name=name, token_attributes=token, **given)
        return Providers([provider], self.folder, lambda *run: self.metered.append(run))

    @property
    def runs(self):
        found = sorted(self.folder.glob("run.*"), key=lambda path: path.stat().st_mtime_ns)
        return [json.loads(path.read_text()) for path in found]


@pytest.fixture
def lab(tmp_path):
    return Lab(tmp_path)


async def nobody():
    return None


def owner(annotations=None, token="tok"):
    async def account():
        async def give(audience):
            return f"{token}-{audience}"

        return Account(ORIGIN, annotations or {}, give)

    return account


async def test_the_protocol(lab):
    made = lab.make(
        f"echo \"$1 $A $HOME\" >{lab.folder}/said; echo '{answer()}'", args=["get"], env=[EnvVar("A", "b c")]
    )
    (found,) = await made.lookup(IMAGE, nobody)
    assert (found.registry, found.username, found.password, found.origin) == ("r.example", "u", "p", None)
    assert lab.runs == [{"kind": "CredentialProviderRequest", "apiVersion": V1, "image": "r.example/team/app"}]
    assert (lab.folder / "said").read_text() == f"get b c {os.environ.get('HOME', '')}\n"
    assert [(name, failed) for name, _, failed in lab.metered] == [("plugin", False)]


async def test_a_provider_is_asked_for_its_images_only(lab):
    made = lab.make(f"echo '{answer()}'")
    assert await made.lookup(parse("other.test/a:1"), nobody) == []
    assert lab.runs == []


async def test_nothing_is_inherited(lab):
    """No descriptor but the three, and nothing of a service manager's."""
    inherited, other = os.pipe()
    os.set_inheritable(inherited, True)
    os.environ["NOTIFY_SOCKET"] = "/run/x"
    try:
        made = lab.make(f"ls /proc/self/fd >{lab.folder}/fds; env >{lab.folder}/env; echo '{answer()}'")
        assert await made.lookup(IMAGE, nobody)
    finally:
        del os.environ["NOTIFY_SOCKET"]
        os.close(inherited)
        os.close(other)
    assert set((lab.folder / "fds").read_text().split()) <= {"0", "1", "2", "3"}  # 3 is what ls opens
    assert "NOTIFY_SOCKET" not in (lab.folder / "env").read_text()


@pytest.mark.parametrize(
    ("cache", "images", "runs"),
    [
        ("Image", ["r.example/a:1", "r.example/a:2", "r.example/b:1"], 2),
        ("Registry", ["r.example/a:1", "r.example/b:1", "s.example/a:1"], 2),
        ("Global", ["r.example/a:1", "r.example/b:1", "s.example/a:1"], 1),
    ],
)
async def test_answers_are_kept_for_what_they_say(lab, cache, images, runs):
    auth = {"*.example": {"username": "u", "password": "p"}}
    made = lab.make(f"echo '{answer(cache, auth=auth)}'")
    for image in images:
        assert await made.lookup(parse(image), nobody)
    assert len(lab.runs) == runs


@pytest.mark.parametrize(
    ("duration", "default", "runs"),
    [("0s", "1h", 2), (None, "0s", 2), (None, "1h", 1), ("1h", "0s", 1), ("1ns", "1h", 2)],
)
async def test_how_long_answers_are_kept(lab, duration, default, runs):
    made = lab.make(f"echo '{answer(duration=duration)}'", default_cache_duration=default)
    for _ in range(2):
        assert await made.lookup(IMAGE, nobody)
    assert len(lab.runs) == runs


async def test_the_same_question_is_asked_once_at_a_time(lab):
    made = lab.make(f"sleep 0.3; echo '{answer(duration='0s')}'")
    found = await asyncio.gather(*(made.lookup(IMAGE, nobody) for _ in range(20)))
    assert all(found)
    assert len(lab.runs) == 1


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo no luck >&2; exit 3", "exit code 3: no luck"),
        ("echo '{}'", "its answer is not a CredentialProviderResponse"),
        ("echo secret", "its answer is not a CredentialProviderResponse"),
        (f"echo '{answer().replace(V1, V1 + 'beta1')}'", f"not a CredentialProviderResponse of {V1}"),
        (f"echo '{answer('Pod')}'", "its answer is not a CredentialProviderResponse"),
        (f"echo '{answer(duration='soon')}'", "its cacheDuration is no duration"),
        ("head -c 3000000 /dev/zero", "its answer is larger than 1048576 bytes"),
        ("yes >&2 & sleep 0.1; kill $!; exit 1", "exit code 1: y"),
    ],
)
async def test_providers_that_fail_give_nothing(lab, caplog, script, said):
    assert await lab.make(script).lookup(IMAGE, nobody) == []
    assert said in caplog.text
    assert "secret" not in caplog.text
    assert len(caplog.text) < 10_000


async def test_a_provider_that_hangs_is_killed_with_its_children(lab, monkeypatch, caplog):
    monkeypatch.setattr(module, "TIMEOUT", 0.5)
    made = lab.make(f"sleep 1000 & echo $! >{lab.folder}/child; wait")
    assert await made.lookup(IMAGE, nobody) == []
    assert "has not ended within 0.5 s" in caplog.text
    assert lab.metered[0][2] is True
    child = int((lab.folder / "child").read_text())
    for _ in range(200):
        try:
            if "State:\tZ" in Path(f"/proc/{child}/status").read_text():
                return
        except OSError:
            return
        await asyncio.sleep(0.02)
    pytest.fail("the provider's child lives")


async def test_a_program_that_is_gone(lab, caplog):
    made = lab.make("")
    (lab.folder / "plugin").unlink()
    assert await made.lookup(IMAGE, nobody) == []
    assert "No such file" in caplog.text


# ServiceAccount tokens


def wants(cache="ServiceAccount", required=(), optional=(), require=True):
    return TokenAttributes("aud", require, cache, list(required), list(optional))


async def test_a_provider_gets_the_token_and_what_it_asked_for(lab):
    made = lab.make(f"echo '{answer()}'", token=wants(required=["a/role"], optional=["a/x", "a/none"]))
    assert await made.lookup(IMAGE, owner({})) == []  # without the annotation the account has not asked for it
    (found,) = await made.lookup(IMAGE, owner({"a/role": "r", "a/x": "1", "other": "2"}))
    assert found.origin == ORIGIN
    assert lab.runs[0]["serviceAccountToken"] == "tok-aud"
    assert lab.runs[0]["serviceAccountAnnotations"] == {"a/role": "r", "a/x": "1"}
    assert len(lab.runs) == 1


async def test_pods_without_an_account(lab):
    assert await lab.make(f"echo '{answer()}'", token=wants()).lookup(IMAGE, nobody) == []
    (found,) = await lab.make(f"echo '{answer()}'", token=wants(require=False)).lookup(IMAGE, nobody)
    assert found.origin is None
    assert "serviceAccountToken" not in lab.runs[0]


@pytest.mark.parametrize(("cache", "runs"), [("ServiceAccount", 1), ("Token", 2)])
async def test_what_tokens_share(lab, cache, runs):
    made = lab.make(f"echo '{answer('Global')}'", token=wants(cache))
    for token in ("one", "two"):
        assert await made.lookup(IMAGE, owner(token=token))
    assert len(lab.runs) == runs


@pytest.mark.parametrize(("cache", "count"), [("ServiceAccount", 0), ("Token", 1)])
async def test_a_token_is_no_password_for_others(lab, caplog, cache, count):
    auth = {"r.example": {"username": "u", "password": "tok-aud"}}
    made = lab.make(f"echo '{answer(auth=auth)}'", token=wants(cache))
    assert len(await made.lookup(IMAGE, owner())) == count
    assert "tok-aud" not in caplog.text
