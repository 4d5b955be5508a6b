"""Which backend a proxy takes, and what becomes of a wish that cannot be had."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from nodewright_agent.proxy import switching
from nodewright_agent.proxy.backends.base import BackendError
from nodewright_agent.proxy.config import ProxyConfig
from nodewright_agent.proxy.detect import ProxyModeError
from nodewright_agent.proxy.switching import ModeSwitch
from nodewright_agent.proxy.wishes import MODE, SCHEDULER, Wish, Wishes


class Made:
    """A backend, as far as choosing goes."""

    def __init__(self, name: str, options: Any) -> None:
        self.name, self.scheduler = name, options.ipvs_scheduler


class Syncer:
    def __init__(self) -> None:
        self.switches: list[tuple[str, str, bool]] = []
        self.error: Exception | None = None

    async def switch(self, backend: Made, *, take_over: bool) -> None:
        if self.error is not None:
            raise self.error
        self.switches.append((backend.name, backend.scheduler, take_over))


class Bench:
    def __init__(self, **config: Any) -> None:
        self.missing: dict[str, str] = {"iptables": "not there"}
        self.no_schedulers: set[str] = set()
        self.wishes, self.syncer = Wishes(), Syncer()
        self.events: list[tuple[str, str, str]] = []
        self.switch = ModeSwitch(
            ProxyConfig("n", **config),
            self.wishes,
            lambda *event: self.events.append(event),
            probes={name: lambda name=name: self.missing.get(name) for name in ("ipvs", "nftables", "iptables")},
            scheduler_probe=lambda name: "no such module" if name in self.no_schedulers else None,
            make=Made,  # type: ignore[arg-type]
        )

    async def first(self, wish: Wish = Wish()) -> Made:  # noqa: B008 - a tuple
        self.wishes.want(wish)
        return await self.switch.first()  # type: ignore[return-value]

    async def change(self, wish: Wish) -> None:
        self.wishes.want(wish)
        await self.switch.change(await self.wishes.next(), self.syncer)

    @property
    def now(self) -> tuple[str, str, dict[str, str]]:
        answer = self.wishes.answer
        assert answer is not None
        return answer.choice.mode, answer.scheduler, dict(answer.problems)


async def test_the_configuration_stands_where_nobody_wishes():
    bench = Bench(mode="nftables")
    assert (await bench.first()).name == "nftables"
    assert bench.now == ("nftables", "", {})


async def test_a_proxy_starts_with_what_is_wished():
    bench = Bench(mode="nftables")
    made = await bench.first(Wish("ipvs", "wlc", "fast"))
    assert (made.name, made.scheduler) == ("ipvs", "wlc")
    assert bench.wishes.answer.choice.reason == "chosen by NodeAgentConfig fast"
    assert not bench.wishes.pending


async def test_services_do_not_wait_long_for_settings(monkeypatch):
    monkeypatch.setattr(switching, "PATIENCE", 0.01)
    bench = Bench()
    assert (await bench.switch.first()).name == "ipvs"


async def test_an_impossible_wish_at_the_start_is_said_and_the_configuration_stands():
    bench = Bench(mode="nftables")
    assert (await bench.first(Wish("iptables"))).name == "nftables"
    mode, _, problems = bench.now
    assert mode == "nftables"
    assert "proxy mode iptables cannot be used: not there; nftables is used" in problems[MODE]
    assert [event[:2] for event in bench.events] == [("Warning", "ProxyModeNotPossible")]


async def test_an_impossible_configuration_fails_as_without_wishes():
    bench = Bench(mode="iptables")
    with pytest.raises(ProxyModeError):
        await bench.first()


async def test_modes_are_switched_and_back():
    bench = Bench(mode="nftables")
    await bench.first()
    await bench.change(Wish("ipvs", None, "c"))
    assert bench.now == ("ipvs", "rr", {})
    await bench.change(Wish())
    assert bench.now == ("nftables", "", {})
    assert bench.syncer.switches == [("ipvs", "rr", False), ("nftables", "rr", False)]
    assert [reason for _, reason, _ in bench.events] == ["ProxyModeSwitched", "ProxyModeSwitched"]
    assert "ipvs (rr): chosen by NodeAgentConfig c (before: nftables)" in bench.events[0][2]


async def test_another_scheduler_takes_the_rules_over():
    bench = Bench(mode="ipvs")
    await bench.first()
    await bench.change(Wish(None, "sh"))
    assert bench.syncer.switches == [("ipvs", "sh", True)]
    assert bench.now == ("ipvs", "sh", {})


async def test_a_scheduler_that_the_kernel_lacks_changes_nothing():
    bench = Bench(mode="ipvs")
    bench.no_schedulers = {"mh"}
    await bench.first()
    await bench.change(Wish(None, "sh"))
    await bench.change(Wish(None, "mh"))
    assert bench.syncer.switches == [("ipvs", "sh", True)]
    mode, scheduler, problems = bench.now
    assert (mode, scheduler) == ("ipvs", "sh")
    assert problems == {SCHEDULER: "IPVS scheduler mh cannot be used: no such module; sh is used"}


async def test_a_scheduler_means_nothing_in_other_modes():
    bench = Bench(mode="nftables")
    await bench.first()
    await bench.change(Wish("nftables", "sh", "c"))
    assert bench.syncer.switches == []
    assert bench.now == ("nftables", "", {})
    assert bench.wishes.answer.choice.reason == "chosen by NodeAgentConfig c"


async def test_what_fails_while_it_is_programmed_is_said_and_said_once():
    bench = Bench(mode="nftables")
    await bench.first()
    bench.syncer.error = BackendError("no room")
    await bench.change(Wish("ipvs", None, "c"))
    assert bench.now == (
        "nftables",
        "",
        {MODE: "ipvs could not be programmed: no room; nftables stays in use"},
    )
    await bench.change(Wish("ipvs", None, "d"))
    assert [event[:2] for event in bench.events] == [("Warning", "ProxyModeNotPossible")]
    bench.syncer.error = None
    await bench.change(Wish("ipvs", None, "e"))
    assert bench.now == ("ipvs", "rr", {})


async def test_of_wishes_in_quick_succession_the_last_counts():
    bench = Bench(mode="nftables")
    await bench.first()
    following = asyncio.create_task(bench.switch.follow(bench.syncer))
    for mode in ("ipvs", "nftables", "ipvs"):
        bench.wishes.want(Wish(mode))
    assert bench.wishes.pending
    answered = asyncio.Event()
    bench.wishes.on_answer(answered.set)
    async with asyncio.timeout(5):
        await answered.wait()
    assert bench.syncer.switches == [("ipvs", "rr", False)]
    assert not bench.wishes.pending
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)


async def test_auto_beside_another_proxy_prefers_nftables():
    bench = Bench(mode="nftables", service_proxy_name="ours")
    await bench.first(Wish("auto"))
    assert bench.now[0] == "nftables"
