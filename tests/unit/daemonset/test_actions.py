import asyncio
import contextlib

import pytest

from nodewright.controllers.daemonset.actions import PROVEN, PodActions, nameless, slow_start
from nodewright.controllers.daemonset.kinds import NODEWRIGHT
from support.daemonset_objects import daemonset


class Batches:
    """Records how many were in flight together; fails for the given items."""

    def __init__(self, failing=()):
        self.failing = set(failing)
        self.done = []
        self.sizes = []
        self._running = 0

    async def __call__(self, item):
        self._running += 1
        await asyncio.sleep(0)
        if self._running:
            self.sizes.append(self._running)
            self._running = 0
        self.done.append(item)
        if item in self.failing:
            raise RuntimeError(item)


async def test_batches_double():
    act = Batches()
    assert await slow_start(range(20), act) == []
    assert act.sizes == [1, 2, 4, 8, 5]
    assert act.done == list(range(20))


@pytest.mark.parametrize(("failing", "tried"), [([0], 1), ([1], 3), ([4], 7)])
async def test_the_first_batch_with_a_failure_is_the_last(failing, tried):
    act = Batches(failing)
    errors = await slow_start(range(20), act)
    assert [str(e) for e in errors] == [str(f) for f in failing]
    assert len(act.done) == tried


async def test_the_first_batch_may_be_larger():
    act = Batches([3])
    errors = await slow_start(range(20), act, 4)
    assert [str(e) for e in errors] == ["3"]
    assert act.sizes == [4]


class Recorded(PodActions):
    """Notes the batches that pods are made in, and makes none."""

    def __init__(self, failing=()):
        super().__init__(object(), NODEWRIGHT, None, None, None)
        self.batches = Batches(failing)

    async def _create(self, ds, maker, node):
        await self.batches(node)


async def test_only_a_spec_that_worked_last_time_starts_with_many():
    nodes, ds = [str(i) for i in range(40)], daemonset()
    actions = Recorded(failing=["bad"])
    starts = []
    for generation, items in ((1, nodes), (1, nodes), (2, nodes), (2, []), (2, [*nodes, "bad"]), (2, nodes)):
        ds.metadata.generation = generation
        actions.batches.sizes.clear()
        with contextlib.suppress(RuntimeError):
            await actions.apply(ds, None, items, [])
        starts += actions.batches.sizes[:1]
    assert starts == [1, PROVEN, 1, PROVEN, 1]
    actions.forget(ds.key)
    assert actions._proven == {}


async def test_nothing_to_do():
    assert await slow_start([], Batches()) == []


def test_generated_names_are_left_out_of_messages():
    assert nameless('Pod "ds-x7k2p" is invalid: "other-x7k2p"', "ds") == 'Pod "ds-" is invalid: "other-x7k2p"'
    assert nameless('pods "a.b-00000" is forbidden', "a.b") == 'pods "a.b-" is forbidden'
