"""One proxy for each network namespace."""

from __future__ import annotations

import asyncio

import pytest

from nodewright_agent.proxy.onlyone import OnlyOne
from support.network import own_namespace

pytestmark = pytest.mark.needs_root


def test_it_is_for_one_and_for_each_network_namespace() -> None:
    with own_namespace():
        first, second = OnlyOne(), OnlyOne()
        assert first.take()
        assert first.take(), "it has it already"
        assert not second.take()
        with own_namespace():
            elsewhere = OnlyOne()
            assert elsewhere.take()
            elsewhere.release()
        first.release()
        first.release()
        assert second.take()
        second.release()


async def test_a_second_one_waits_and_is_told_once() -> None:
    with own_namespace():
        first, second = OnlyOne(), OnlyOne()
        told: list[str] = []
        await first.wait(lambda: told.append("first"))
        waiting = asyncio.create_task(second.wait(lambda: told.append("second")))
        await asyncio.sleep(0.6)
        assert not waiting.done()
        first.release()
        await asyncio.wait_for(waiting, 5)
        second.release()
    assert told == ["second"]
