import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nodewright.framework.queue import QueueShutDown, WorkQueue
from nodewright.framework.ratelimit import ItemBackoff, RetryLimiter, TokenBucket


async def test_a_key_waits_once_and_in_order():
    queue = WorkQueue("t")
    for key in ("a", "b", "a", "c", "b"):
        queue.add(key)
    assert len(queue) == 3
    assert [await queue.get() for _ in range(3)] == ["a", "b", "c"]


async def test_a_key_added_while_in_work_comes_back_after_done():
    queue = WorkQueue("t")
    queue.add("a")
    assert await queue.get() == "a"
    queue.add("a")
    queue.add("a")
    assert len(queue) == 0
    assert not queue.idle
    queue.done("a")
    assert len(queue) == 1
    assert await queue.get() == "a"
    queue.done("a")
    assert queue.idle


async def test_getters_wait_and_are_woken_one_by_one():
    queue = WorkQueue("t")
    getters = [asyncio.create_task(queue.get()) for _ in range(2)]
    await asyncio.sleep(0)
    queue.add("a")
    done, pending = await asyncio.wait(getters, return_when=asyncio.FIRST_COMPLETED)
    assert [task.result() for task in done] == ["a"]
    assert len(pending) == 1
    queue.add("b")
    assert await pending.pop() == "b"


async def test_a_cancelled_getter_passes_its_wake_up_on():
    queue = WorkQueue("t")
    first = asyncio.create_task(queue.get())
    second = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.add("a")  # wakes the first, which is cancelled before it runs
    first.cancel()
    assert await second == "a"
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_the_earliest_delayed_add_counts():
    queue = WorkQueue("t")
    queue.add_after("a", 3600)
    queue.add_after("a", 0.001)
    queue.add_after("a", 3600)
    assert len(queue) == 0
    assert await queue.get() == "a"
    assert not queue._timers


async def test_delay_zero_adds_at_once():
    queue = WorkQueue("t")
    queue.add_after("a", 0)
    assert len(queue) == 1


async def test_rate_limited_adds_count_failures_until_forgotten():
    limiter = RetryLimiter(ItemBackoff(0.001, 1), TokenBucket(1e6, 1000))
    queue = WorkQueue("t", limiter=limiter)
    assert queue.add_rate_limited("a") == 0.001
    assert await queue.get() == "a"
    queue.done("a")
    assert queue.add_rate_limited("a") == 0.002
    assert queue.failures("a") == 2
    queue.forget("a")
    assert queue.failures("a") == 0
    queue.shut_down()


async def test_shut_down_wakes_getters_and_ignores_adds():
    queue = WorkQueue("t")
    getter = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.add_after("later", 3600)
    queue.shut_down()
    with pytest.raises(QueueShutDown):
        await getter
    queue.add("a")
    queue.add_after("a", 1)
    assert len(queue) == 0
    with pytest.raises(QueueShutDown):
        await queue.get()


@settings(max_examples=50)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["add", "yield"])), max_size=40), st.integers(1, 4))
def test_no_key_is_lost_or_worked_on_twice_at_once(steps, workers):
    async def scenario():
        queue = WorkQueue("t")
        in_work: set[str] = set()
        version = dict.fromkeys("abc", 0)
        handled = dict.fromkeys("abc", 0)

        async def work():
            while True:
                key = await queue.get()
                assert key not in in_work
                in_work.add(key)
                seen = version[key]
                await asyncio.sleep(0)
                handled[key] = seen
                in_work.discard(key)
                queue.done(key)

        tasks = [asyncio.create_task(work()) for _ in range(workers)]
        for key, step in steps:
            if step == "add":
                version[key] += 1
                queue.add(key)
            else:
                await asyncio.sleep(0)
        for _ in range(200):
            await asyncio.sleep(0)
        assert queue.idle
        assert handled == version  # the last change of every key was seen by a later piece of work
        queue.shut_down()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(r, QueueShutDown) for r in results)

    asyncio.run(scenario())
