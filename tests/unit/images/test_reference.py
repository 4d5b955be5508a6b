import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodewright_agent.runtime.images.errors import InvalidImageName
from nodewright_agent.runtime.images.reference import is_digest, parse

HEX = "0123456789abcdef" * 4
DIGEST = f"sha256:{HEX}"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("busybox", "docker.io/library/busybox:latest"),
        ("busybox:1", "docker.io/library/busybox:1"),
        ("a/b", "docker.io/a/b:latest"),
        ("docker.io/busybox", "docker.io/library/busybox:latest"),
        ("index.docker.io/a/b:t", "docker.io/a/b:t"),
        ("localhost/x:y", "localhost/x:y"),
        ("localhost:5000/x", "localhost:5000/x:latest"),
        ("host.example/a/b/c:V1.2_x-3", "host.example/a/b/c:V1.2_x-3"),
        ("HOST/a", "HOST/a:latest"),
        ("[fe80::1]:5000/a", "[fe80::1]:5000/a:latest"),
        ("127.0.0.1:5000/demo:1", "127.0.0.1:5000/demo:1"),
        (f"busybox@{DIGEST}", f"docker.io/library/busybox@{DIGEST}"),
        (f"busybox:1@{DIGEST}", f"docker.io/library/busybox:1@{DIGEST}"),
        ("a__b/c--d.e_f", "docker.io/a__b/c--d.e_f:latest"),
    ],
)
def test_names_are_normalised_as_docker_does(text, name):
    assert parse(text).name == name
    assert parse(parse(text).name) == parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "a b", "a\nb", "busybox\n", "-x", "a//b", "a/../../b", "/a", "a/", "Busybox", "a:b:c",
        "x:" + "t" * 129, "x:-t", "x:", "x@", "x@sha256:", "x@sha256:abc", f"x@sha256:{HEX.upper()}", f"x@md5:{HEX}",
        f"x@sha256:../{HEX[3:]}", "é", "a_", "a._b", HEX, "x" * 256, "host..name:5/x", "h:999999/x", "http://x/y",
        "x\0y", "a@b@c",
    ],
)  # fmt: skip
def test_malformed_names_are_refused_in_kubelets_words(text):
    with pytest.raises(InvalidImageName) as caught:
        parse(text)
    assert str(caught.value).startswith('Failed to apply default image tag "')
    assert "couldn't parse image name" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 2000


@given(st.text(max_size=60))
def test_whatever_passes_is_stable_and_safe(text):
    try:
        name = parse(text).name
    except InvalidImageName:
        return
    assert parse(name).name == name
    assert ".." not in name.split("/")
    assert name.isascii()
    assert name.isprintable()
    assert not name.startswith("-")


@pytest.mark.parametrize(
    ("text", "good"),
    [
        (DIGEST, True),
        ("sha512:" + HEX * 2, True),
        ("sha512:" + HEX, False),
        (DIGEST + "\n", False),
        ("sha256:../../x", False),
        ("", False),
    ],
)
def test_digests(text, good):
    assert is_digest(text) is good
