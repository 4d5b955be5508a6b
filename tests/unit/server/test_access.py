"""Who gets in, and to what: certificates, tokens, reviews, paths that try to be others (K01, K02)."""

from __future__ import annotations

import aiohttp
import pytest

from nodewright.kube.errors import ApiError
from nodewright_agent.server.authn import Authenticator, User, user_of_certificate
from nodewright_agent.server.authz import Authorizer, subresources, verb
from nodewright_agent.server.ttlcache import TtlCache

ALL_PATHS = ["/healthz", "/pods", "/runningpods/", "/configz", "/metrics", "/metrics/resource", "/stats/summary",
             "/containerLogs/ns/p/c", "/exec/ns/p/c", "/nothing", "/"]  # fmt: skip


@pytest.mark.parametrize("path", ALL_PATHS)
async def test_anonymous_is_refused_everywhere(call, reviews, path):
    assert (await call().get(path)) == (401, "Unauthorized")
    assert reviews.asked == []


async def test_a_certificate_of_the_authority_is_a_user(call, authority, reviews):
    reviews.rules.add(("alice", "get", "healthz"))
    caller = call(authority.issue("alice", "dev", "ops"))
    assert await caller.get("/healthz") == (200, "ok")
    (asked,) = reviews.asked
    assert asked["spec"] == {
        "user": "alice",
        "groups": ["dev", "ops", "system:authenticated"],
        "resourceAttributes": {
            "verb": "get", "version": "v1", "resource": "nodes", "subresource": "healthz", "name": "node-1",
        },
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["other authority", "expired", "not yet valid", "server certificate"])
async def test_certificates_that_are_no_good_end_the_handshake(call, authority, tmp_path, kind):
    if kind == "other authority":
        (tmp_path / "evil").mkdir()
        pair = type(authority)(tmp_path / "evil", "ca").issue("admin", "system:masters")
    elif kind == "server certificate":
        pair = authority.issue("admin", "system:masters", server=True)
    else:
        pair = authority.issue("admin", "system:masters", days=(-3, -1) if kind == "expired" else (1, 2))
    with pytest.raises(aiohttp.ClientError):
        await call(pair).get("/healthz")


async def test_a_certificate_without_name_is_nobody(call, authority):
    assert (await call(authority.issue("", "system:masters")).get("/healthz"))[0] == 401


async def test_tokens_are_reviewed_once_in_two_minutes(call, reviews):
    reviews.tokens["good"] = {"username": "bob", "uid": "1", "groups": ["g"], "extra": {"k": ["v"]}}
    reviews.rules.add(("bob", "get", "pods"))
    caller = call(token="good")
    for _ in range(3):
        assert (await caller.get("/pods"))[0] == 200
    kinds = [asked["kind"] for asked in reviews.asked]
    assert kinds == ["TokenReview", "SubjectAccessReview"]
    assert reviews.asked[1]["spec"]["extra"] == {"k": ["v"]}
    assert reviews.asked[1]["spec"]["uid"] == "1"


@pytest.mark.parametrize(
    "header",
    [
        "Bearer wrong",
        "Bearer",
        "Bearer ",
        "Basic Z29vZDo=",
        "bearer  good x",
        "Bearer good,good",
        "Bearer " + "a" * 7000,
    ],
)
async def test_other_authorization_headers_are_refused(call, reviews, header):
    reviews.tokens["good"] = {"username": "bob"}
    reviews.rules.add(("bob", "get", "healthz"))
    assert (await call().get("/healthz", headers={"Authorization": header}))[0] == 401


async def test_denied_by_review(call, authority, reviews):
    reviews.rules.add(("eve", "get", "healthz"))
    caller = call(authority.issue("eve"))
    status, text = await caller.get("/pods")
    assert status == 403
    assert text == "Forbidden (user=eve, verb=get, resource=nodes, subresource(s)=[pods proxy])\n"
    status, _ = await caller.get("/containerLogs/ns/p/c")
    assert status == 403
    assert (await caller.get("/healthz", method="POST"))[0] == 403


async def test_without_an_answer_from_the_api_server_nobody_gets_in(call, authority, reviews):
    reviews.tokens["good"] = {"username": "bob"}
    reviews.rules.add(("alice", "get", "healthz"))
    reviews.status = 500
    alice, bob = call(authority.issue("alice")), call(token="good")
    assert (await alice.get("/healthz"))[0] == 500
    assert (await bob.get("/healthz"))[0] == 401
    await reviews.stop()
    assert (await alice.get("/healthz"))[0] == 500
    assert (await bob.get("/healthz"))[0] == 401


async def test_failures_are_not_remembered(call, authority, reviews):
    reviews.rules.add(("alice", "get", "healthz"))
    reviews.status = 503
    alice = call(authority.issue("alice"))
    assert (await alice.get("/healthz"))[0] == 500
    reviews.status = 201
    assert (await alice.get("/healthz"))[0] == 200


@pytest.mark.parametrize(
    "path",
    ["/containerLogs/ns/p/../../x", "/metrics/../containerLogs/ns/p/c", "/metrics/%2e%2e/pods",
     "/logs/../../etc/shadow",
     "//pods", "/pods/%2e", "/containerLogs/ns/p%2fx/c", "/containerLogs/ns/p/c%00", "/./pods"],
)  # fmt: skip
async def test_odd_paths_are_not_found(server, call, authority, reviews, path):
    reviews.rules |= {("alice", "get", s) for s in ("metrics", "proxy", "pods", "log")}
    pair = authority.issue("alice")
    status = await _raw_status(server.port, authority.path, pair, path)
    assert status == 404


async def _raw_status(port, ca, pair, path):
    """Send a path as it is; HTTP clients clean paths up."""
    import asyncio
    import ssl

    context = ssl.create_default_context(cafile=str(ca))
    context.load_cert_chain(*pair)
    reader, writer = await asyncio.open_connection("localhost", port, ssl=context)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    line = await reader.readline()
    await reader.read()
    writer.close()
    await writer.wait_closed()
    return int(line.split()[1])


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/pods", ["pods", "proxy"]), ("/pods/", ["pods", "proxy"]), ("/podsx", ["proxy"]),
        ("/runningpods/", ["pods", "proxy"]), ("/healthz", ["healthz", "proxy"]),
        ("/healthz/ping", ["healthz", "proxy"]),
        ("/configz", ["configz", "proxy"]), ("/stats/summary", ["stats"]), ("/metrics", ["metrics"]),
        ("/metrics/cadvisor", ["metrics"]), ("/metricsx", ["proxy"]), ("/logs/a", ["log"]),
        ("/checkpoint/a", ["checkpoint"]),
        ("/statusz", ["statusz"]), ("/flagz", ["configz"]), ("/exec/a/b/c", ["proxy"]),
        ("/containerLogs/a/b/c", ["proxy"]),
        ("/", ["proxy"]),
    ],
)  # fmt: skip
def test_subresources(path, expected):
    assert subresources(path) == expected


def test_verbs():
    methods = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "BREW"]
    assert [verb(m) for m in methods] == ["get", "create", "update", "patch", "delete", "", "", ""]


def test_users_of_certificates():
    subject = ((("organizationName", "a"),), (("commonName", "x"),), (("organizationName", "b"),))
    assert user_of_certificate({"subject": subject}) == User("x", "", ("a", "b", "system:authenticated"))
    assert user_of_certificate({"subject": ((("commonName", "x"),), (("commonName", "y"),))}) is None
    assert user_of_certificate({}) is None


async def test_the_decision_caches_keep_their_times(review_client, reviews):
    now = [0.0]
    cache = TtlCache(lambda allowed: 300.0 if allowed else 30.0, clock=lambda: now[0])
    authorizer = Authorizer(review_client, "node-1", cache=cache)
    user = User("alice")
    assert not await authorizer.allowed(user, "GET", "/metrics")
    reviews.rules.add(("alice", "get", "metrics"))
    now[0] = 29.0
    assert not await authorizer.allowed(user, "GET", "/metrics")
    now[0] = 31.0
    assert await authorizer.allowed(user, "GET", "/metrics")
    reviews.rules.clear()
    now[0] = 330.0
    assert await authorizer.allowed(user, "GET", "/metrics")
    now[0] = 332.0
    assert not await authorizer.allowed(user, "GET", "/metrics")


async def test_a_cache_is_bounded_and_shares_look_ups():
    import asyncio

    calls = []
    gate = asyncio.Event()

    async def look_up():
        calls.append(1)
        await gate.wait()
        return "x"

    cache = TtlCache(lambda _: 60.0, size=2)
    waiting = [asyncio.create_task(cache.get("k", look_up)) for _ in range(5)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    gate.set()
    assert await asyncio.gather(*waiting[1:]) == ["x"] * 4
    assert len(calls) == 1
    for key in range(5):
        await cache.get(key, look_up)
    assert len(cache._entries) == 2


async def test_a_broken_answer_is_no_yes(review_client, reviews, monkeypatch):
    async def request(*_args, **_options):
        return b"<html>"

    monkeypatch.setattr(review_client, "request", request)
    with pytest.raises(ApiError):
        await Authorizer(review_client, "node-1").allowed(User("alice"), "GET", "/metrics")
    assert await Authenticator(review_client).authenticate(None, "Bearer good") is None
