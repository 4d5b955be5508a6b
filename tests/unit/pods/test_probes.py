"""Probes and HTTP hooks: what they do on the wire, what they tell, and when."""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

from nodewright.kube.objects import Container, LifecycleHandler, Probe
from nodewright_agent.node import selfsigned
from nodewright_agent.pods import hooks
from nodewright_agent.pods.handlers import Answer, Outcome
from nodewright_agent.pods.model import Instance
from nodewright_agent.pods.probes import checks, runner
from nodewright_agent.runtime.errors import ExecError
from nodewright_agent.runtime.spec import ExecResult
from unit.pods.pod_doubles import START, FakeEvents, clock, make_pod, run_virtual

CONTAINER = msgspec.convert(
    {
        "name": "a",
        "ports": [{"name": "web", "containerPort": 8080}],
        "env": [{"name": "X", "value": "1"}, {"name": "Y", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
    },
    Container,
)


class FakeRuntime:
    """Answers commands in turn with an exit code, None for a time-out, or an error."""

    def __init__(self, *answers: int | Exception | None) -> None:
        self.answers, self.commands = list(answers), []

    async def exec(self, cid: str, argv: Any, *, timeout: Any = None, max_output: int = 0) -> ExecResult:
        self.commands.append(list(argv))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return ExecResult(code=answer or 0, stdout=b"out", stderr=b"", truncated=False, timed_out=answer is None)


def probe_of(**fields: Any) -> Probe:
    return msgspec.convert(fields, Probe)


def check(probe: Probe, runtime: Any = None) -> Answer:
    return asyncio.run(checks.check(runtime or FakeRuntime(0), probe, CONTAINER, "id", "127.0.0.1"))


EXEC = {"command": ["sh", "-c", "$(X) $(Y) $$(X)"]}


@pytest.mark.parametrize(
    ("answers", "outcome", "text", "runs"),
    [
        ([0], Outcome.SUCCESS, "out", 1),
        ([3], Outcome.FAILURE, "out", 1),
        ([None], Outcome.FAILURE, 'command timed out: "sh -c 1 $(Y) $(X)" timed out after 2s', 1),
        ([ExecError("no such file")], Outcome.UNKNOWN, "no such file", 3),
        ([ExecError("for a moment"), 0], Outcome.SUCCESS, "out", 2),
    ],
)
def test_exec_probes(answers, outcome, text, runs):
    runtime = FakeRuntime(*answers)
    assert check(probe_of(exec=EXEC, timeoutSeconds=2), runtime) == Answer(outcome, text)
    assert runtime.commands == [["sh", "-c", "1 $(Y) $(X)"]] * runs


@pytest.mark.parametrize(
    "handler", [{"httpGet": {"port": "none"}}, {"tcpSocket": {"port": "none"}}, {"httpGet": {"port": 0}}]
)
def test_ports_that_do_not_exist_say_nothing_of_the_container(handler):
    assert check(probe_of(**handler)).outcome is Outcome.UNKNOWN


def test_refused_connections_in_gos_words():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    expected = f"dial tcp 127.0.0.1:{port}: connect: connection refused"
    assert check(probe_of(tcpSocket={"port": port})) == Answer(Outcome.FAILURE, expected)
    url = f'Get "http://127.0.0.1:{port}/": '
    assert check(probe_of(httpGet={"port": port})) == Answer(Outcome.FAILURE, url + expected)


def with_server(
    body: Callable[[int, list[web.Request]], Awaitable[None]], tls: ssl.SSLContext | None = None
) -> list[web.Request]:
    """Run a server that answers by its path: /200, /500, /to?URL (redirects), /big, /slow."""
    seen: list[web.Request] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        seen.append(request)
        word = request.path.strip("/")
        if word == "to":
            return web.Response(status=302, headers={"Location": request.query_string}, text="Found")
        if word == "big":
            return web.Response(text="x" * 100_000)
        if word == "slow":
            await asyncio.sleep(30)
        return web.Response(status=int(word) if word.isdecimal() else 200, text=f"at {request.path_qs}")

    async def main() -> None:
        app = web.Application()
        app.router.add_route("*", "/{rest:.*}", handle)
        server = web.AppRunner(app, shutdown_timeout=0.1)
        await server.setup()
        site = web.TCPSite(server, "127.0.0.1", 0, ssl_context=tls)
        await site.start()
        try:
            await body(server.addresses[0][1], seen)
        finally:
            await server.cleanup()

    asyncio.run(main())
    return seen


def test_http_probes():
    async def body(port: int, seen: list[web.Request]) -> None:
        async def ask(path: str, timeout: int = 5, **more: Any) -> Answer:
            probe = probe_of(httpGet={"port": port, "path": path, **more}, timeoutSeconds=timeout)
            return await checks.check(FakeRuntime(0), probe, CONTAINER, "id", "127.0.0.1")

        assert await ask("/200?a=b%2Fc") == Answer(Outcome.SUCCESS, "at /200?a=b%2Fc")
        assert await ask("relative") == Answer(Outcome.SUCCESS, "at /relative")
        assert await ask("/500") == Answer(Outcome.FAILURE, "HTTP probe failed with statuscode: 500")
        assert await ask("/304") == Answer(Outcome.WARNING, "Probe terminated redirects, Response body: ")
        assert await ask("/to?/200") == Answer(Outcome.SUCCESS, "at /200")
        assert await ask("/to?/404") == Answer(Outcome.FAILURE, "HTTP probe failed with statuscode: 404")
        away = Answer(Outcome.WARNING, "Probe terminated redirects, Response body: Found")
        assert await ask("/to?http://192.0.2.1/") == away
        assert (await ask(f"/to?http://127.0.0.1:{port}/200")).ok, "the same host"
        assert len((await ask("/big")).text) <= 10240
        late = await ask("/slow", timeout=1)
        assert late.text.endswith("context deadline exceeded (Client.Timeout exceeded while awaiting headers)")
        seen.clear()
        headers = [{"name": "Host", "value": "example.com"}, {"name": "X", "value": "1"}, {"name": "X", "value": "2"}]
        assert (await ask("/200", httpHeaders=headers)).ok
        got = seen[0].headers
        assert (got["Host"], got["User-Agent"], got["Accept"]) == ("example.com", "kube-probe/1.36", "*/*")
        assert got.getall("X") == ["1", "2"]
        assert "Accept-Encoding" not in got
        seen.clear()
        mine = [{"name": "user-agent", "value": "me"}, {"name": "Accept", "value": ""}]
        assert (await ask("/200", httpHeaders=mine)).ok
        assert seen[0].headers["User-Agent"] == "me"
        assert "Accept" not in seen[0].headers

    with_server(body)


def test_too_many_redirects():
    async def body(port: int, seen: list[web.Request]) -> None:
        probe = probe_of(httpGet={"port": port, "path": "/to?" * 20})
        answer = await checks.check(FakeRuntime(0), probe, CONTAINER, "id", "127.0.0.1")
        assert answer.outcome is Outcome.FAILURE
        assert "stopped after 10 redirects" in answer.text
        assert len(seen) == 10

    with_server(body)


def test_https_probes_and_hooks(tmp_path: Path):
    certificate, key = selfsigned.ensure(tmp_path, "node", ["192.0.2.1"])
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)

    async def body(port: int, seen: list[web.Request]) -> None:
        probe = probe_of(httpGet={"port": port, "scheme": "HTTPS"}, timeoutSeconds=5)
        assert (await checks.check(FakeRuntime(0), probe, CONTAINER, "id", "127.0.0.1")).ok
        assert (await hook({"httpGet": {"port": port, "scheme": "HTTPS"}}))[0].ok
        plain = probe_of(httpGet={"port": port}, timeoutSeconds=5)
        answer = await checks.check(FakeRuntime(0), plain, CONTAINER, "id", "127.0.0.1")
        assert answer.outcome is Outcome.FAILURE

    with_server(body, tls)


async def hook(handler: dict[str, Any], runtime: Any = None) -> tuple[Answer, list[str]]:
    told: list[str] = []
    spec = msgspec.convert(handler, LifecycleHandler)
    found = await hooks.run(
        runtime or FakeRuntime(0), spec, CONTAINER, "id", "127.0.0.1", "p_ns(u)", lambda *event: told.append(event[1])
    )
    return found, told


def test_hooks():
    async def body(port: int, seen: list[web.Request]) -> None:
        assert (await hook({"httpGet": {"port": port, "path": "/500"}}))[0].ok, "any answer will do"
        assert seen[-1].headers["User-Agent"] == "kube-lifecycle/1.36"
        answer, told = await hook({"httpGet": {"port": port, "scheme": "HTTPS"}})
        assert answer.ok
        assert told == ["LifecycleHTTPFallback"]
        answer, _ = await hook({"httpGet": {"port": 1, "path": "/x"}})
        assert answer.text.startswith('HTTP lifecycle hook (/x) for Container "a" in Pod "p_ns(u)" failed - error: Get')
        answer, _ = await hook({"exec": {"command": ["a", "b"]}}, FakeRuntime(1))
        assert answer.text.startswith('Exec lifecycle hook ([a b]) for Container "a" in Pod "p_ns(u)" failed')
        assert not (await hook({"tcpSocket": {"port": port}}))[0].ok, "upstream refuses it, too"
        assert (await hook({"sleep": {"seconds": 0}}))[0].ok

    with_server(body)


class Watched:
    """A runner in virtual time, whose runtime answers by a script."""

    def __init__(self, *answers: int | Exception | None, started: float = 0.0, **probes: Any) -> None:
        self.runtime, self.events, self.woken = FakeRuntime(*answers), FakeEvents(), 0
        self.runner = runner.ProbeRunner(self.runtime, self.events, clock, "192.0.2.1", self._wake)
        self.pod = make_pod({"name": "a", **probes})
        self.run = Instance("id", "a", 0, state="running", started_at=START + started)
        self.runner.start(self.pod, self.pod.spec.containers[0], self.run, ("10.0.0.1",))

    def _wake(self, cid: str) -> None:
        self.woken += 1

    @property
    def asked(self) -> int:
        return len(self.runtime.commands)


def watched(*answers: Any, **given: Any) -> Callable[[Callable[[Watched], Awaitable[None]]], None]:
    def run(body: Callable[[Watched], Awaitable[None]]) -> None:
        async def main() -> None:
            one = Watched(*answers, **given)
            try:
                await body(one)
            finally:
                one.runner.stop(one.run)

        run_virtual(main())

    return run


def script(**more: Any) -> dict[str, Any]:
    return {"exec": {"command": ["x"]}, **more}


def test_thresholds_delay_and_period():
    probe = script(initialDelaySeconds=5, periodSeconds=3, failureThreshold=2, successThreshold=1)

    @watched(1, 1, 0, 1, readinessProbe=probe)
    async def _(one: Watched) -> None:
        await asyncio.sleep(4.9)
        assert one.asked == 0
        await asyncio.sleep(0.2)
        assert (one.asked, one.run.readiness) == (1, None)
        await asyncio.sleep(3)
        assert (one.asked, one.run.readiness) == (2, False)
        await asyncio.sleep(3)
        assert (one.asked, one.run.readiness, one.woken) == (3, True, 2)
        await asyncio.sleep(6)
        assert one.run.readiness is False
        assert one.events.seen[0] == ("Warning", "Unhealthy", "Readiness probe failed: out")


def test_the_startup_probe_gates_the_others_and_readiness_follows_at_once():
    probes = {
        "startupProbe": script(periodSeconds=10, failureThreshold=3),
        "readinessProbe": script(periodSeconds=100),
        "livenessProbe": script(periodSeconds=100),
    }

    @watched(1, 0, **probes)
    async def _(one: Watched) -> None:
        await asyncio.sleep(9)
        assert (one.asked, one.run.startup, one.run.readiness) == (1, None, None)
        await asyncio.sleep(2)
        assert (one.run.startup, one.run.readiness, one.run.liveness) == (True, True, True)
        assert one.asked == 4
        await asyncio.sleep(50)
        assert one.asked == 4, "the startup probe does not go on"


def test_a_failed_liveness_probe_stops():
    @watched(1, livenessProbe=script(periodSeconds=1, failureThreshold=2))
    async def _(one: Watched) -> None:
        await asyncio.sleep(10)
        assert (one.asked, one.run.liveness) == (2, False)


def test_what_could_not_be_tried_does_not_count():
    @watched(ExecError("no runtime"), livenessProbe=script(periodSeconds=1, failureThreshold=1))
    async def _(one: Watched) -> None:
        await asyncio.sleep(5.5)
        assert one.run.liveness is None
        assert one.asked == 18
        message = "Liveness probe errored and resulted in unknown state: no runtime"
        assert one.events.seen[0] == ("Warning", "Unhealthy", message)


def test_only_readiness_goes_on_while_the_pod_terminates():
    probes = {"readinessProbe": script(periodSeconds=1), "livenessProbe": script(periodSeconds=1)}

    @watched(0, **probes)
    async def _(one: Watched) -> None:
        await asyncio.sleep(0.5)
        one.runner.stop(one.run, readiness=False)
        before = one.asked
        await asyncio.sleep(3)
        assert one.asked == before + 3
        one.runner.stop(one.run)
        await asyncio.sleep(3)
        assert one.asked == before + 3


def test_a_restarted_agent_spreads_its_first_probes():
    @watched(0, readinessProbe=script(periodSeconds=100), started=-1000.0)
    async def _(one: Watched) -> None:
        await asyncio.sleep(0)
        assert one.asked == 0
        await asyncio.sleep(100)
        assert one.asked == 1


def test_metrics_of_probes():
    @watched(0, 0, 1, ExecError("x"), readinessProbe=script(periodSeconds=1))
    async def _(one: Watched) -> None:
        await asyncio.sleep(3.5)
        text = one.runner.metrics.text()
        labels = 'container="a",namespace="ns",pod="pod",pod_uid="uid-1",probe_type="Readiness"'
        assert f'prober_probe_total{{{labels},result="successful"}} 2\n' in text
        assert f'prober_probe_total{{{labels},result="failed"}} 1\n' in text
        assert f'prober_probe_total{{{labels},result="unknown"}} 1\n' in text
        shared = 'container="a",namespace="ns",pod="pod",probe_type="Readiness"'
        assert f"prober_probe_duration_seconds_count{{{shared}}} 3\n" in text
        one.runner.forget("uid-1")
        assert one.runner.metrics.text() == ""
