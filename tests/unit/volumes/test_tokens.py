import asyncio
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from nodewright.kube.errors import ServerUnavailable
from nodewright.kube.objects import Pod
from nodewright.kube.times import format_rfc3339
from nodewright_agent.pods.volumes.tokens import TokenSource, renew_at

START = datetime(2026, 1, 1, tzinfo=UTC)
POD = msgspec.convert({"metadata": {"name": "p", "namespace": "ns", "uid": "u"}}, Pod)


@pytest.mark.parametrize(("hours", "renewed"), [(1, 0.8), (10, 8), (30, 24), (1000, 24)])
def test_renewal_at_four_fifths_or_a_day(hours, renewed):
    assert renew_at(START, START + timedelta(hours=hours), timedelta(0)) == START + timedelta(hours=renewed)
    assert renew_at(START, START + timedelta(hours=hours), timedelta(seconds=9)) < START + timedelta(hours=renewed)


class Server:
    """Hands out numbered tokens, or fails."""

    def __init__(self, clock):
        self.clock, self.requests, self.down = clock, [], False

    async def create(self, resource, obj, namespace, *, name, subresource):
        if self.down:
            raise ServerUnavailable(503, "ServerUnavailable", "down")
        self.requests.append((namespace, name, subresource, obj["spec"]))
        expires = self.clock() + timedelta(seconds=obj["spec"]["expirationSeconds"])
        return {"status": {"token": f"t{len(self.requests)}", "expirationTimestamp": format_rfc3339(expires)}}


def test_a_token_is_kept_renewed_and_outlives_a_server_that_is_down():
    now = [START]
    server = Server(lambda: now[0])
    source = TokenSource(server, lambda: now[0])

    async def get(audience="", seconds=3600):
        return (await source.get(POD, audience, seconds)).text

    async def scenario():
        assert [await get(), await get(), await get("vault")] == ["t1", "t1", "t2"]
        now[0] += timedelta(minutes=40)
        assert await get() == "t1"
        now[0] += timedelta(minutes=9)
        server.down = True
        with pytest.raises(ServerUnavailable):
            await get()
        assert source.last(POD, "", 3600).text == "t1"
        server.down = False
        assert await get() == "t3"
        now[0] += timedelta(hours=2)
        assert source.last(POD, "", 3600) is None
        source.forget("u")
        assert source.last(POD, "vault", 3600) is None

    asyncio.run(scenario())
    namespace, name, subresource, spec = server.requests[1]
    assert (namespace, name, subresource) == ("ns", "default", "token")
    bound = {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u"}
    assert spec == {"expirationSeconds": 3600, "boundObjectRef": bound, "audiences": ["vault"]}
    assert "audiences" not in server.requests[0][3]
