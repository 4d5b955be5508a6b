"""A certificate authority, an API server that reviews tokens and access, and the agent's server on real TLS."""

from __future__ import annotations

import asyncio
import datetime
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from nodewright.kube.client import Client
from nodewright.kube.config import Config
from nodewright.kube.objects import Pod
from nodewright_agent.server.authn import Authenticator
from nodewright_agent.server.authz import Authorizer
from nodewright_agent.server.server import KubeletServer
from nodewright_agent.server.tls import ServingTLS
from support.stream_server import Node


class Authority:
    """Issues certificates into a directory."""

    def __init__(self, directory: Path, name: str) -> None:
        self.directory = directory
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.path = directory / f"{name}.crt"
        builder = self._builder(self.name, self.key, 0, 1)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        self.path.write_bytes(builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    def _builder(self, subject, key, start, end):
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + datetime.timedelta(days=start, hours=-1))
            .not_valid_after(now + datetime.timedelta(days=end))
        )

    def issue(self, name: str, *groups: str, server: bool = False, days: tuple[int, int] = (0, 1), file: str = ""):
        key = ec.generate_private_key(ec.SECP256R1())
        subject = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
        if name:
            subject.append(x509.NameAttribute(NameOID.COMMON_NAME, name))
        builder = self._builder(x509.Name(subject), key, *days)
        usage = ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        names = x509.SubjectAlternativeName([x509.DNSName("localhost")])
        builder = builder.add_extension(names, critical=False)
        stem = file or name or "nameless"
        cert, key_path = self.directory / f"{stem}.crt", self.directory / f"{stem}.key"
        cert.write_bytes(builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        key_path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return cert, key_path


class Reviews:
    """Answers TokenReviews and SubjectAccessReviews from tables, as the API server would."""

    def __init__(self) -> None:
        self.tokens: dict[str, dict[str, Any]] = {}
        self.rules: set[tuple[str, str, str]] = set()  # user, verb, subresource
        self.asked: list[dict[str, Any]] = []
        self.status = 201

    async def handle(self, request: web.Request) -> web.Response:
        body = msgspec.json.decode(await request.read())
        self.asked.append(body)
        if self.status != 201:
            return web.json_response({"kind": "Status", "code": self.status, "message": "no"}, status=self.status)
        if body["kind"] == "TokenReview":
            user = self.tokens.get(body["spec"]["token"])
            body["status"] = {"authenticated": user is not None, "user": user or {}}
        else:
            spec, attributes = body["spec"], body["spec"]["resourceAttributes"]
            key = (spec["user"], attributes["verb"], attributes["subresource"])
            body["status"] = {"allowed": key in self.rules and attributes["name"] == "node-1"}
        return web.json_response(body, status=201)


class FakePods:
    """The agent's side: pods and their log directory."""

    def __init__(self, root: Path) -> None:
        self.log_root = root
        self.items: list[Pod] = []
        self.exits: dict[str, asyncio.Event] = {}
        self.parts: dict[str, tuple[str, ...]] = {}

    def pods(self):
        return self.items

    def running_pods(self):
        return self.items[:1]

    def log_parts(self, pod, container, container_id):
        return self.parts.get(container_id)

    async def wait_exited(self, container_id):
        await self.exits.setdefault(container_id, asyncio.Event()).wait()

    def config(self):
        return {"maxPods": 110}


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "ca")


@pytest.fixture
async def reviews() -> AsyncIterator[Reviews]:
    made = Reviews()
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", made.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"  # type: ignore[attr-defined]
    made.stop = runner.cleanup  # type: ignore[attr-defined]
    yield made
    await runner.cleanup()


@pytest.fixture
async def review_client(reviews) -> AsyncIterator[Client]:
    async with Client(Config(reviews.url)) as client:
        yield client


@pytest.fixture
def pods(tmp_path: Path) -> FakePods:
    root = tmp_path / "logs"
    root.mkdir()
    return FakePods(root)


@pytest.fixture
def node() -> Node:
    """Where streams lead to."""
    return Node()


@pytest.fixture
async def server(authority, review_client, pods, node) -> AsyncIterator[KubeletServer]:
    cert, key = authority.issue("server", server=True)
    made = KubeletServer(
        pods,
        streams=node,
        node_name="node-1",
        tls=ServingTLS(cert, key, authority.path),
        authenticator=Authenticator(review_client),
        authorizer=Authorizer(review_client, "node-1"),
        address="127.0.0.1",
        port=0,
    )
    await made.start()
    yield made
    await made.stop()


class Caller:
    """A client of the agent's server, with a certificate or a token."""

    def __init__(self, port: int, ca: Path, pair: tuple[Path, Path] | None = None, token: str = "") -> None:
        self.base = f"https://localhost:{port}"
        self.context = ssl.create_default_context(cafile=str(ca))
        if pair is not None:
            self.context.load_cert_chain(*pair)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.session = aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(ssl=self.context))

    async def get(self, path: str, method: str = "GET", **options: Any) -> tuple[int, str]:
        from yarl import URL

        async with self.session.request(method, URL(self.base + path, encoded=True), **options) as response:
            return response.status, await response.text()


@pytest.fixture
async def call(server, authority) -> AsyncIterator[Any]:
    """Make callers; they are closed at the end."""
    made: list[Caller] = []

    def make(pair=None, token="", ca=None):
        made.append(Caller(server.port, ca or authority.path, pair, token))
        return made[-1]

    yield make
    for caller in made:
        await caller.session.close()


@pytest.fixture
async def admin(call, authority, reviews) -> Caller:
    """A caller who may everything that the tests ask for."""
    for subresource in ("proxy", "metrics", "stats"):
        for verb in ("get", "create"):
            reviews.rules.add(("admin", verb, subresource))
    return call(authority.issue("admin", "system:masters"))
