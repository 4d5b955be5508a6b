"""Names and ids of images, and credentials, as CRI gives them."""

import base64

import pytest

from nodewright_agent.cri import images, lookup, wire
from nodewright_agent.cri.errors import Invalid, Lacking
from nodewright_agent.runtime.images import reference
from nodewright_agent.runtime.images.config import ImageConfig
from nodewright_agent.runtime.images.credentials import Credential
from nodewright_agent.runtime.images.model import Image


class Store:
    """Two images whose ids begin alike."""

    def __init__(self):
        self.images = [Image(f"sha256:{start:0<64}", [], [], 1, ImageConfig(), []) for start in ("abcd1", "abcd2")]
        self.asked = []

    def list(self):
        return self.images

    def resolve(self, name):
        self.asked.append(name)


def test_find_by_id_and_its_beginning():
    store = Store()
    first, second = store.images
    assert lookup.find(store, first.id) is first
    assert lookup.find(store, first.id.partition(":")[2]) is first
    assert lookup.find(store, "abcd2") is second
    assert lookup.find(store, "sha256:abcd2") is second
    assert store.asked == []


def test_an_ambiguous_or_unknown_beginning_is_a_name():
    store = Store()
    assert lookup.find(store, "abcd") is None
    assert lookup.find(store, "cafe") is None
    assert lookup.find(store, "busybox:1") is None
    assert store.asked == ["abcd", "cafe", "busybox:1"]


@pytest.mark.parametrize(
    ("user", "uid", "name"),
    [
        ("", None, ""),
        ("0", 0, ""),
        ("1000:5", 1000, ""),
        ("web:www", None, "web"),
        (f"{1 << 63}", None, f"{1 << 63}"),
        ("9" * 5000, None, "9" * 5000),
    ],
)
def test_user_of_an_image(user, uid, name):
    shown = images.shown(Image("sha256:1", ["a"], ["b"], 0, ImageConfig(user=user), []))
    assert (shown.uid.value if shown.HasField("uid") else None, shown.username) == (uid, name)
    assert (list(shown.repo_tags), list(shown.repo_digests), shown.size) == (["a"], ["b"], 1)


HERE = reference.parse("reg.example:5000/app:1")
HUB = reference.parse("busybox")


@pytest.mark.parametrize(
    ("auth", "parsed", "credential"),
    [
        ({}, HERE, None),
        ({"username": "u", "password": "p"}, HERE, Credential("reg.example:5000", "u", "p")),
        ({"auth": base64.b64encode(b"u:p:q").decode()}, HERE, Credential("reg.example:5000", "u", "p:q")),
        ({"identity_token": "t"}, HERE, Credential("reg.example:5000", identity_token="t")),
        (
            {"username": "u", "server_address": "https://reg.example:5000/v1"},
            HERE,
            Credential("reg.example:5000", "u"),
        ),
        ({"username": "u", "server_address": "https://index.docker.io/v1/"}, HUB, Credential("docker.io", "u")),
        # not for somebody else's registry
        ({"username": "u", "server_address": "https://index.docker.io/v1/"}, HERE, None),
        ({"username": "u", "server_address": "other.example"}, HERE, None),
    ],
)
def test_credentials(auth, parsed, credential):
    assert images.credential(wire.AuthConfig(**auth), parsed) == credential


@pytest.mark.parametrize(
    ("auth", "kind"),
    [
        ({"auth": "%"}, Invalid),
        ({"auth": base64.b64encode(b"u").decode()}, Invalid),
        ({"registry_token": "t"}, Lacking),
    ],
)
def test_credentials_that_are_refused(auth, kind):
    with pytest.raises(kind):
        images.credential(wire.AuthConfig(**auth), HERE)
