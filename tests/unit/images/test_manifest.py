import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodewright_agent.runtime.images import config, manifest
from nodewright_agent.runtime.images.errors import ErrImagePull, ImageCorrupt, ImageError
from nodewright_agent.runtime.images.manifest import Index, Manifest, Platform, choose, parse

D = "sha256:" + "a" * 64
FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
AMD64 = Platform("linux", "amd64")


def descriptor(media_type=manifest.OCI_MANIFEST, **more):
    return {"mediaType": media_type, "digest": D, "size": 7} | more


def image(**more):
    return {
        "schemaVersion": 2,
        "mediaType": manifest.OCI_MANIFEST,
        "config": descriptor("application/vnd.oci.image.config.v1+json"),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar+gzip")],
    } | more


def data(document):
    return json.dumps(document).encode()


def test_manifest_of_either_kind():
    found = parse(data(image()))
    assert isinstance(found, Manifest)
    assert found.layers[0].digest == D
    docker = image(mediaType=manifest.DOCKER_MANIFEST)
    assert isinstance(parse(data(docker), manifest.DOCKER_MANIFEST), Manifest)


def test_media_type_may_come_from_the_transport_or_from_the_fields():
    bare = image()
    del bare["mediaType"]
    assert isinstance(parse(data(bare), manifest.OCI_MANIFEST + "; charset=utf-8"), Manifest)
    assert isinstance(parse(data(bare), "application/json"), Manifest)
    assert isinstance(parse(data({"schemaVersion": 2, "manifests": []})), Index)


@pytest.mark.parametrize(
    ("document", "content_type", "said"),
    [
        (b"", "", "not valid JSON"),
        (b"<html>", "text/html", "not valid JSON"),
        (b"\xef\xbb\xbf{}", "", "not valid JSON"),
        (b'{"schemaVersion": 2', "", "not valid JSON"),
        (b"\xff\xfe", "", "not valid JSON"),
        (b"[" * 100_000, "", "nested too deeply"),
        (b'{"a": NaN}', "", "NaN"),
        (b'{"a": ' + b"9" * 5000 + b"}", "", "not valid JSON"),
        (b'{"schemaVersion": 2, "schemaVersion": 2}', "", "duplicate key"),
        (b"[]", "", "not a JSON object"),
        (data({"schemaVersion": 1}), "", "schema 1"),
        (data({"schemaVersion": "2"}), "", "schemaVersion"),
        (data(image(manifests=[])), "", "ambiguous"),
        (data(image()), manifest.OCI_INDEX, "was served as"),
        (data({"schemaVersion": 2, "mediaType": manifest.OCI_INDEX}), "", "no manifests"),
        (data(image(mediaType="application/vnd.evil")), "", "not a container image"),
        (data(image(config=descriptor("application/vnd.helm"))), "", "config type"),
        (data(image(config=None)), "", "must be an object"),
        (data(image(layers=None)), "", "must be a list"),
        (data(image(layers=[descriptor(FOREIGN)])), "", "unsupported"),
        (data(image(layers=[descriptor(digest="sha256:../../etc/passwd")])), "", "not a sha256"),
        (data(image(layers=[descriptor(digest="sha256:" + "A" * 64)])), "", "not a sha256"),
        (data(image(layers=[descriptor(size=-1)])), "", "size"),
        (data(image(layers=[descriptor(size=True)])), "", "size"),
        (data(image(layers=[descriptor(size="7")])), "", "size"),
        (data(image(layers=[descriptor("application/vnd.oci.image.layer.v1.tar")] * 501)), "", "more than 500"),
    ],
)  # fmt: skip
def test_bad_documents(document, content_type, said):
    with pytest.raises(ErrImagePull) as caught:
        parse(document, content_type)
    assert said in str(caught.value)


def test_size_is_bounded():
    with pytest.raises(ImageCorrupt, match="larger than"):
        parse(b" " * (manifest.MAX_MANIFEST_BYTES + 1))


@given(st.binary(max_size=200))
def test_bytes_of_any_kind_give_an_image_error_or_a_document(content):
    try:
        parse(content)
    except ImageError:
        pass


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(list(image())), inner, max_size=4),
        max_leaves=12,
    )
)
def test_json_of_any_shape_gives_an_image_error_or_a_document(document):
    for base in ({}, image()):
        try:
            parse(data(base | document if isinstance(document, dict) else document))
        except ImageError:
            pass


def index(*platforms):
    entries = [
        descriptor(
            platform=None if p is None else dict(zip(("os", "architecture", "variant"), p, strict=False)), size=i
        )
        for i, p in enumerate(platforms)
    ]
    found = parse(data({"schemaVersion": 2, "mediaType": manifest.OCI_INDEX, "manifests": entries}))
    assert isinstance(found, Index)
    return found


@pytest.mark.parametrize(
    ("platforms", "wanted", "chosen"),
    [
        ([("linux", "arm64"), ("linux", "amd64")], "linux/amd64", 1),
        ([("unknown", "unknown"), ("linux", "amd64")], "linux/amd64", 1),
        ([("linux", "amd64", "v3"), ("linux", "amd64")], "linux/amd64", 1),
        ([("windows", "amd64"), ("linux", "amd64", "v1")], "linux/amd64", 1),
        ([("linux", "arm", "v5"), ("linux", "arm", "v6"), ("linux", "arm64")], "linux/arm/v7", 1),
        ([("linux", "arm64", "v8")], "linux/arm64", 0),
        ([None, ("linux", "amd64")], "linux/amd64", 1),
        ([None], "linux/amd64", 0),
    ],
)
def test_platform_choice(platforms, wanted, chosen):
    assert choose(index(*platforms), Platform.parse(wanted)).size == chosen


@pytest.mark.parametrize("platforms", [[], [("linux", "arm64")], [("unknown", "unknown")], [("linux", "amd64", "v3")]])
def test_no_match(platforms):
    with pytest.raises(ErrImagePull, match="no match for platform linux/amd64 in manifest"):
        choose(index(*platforms), AMD64)


def test_verify():
    manifest.verify(b"x", manifest.sha256(b"x"), "x")
    with pytest.raises(ImageCorrupt, match="expected"):
        manifest.verify(b"y", manifest.sha256(b"x"), "x")


def configuration(inner=None, **more):
    document = {"os": "linux", "architecture": "amd64", "config": inner, "rootfs": {"type": "layers", "diff_ids": [D]}}
    return data(document | more)


def test_config():
    inner = {"Entrypoint": ["/a"], "Cmd": None, "Env": ["A=1", "nothing", "=x", "B="], "User": "1:2"}
    inner |= {"Volumes": {"/v/": {}}, "StopSignal": "SIGQUIT", "WorkingDir": "/w", "Labels": {"k": "v"}}
    found = config.parse(configuration(inner), AMD64)
    assert found.diff_ids == (D,)
    assert found.config == config.ImageConfig(
        ["/a"], [], ["A=1", "B="], "1:2", "/w", "SIGQUIT", {"k": "v"}, ["/v"]
    )  # fmt: skip
    assert config.parse(configuration(None), AMD64).config == config.ImageConfig()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (configuration(architecture="arm64"), "no match for platform"),
        (configuration(os="windows"), "no match for platform"),
        (configuration(rootfs=None), "rootfs"),
        (configuration(rootfs={"type": "layers", "diff_ids": ["sha256:x"]}), "diff_ids"),
        (configuration({"Env": "A=1"}), "config.Env"),
        (configuration({"Cmd": [1]}), "config.Cmd"),
        (configuration({"Cmd": ["a\0b"]}), "NUL"),
        (configuration({"Volumes": {"/../../host": {}}}), "unsafe path"),
        (configuration({"Volumes": {"/proc": {}}}), "unsafe path"),
        (configuration({"Volumes": {"relative": {}}}), "unsafe path"),
        (configuration({"Volumes": {"/": {}}}), "unsafe path"),
        (configuration([]), "config.config"),
        (b"x", "not valid JSON"),
    ],
)
def test_bad_config(content, said):
    with pytest.raises(ErrImagePull) as caught:
        config.parse(content, AMD64)
    assert said in str(caught.value)
