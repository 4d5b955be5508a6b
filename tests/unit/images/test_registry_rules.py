import base64
import json
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodewright_agent.runtime.images import challenge
from nodewright_agent.runtime.images.credentials import Credential, matching, parse_docker_config
from nodewright_agent.runtime.images.errors import ErrImagePull
from nodewright_agent.runtime.images.reference import parse
from nodewright_agent.runtime.images.settings import Endpoint, RegistrySettings, SettingsError, is_private_address

HTTPS = Endpoint("https://registry.example")
LOCAL = Endpoint("http://127.0.0.1:5000")


def test_challenges():
    found = challenge.parse('Bearer realm="https://auth.example/token",service="reg",scope="repository:a:pull,push"')
    assert found.scheme == "bearer"
    assert found.parameters["scope"] == "repository:a:pull,push"
    assert challenge.parse('Basic realm="x"').scheme == "basic"
    assert challenge.parse('bearer realm=https://a/t, service="q\\"uote"').parameters == {
        "realm": "https://a/t",
        "service": 'q"uote',
    }


@pytest.mark.parametrize("header", ["", "Negotiate abc", "Digest realm=x", "Bearer " + "x" * 9000])
def test_unusable_challenges(header):
    with pytest.raises(ErrImagePull):
        challenge.parse(header)


def test_token_url_asks_for_our_own_scope():
    asked = challenge.parse('Bearer realm="https://auth.example/token?x=1",service="s",scope="repository:other:push"')
    url = urlsplit(challenge.token_url(asked, HTTPS, "a/b"))
    assert parse_qs(url.query) == {"x": ["1"], "service": ["s"], "scope": ["repository:a/b:pull"]}


@pytest.mark.parametrize(
    ("realm", "endpoint", "good"),
    [
        ("https://auth.example/token", HTTPS, True),
        ("http://auth.example/token", HTTPS, False),
        ("http://127.0.0.1:5001/token", LOCAL, True),
        ("http://127.0.0.2:5001/token", LOCAL, False),
        ("http://169.254.169.254/latest", HTTPS, False),
        ("https://169.254.169.254/latest", HTTPS, False),
        ("https://127.0.0.1/", HTTPS, False),
        ("https://localhost/", HTTPS, False),
        ("https://[::1]/", HTTPS, False),
        ("https://[::ffff:127.0.0.1]/", HTTPS, False),
        ("https://2130706433/", HTTPS, False),
        ("https://0x7f.1/", HTTPS, False),
        ("https://10.0.0.7/t", HTTPS, False),
        ("https://10.0.0.7/t", Endpoint("https://registry.example", token_hosts=frozenset({"10.0.0.7"})), True),
        ("https://10.0.0.7/t", Endpoint("https://10.0.0.7:5000"), True),
        ("https://user@auth.example/t", HTTPS, False),
        ("file:///etc/passwd", HTTPS, False),
        ("https://[bad/", HTTPS, False),
        ("https://a:99999/", HTTPS, False),
        ("", HTTPS, False),
    ],
)
def test_where_a_token_may_be_fetched(realm, endpoint, good):
    asked = challenge.Challenge("bearer", {"realm": realm})
    if good:
        assert challenge.token_url(asked, endpoint, "a").startswith(realm)
    else:
        with pytest.raises(ErrImagePull):
            challenge.token_url(asked, endpoint, "a")


@pytest.mark.parametrize(
    ("old", "new", "endpoint", "good"),
    [
        ("https://registry.example/a", "https://cdn.example/b", HTTPS, True),
        ("https://registry.example/a", "http://cdn.example/b", HTTPS, False),
        ("https://registry.example/a", "https://169.254.169.254/b", HTTPS, False),
        ("https://registry.example/a", "file:///etc/shadow", HTTPS, False),
        ("https://registry.example/a", "https://u:p@cdn.example/b", HTTPS, False),
        ("https://registry.example/a", "https://[x/", HTTPS, False),
        ("http://127.0.0.1:5000/a", "http://127.0.0.1:5001/b", LOCAL, True),
        ("http://127.0.0.1:5000/a", "http://10.1.2.3/b", LOCAL, False),
    ],
)
def test_redirects(old, new, endpoint, good):
    assert challenge.redirect_allowed(old, new, endpoint) is good


def test_credentials_stay_with_their_origin():
    assert challenge.same_origin("https://a/x", "https://a/y")
    for other in ("https://b/x", "http://a/x", "https://a:444/x"):
        assert not challenge.same_origin("https://a/x", other)


@given(st.text(max_size=40))
def test_private_address_check_takes_any_text(text):
    assert is_private_address(text) in (True, False)


def endpoints(domain, document):
    return [e.base for e in RegistrySettings.from_dict(document).endpoints(domain)]


def test_endpoints():
    assert endpoints("registry.example", {}) == ["https://registry.example"]
    assert endpoints("docker.io", {}) == ["https://registry-1.docker.io"]
    for local in ("localhost:5000", "127.0.0.1", "127.9.9.9:5", "[::1]:5000", "localhost"):
        assert endpoints(local, {}) == [f"http://{local}"]
    assert endpoints("localhost.example", {}) == ["https://localhost.example"]
    own = {"registry": {"r.example": {"mirrors": ["https://m:1/"], "plain-http": True, "ca-file": "/ca"}}}
    assert endpoints("r.example", own) == ["https://m:1", "http://r.example"]
    assert endpoints("localhost", {"registry": {"localhost": {"plain-http": False}}}) == ["https://localhost"]


@pytest.mark.parametrize(
    "document",
    [
        {"registries": {}},
        {"registry": {"a": {"plain-htp": True}}},
        {"registry": {"a": {"plain-http": "yes"}}},
        {"registry": {"a": {"mirrors": ["m.example"]}}},
        {"registry": []},
    ],
)
def test_bad_settings_name_file_and_field(document):
    with pytest.raises(SettingsError, match=r"^registries.toml: "):
        RegistrySettings.from_dict(document)


def test_settings_file(tmp_path):
    path = tmp_path / "registries.toml"
    assert RegistrySettings.load(path).endpoints("a")[0].base == "https://a"
    path.write_text('[registry."a"]\nplain-http = true\n')
    assert RegistrySettings.load(path).endpoints("a")[0].base == "http://a"
    path.write_text("[registry")
    with pytest.raises(SettingsError, match=str(path)):
        RegistrySettings.load(path)


def docker_config(**auths):
    return json.dumps({"auths": {key.replace("_", "."): value for key, value in auths.items()}}).encode()


def test_docker_config():
    pair = base64.b64encode(b"user:pa:ss").decode()
    found = parse_docker_config(docker_config(a_example={"auth": pair}, b_example={"username": "u", "password": "p"}))
    assert found == [Credential("a.example", "user", "pa:ss"), Credential("b.example", "u", "p")]
    old = json.dumps({"https://index.docker.io/v1/": {"auth": pair}}).encode()
    assert parse_docker_config(old, secret_type="kubernetes.io/dockercfg")[0].registry == "docker.io"
    assert "pa:ss" not in repr(found)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"\xff",
        b'{"auths": []}',
        b'{"auths": {"a": 1}}',
        b'{"auths": {"a": {"auth": "%%%"}}}',
        b'{"auths": {"a": {"auth": "dXNlcg=="}}}',
        b'{"auths": {"a": {"username": 1}}}',
    ],
)
def test_malformed_docker_config(content):
    with pytest.raises(ValueError):  # noqa: PT011 - UnicodeDecodeError and JSON errors are ValueErrors, too
        parse_docker_config(content)


@pytest.mark.parametrize(
    ("pattern", "image", "fits"),
    [
        ("r.example", "r.example/a/b", True),
        ("r.example", "x.r.example/a", False),
        ("*.example", "r.example/a", True),
        ("*.example", "a.b.example/a", False),
        ("r.example:5000", "r.example/a", False),
        ("r.example:5000", "r.example:5000/a", True),
        ("r.example/team", "r.example/team/a", True),
        ("r.example/team", "r.example/teams/a", False),
        ("docker.io", "busybox", True),
    ],
)
def test_which_credentials_fit(pattern, image, fits):
    assert bool(matching([Credential(pattern)], parse(image))) is fits


def test_the_most_specific_credential_comes_first():
    given_ = [Credential("r.example", "wide"), Credential("r.example/team", "narrow"), Credential("other", "no")]
    assert [c.username for c in matching(given_, parse("r.example/team/a"))] == ["narrow", "wide"]
