"""kubeconfig, in-cluster settings, and credentials that change."""

from __future__ import annotations

import base64
import datetime
import json
import ssl
import sys
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from nodewright.kube import config, errors
from nodewright.kube.config import ConfigError, load
from nodewright.kube.credentials import CertificateSource, TokenSource
from nodewright.kube.execplugin import ExecPlugin


def self_signed(directory: Path, name: str) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now)
    builder = builder.not_valid_after(now + datetime.timedelta(days=1))
    cert = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    paths = directory / f"{name}.crt", directory / f"{name}.key"
    paths[0].write_bytes(cert.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    private = serialization.PrivateFormat.PKCS8
    paths[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, private, serialization.NoEncryption()))
    return paths


@pytest.fixture
def pair(tmp_path):
    return self_signed(tmp_path, "client")


@pytest.fixture
def write(tmp_path):
    """Write a kubeconfig of one cluster, user and context; give its path."""

    def make(user=None, cluster=None, name="config", **extra):
        content = {
            "current-context": "x",
            "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1/", **(cluster or {})}}],
            "users": [{"name": "u", "user": user or {}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u", "namespace": "team"}}],
            **extra,
        }
        path = tmp_path / name
        path.write_text(json.dumps(content))
        return path

    return make


async def test_inline_certificates_and_token(write, pair):
    data = [base64.b64encode(path.read_bytes()).decode() for path in pair]
    path = write(
        {"client-certificate-data": data[0], "client-key-data": data[1], "token": "t"},
        {"certificate-authority-data": data[0]},
    )
    loaded = load(path)
    assert (loaded.server, loaded.namespace) == ("https://127.0.0.1:1", "team")
    assert (await loaded.headers())["Authorization"] == "Bearer t"
    assert loaded.ssl_context.get_ca_certs()[0]["subject"] == ((("commonName", "client"),),)
    assert loaded.ssl_context.verify_mode is ssl.CERT_REQUIRED
    assert not loaded.invalidate()


async def test_yaml_and_relative_paths(tmp_path, pair):
    (tmp_path / "config").write_text(
        """
apiVersion: v1
kind: Config
current-context: x
preferences: {}
clusters:
- name: c
  cluster: {server: "https://h:1", certificate-authority: client.crt, tls-server-name: other}
users:
- name: u
  user: {client-certificate: client.crt, client-key: client.key, tokenFile: token, token: ignored}
contexts:
- name: x
  context: {cluster: c, user: u}
"""
    )
    (tmp_path / "token").write_text("from-file\n")
    loaded = load(tmp_path / "config")
    assert loaded.ssl_context is loaded.ssl_context
    assert (loaded.server_hostname, loaded.namespace) == ("other", "default")
    assert (await loaded.headers())["Authorization"] == "Bearer from-file"


def test_json_needs_no_yaml(write):
    import subprocess

    path = write({"token": "t"})
    code = f"import sys; from nodewright.kube.config import load; load({str(path)!r}); sys.exit('yaml' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("user", "cluster", "extra", "words"),
    [
        ({}, {"server": "ftp://x"}, {}, ["clusters[c].server", "ftp://x"]),
        ({}, {"server": ""}, {}, ["clusters[c].server"]),
        ({}, {"certificate-authority": "nowhere"}, {}, ["clusters[c].certificate-authority", "nowhere"]),
        ({}, {"certificate-authority-data": "%%"}, {}, ["certificate-authority-data", "base64"]),
        ({}, {"proxy-url": "socks5://x"}, {}, ["proxy-url"]),
        ({"client-key-data": "eA=="}, {}, {}, ["users[u]", "go together"]),
        ({"auth-provider": {"name": "gcp"}}, {}, {}, ["auth-provider", "exec"]),
        ({"exec": {"command": "x", "apiVersion": "v0"}}, {}, {}, ["exec.apiVersion", "v0"]),
        ({"token": 5}, {}, {}, ["$.users[0].user.token"]),
        ({}, {}, {"current-context": "gone"}, ["contexts", "'gone'"]),
        ({}, {}, {"current-context": ""}, ["current-context"]),
        ({}, {}, {"clusters": []}, ["clusters", "'c'"]),
        ({}, {}, {"users": None}, ["users", "'u'"]),
        ({}, {"insecure-skip-tls-verify": True, "certificate-authority-data": "eA=="}, {}, ["exclude"]),
    ],
)
def test_what_is_wrong_is_named(write, user, cluster, extra, words):
    path = write(user, cluster, **extra)
    with pytest.raises(ConfigError) as caught:
        load(path)
    for word in [str(path), *words]:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"{", b"a: b: c", b"- 1", b"5", b"\xff\xfe\x00", b"\t", b"a: !!python/object:os.system x"]
)
def test_files_that_are_no_kubeconfig(tmp_path, content):
    path = tmp_path / "config"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="config"):
        load(path)


def test_a_missing_file(tmp_path):
    with pytest.raises(ConfigError, match="nowhere"):
        load(tmp_path / "nowhere")


def test_bad_certificates_are_named(write, tmp_path):
    (tmp_path / "bad.crt").write_text("no certificate")
    loaded = load(write({}, {"certificate-authority": "bad.crt"}))
    with pytest.raises(ConfigError, match=r"bad\.crt"):
        _ = loaded.ssl_context


def test_several_files_are_merged(write, monkeypatch):
    one = write({"token": "one"}, name="one", **{"current-context": ""})
    two = write({"token": "two"}, {"server": "https://two:1"}, name="two")
    monkeypatch.setenv("KUBECONFIG", f"{one}:/nowhere:{two}")
    assert load().server == "https://127.0.0.1:1"
    monkeypatch.setenv("KUBECONFIG", "/nowhere")
    with pytest.raises(ConfigError, match="nowhere"):
        load()


def test_insecure(write):
    context = load(write({}, {"insecure-skip-tls-verify": True})).ssl_context
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_NONE, False)


async def test_impersonation_and_basic(write):
    headers = await load(
        write({"as": "a", "as-groups": ["g", "h"], "as-user-extra": {"k": ["v"]}, "username": "u", "password": "p"})
    ).headers()
    assert headers.getall("Impersonate-Group") == ["g", "h"]
    assert headers["Impersonate-Extra-k"] == "v"
    assert headers["Authorization"] == "Basic dTpw"


async def test_in_cluster(tmp_path, monkeypatch, pair):
    (tmp_path / "token").write_text("pod-token")
    (tmp_path / "ca.crt").write_bytes(pair[0].read_bytes())
    (tmp_path / "namespace").write_text("mine")
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setattr(config, "SERVICE_ACCOUNT_DIR", tmp_path)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    loaded = config.in_cluster(tmp_path)
    assert (loaded.server, loaded.namespace) == ("https://[fd00::1]:443", "mine")
    assert (await loaded.headers())["Authorization"] == "Bearer pod-token"
    (tmp_path / "ca.crt").unlink()
    with pytest.raises(ConfigError, match=r"ca\.crt"):
        config.in_cluster(tmp_path)


@pytest.fixture
def pod(tmp_path, monkeypatch, pair):
    """A Pod's ServiceAccount; the Service `kubernetes` is known, too."""
    directory = tmp_path / "account"
    directory.mkdir()
    (directory / "token").write_text("pod-token")
    (directory / "ca.crt").write_bytes(pair[0].read_bytes())
    for name in ("KUBECONFIG", config.SERVER, config.SERVER_FROM):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(config, "SERVICE_ACCOUNT_DIR", directory)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")


async def test_a_pod_can_be_told_the_servers_url(pod, monkeypatch, write):
    monkeypatch.setenv(config.SERVER, "https://192.0.2.1:6443/")
    monkeypatch.setenv(config.SERVER_FROM, "/nowhere")  # the URL wins
    loaded = load()
    assert loaded.server == "https://192.0.2.1:6443"
    assert (await loaded.headers())["Authorization"] == "Bearer pod-token"
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST")
    assert load().server == "https://192.0.2.1:6443"


async def test_a_pod_can_be_told_the_kubelets_kubeconfig(pod, monkeypatch, write):
    # As kubeadm writes it: neither the kubelet's certificate nor another authority is there, and none is needed.
    user = {"client-certificate": "/var/lib/kubelet/pki/kubelet-client-current.pem", "client-key": "/x"}
    cluster = {"server": "https://kind-control-plane:6443", "certificate-authority": "/not/there"}
    monkeypatch.setenv(config.SERVER_FROM, str(write(user, cluster)))
    loaded = config.in_cluster()
    assert (loaded.server, loaded.namespace, loaded.server_hostname) == (
        "https://kind-control-plane:6443",
        "default",
        None,
    )
    assert (await loaded.headers())["Authorization"] == "Bearer pod-token"
    assert loaded.ssl_context.get_ca_certs()[0]["subject"] == ((("commonName", "client"),),)
    other = write(
        cluster={"server": "https://192.0.2.9", "tls-server-name": "api", "proxy-url": "http://p:1"}, name="b"
    )
    monkeypatch.setenv(config.SERVER_FROM, str(other))
    loaded = config.in_cluster()
    assert (loaded.server, loaded.server_hostname, loaded.proxy_url) == ("https://192.0.2.9", "api", "http://p:1")


@pytest.mark.parametrize(
    "url",
    ["192.0.2.1:6443", "http://192.0.2.1", "https://", "https://h:x", "https://h:99999", "https://u@h", "https://h?a"],
)
def test_a_bad_url_of_the_server_names_the_variable(pod, monkeypatch, write, url):
    monkeypatch.setenv(config.SERVER, url)
    with pytest.raises(ConfigError, match=r"^NODEWRIGHT_API_SERVER: not an https URL such as"):
        config.in_cluster()
    monkeypatch.delenv(config.SERVER)
    path = write(cluster={"server": url})
    monkeypatch.setenv(config.SERVER_FROM, str(path))
    where = rf"^NODEWRIGHT_API_SERVER_FROM: {path}: clusters\[c\]\.server: not an https URL such as"
    with pytest.raises(ConfigError, match=where):
        config.in_cluster()


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, "No such file"),
        ("{", "not YAML"),
        ("{}", "current-context is not set"),
        ('{"current-context": "x"}', "contexts: there is no entry named 'x'"),
        ('{"current-context": "x", "clusters": 1}', "clusters"),
    ],
)
def test_a_bad_kubeconfig_of_the_kubelet_is_named(pod, monkeypatch, tmp_path, content, text):
    path = tmp_path / "kubelet.conf"
    if content is not None:
        path.write_text(content)
    monkeypatch.setenv(config.SERVER_FROM, str(path))
    with pytest.raises(ConfigError) as caught:
        config.in_cluster()
    assert str(caught.value).startswith(f"NODEWRIGHT_API_SERVER_FROM: {path}: ")
    assert text in str(caught.value)


async def test_the_same_server_as_somebody_else(pod, pair, write):
    account = config.in_cluster()
    node = account.with_certificate(*pair)
    assert node.server == account.server
    assert "Authorization" not in await node.headers()
    assert node.ssl_context.get_ca_certs() == account.ssl_context.get_ca_certs()
    with pytest.raises(ConfigError, match="needs https"):
        config.Config("http://192.0.2.1").with_certificate(*pair)


async def test_a_token_file_is_read_again(tmp_path):
    now = [0.0]
    path = tmp_path / "token"
    path.write_text("one")
    source = TokenSource(path=path, clock=lambda: now[0])
    assert await source.token() == "one"
    path.write_text("two")
    assert await source.token() == "one"
    now[0] = 61.0
    assert await source.token() == "two"
    path.unlink()
    now[0] = 200.0
    assert await source.token() == "two", "a rotation in progress must not stop us"
    path.write_text("three")
    assert source.invalidate()
    assert await source.token() == "three"


def test_certificate_files_are_read_again(tmp_path, pair):
    now = [0.0]
    source = CertificateSource(ca=pair[0], cert=pair[0], key=pair[1], clock=lambda: now[0])
    first = source.context()
    now[0] = 10.0
    assert source.context() is first
    key = pair[1].read_bytes()
    pair[1].write_text("half written")
    now[0] = 20.0
    assert source.context() is first
    pair[1].write_bytes(key)
    self_signed(tmp_path, "client")
    now[0] = 30.0
    assert source.context() is not first


PLUGIN = """
import json, os, sys
info = json.loads(os.environ["KUBERNETES_EXEC_INFO"])
runs = os.environ["RUNS"]
open(runs, "a").write(sys.argv[1] + info["spec"].get("cluster", {}).get("server", "") + "\\n")
count = len(open(runs).readlines())
print(json.dumps({"apiVersion": info["apiVersion"], "kind": "ExecCredential",
                  "status": {"token": f"token-{count}", "expirationTimestamp": "2030-01-01T00:00:00Z"}}))
"""


@pytest.fixture
def plugin(tmp_path):
    (tmp_path / "plugin.py").write_text(PLUGIN)
    version = "client.authentication.k8s.io/v1"
    env = [{"name": "RUNS", "value": str(tmp_path / "runs")}]
    args = [str(tmp_path / "plugin.py"), "arg "]
    return {"exec": {"command": sys.executable, "args": args, "apiVersion": version, "env": env,
                     "interactiveMode": "Never", "provideClusterInfo": True}}  # fmt: skip


async def test_an_exec_plugin(write, plugin, tmp_path):
    loaded = load(write(plugin))
    for _ in range(2):
        assert (await loaded.headers())["Authorization"] == "Bearer token-1"
    assert loaded.invalidate()
    assert (await loaded.headers())["Authorization"] == "Bearer token-2"
    assert (tmp_path / "runs").read_text() == "arg https://127.0.0.1:1/\n" * 2


def make_plugin(code, clock=None, **options):
    extra = {"clock": clock} if clock else {}
    settings = {"env": {}, "api_version": "client.authentication.k8s.io/v1", "interactive": "Never", **options, **extra}
    return ExecPlugin(sys.executable, ["-c", code], **settings)


async def test_an_expired_answer_is_asked_for_again():
    now = [datetime.datetime(2029, 1, 1, tzinfo=datetime.UTC)]
    answer = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential",
              "status": {"token": "T", "expirationTimestamp": "2030-01-01T00:00:00Z"}}  # fmt: skip
    plugin = make_plugin(f"import uuid; print('''{json.dumps(answer)}'''.replace('T\"', str(uuid.uuid4()) + '\"', 1))",
                         clock=lambda: now[0])  # fmt: skip
    first = await plugin.token()
    assert await plugin.token() == first
    now[0] = datetime.datetime(2029, 12, 31, 23, 59, 56, tzinfo=datetime.UTC)
    assert await plugin.token() != first


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("import sys; sys.exit('no login')", "exit code 1: no login"),
        ("print('hello')", "no ExecCredential"),
        ("print('{}')", "configured is"),
        ('print(\'{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential"}\')', "neither token"),
    ],
)
async def test_failing_plugins_say_why(code, text):
    with pytest.raises(errors.ConfigError, match="exec plugin") as caught:
        await make_plugin(code).token()
    assert text in str(caught.value)


async def test_a_plugin_that_is_not_there():
    plugin = ExecPlugin("/nowhere/plugin", [], env={}, api_version="client.authentication.k8s.io/v1",
                        install_hint="get it from the cupboard")  # fmt: skip
    with pytest.raises(errors.ConfigError, match="cupboard"):
        await plugin.token()


async def test_a_failing_plugin_is_an_api_error_for_those_who_ask(stub):
    from nodewright.kube.client import Client
    from nodewright.kube.resources import NODES

    failing = config.Config(stub.url, token=TokenSource(plugin=make_plugin("import sys; sys.exit('no login')")))
    async with Client(failing) as client:
        with pytest.raises(errors.Unauthorized, match="no login"):
            await client.get(NODES, "n")
    assert stub.requests == []
