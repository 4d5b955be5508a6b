"""apps/v1 DaemonSets change hands between kube-controller-manager and ours, which has the rights that `up` gives it."""

import asyncio
import contextlib

import pytest

from differential.daemonsets.picture import HASH, revision_hash
from differential.daemonsets.processes import DAEMONSETS, ControllerManager
from differential.daemonsets.side import LONG_AGO, Side
from differential.daemonsets.table import ODD, image
from nodewright.controllers.daemonset.apps import AppsDaemonSetController
from nodewright.controllers.daemonset.controller import DaemonSetController
from nodewright.framework.process import Options
from nodewright.kube.client import PatchType
from nodewright.kube.resources import APPS_DAEMONSETS, CONTROLLERREVISIONS, EVENTS, PODS
from support.operator_thread import OperatorThread

pytestmark = [pytest.mark.needs_cluster, pytest.mark.timeout(300)]
DAEMONSET = {
    "metadata": {"name": "ds", "annotations": {"why": "to see"}},
    "spec": {
        "selector": {"matchLabels": {"app": "ds"}},
        "template": ODD,
        "updateStrategy": {"rollingUpdate": {"maxUnavailable": "100%"}},
    },
}

# No node is like this; its status is all that there is to see.
FRESH = {
    "metadata": {"name": "fresh"},
    "spec": {
        "selector": {"matchLabels": {"app": "fresh"}},
        "template": {
            "metadata": {"labels": {"app": "fresh"}},
            "spec": {"nodeSelector": {"no": "node"}, "containers": [{"name": "c", "image": "i"}]},
        },
    },
}


class Hands:
    """A cluster whose DaemonSets change hands."""

    def __init__(self, cluster, binary, log):
        self.cluster = cluster
        self._binary = binary
        self._log = log
        self.side = Side("apps", cluster.kubeconfig)

    @contextlib.asynccontextmanager
    async def theirs(self):
        with ControllerManager(self._binary, self.cluster, self._log, DAEMONSETS):
            await self.side.barrier(60)
            yield

    @contextlib.asynccontextmanager
    async def ours(self, *controllers):
        options = Options(kubeconfig=self.cluster.layout.kubeconfig("operator"), leader_elect=False, metrics_port=None)
        thread = OperatorThread(options, controllers or [AppsDaemonSetController, DaemonSetController])
        try:
            await thread.wait_started()
            await self.side.barrier()
            yield
        finally:
            await thread.stop()

    async def rest(self):
        """Until nothing has changed for a while."""
        await self.side.caught_up()
        await self.side.barrier()
        await self.side.quiet(0.3)

    async def roll(self, name):
        """Another image, rolled out."""
        await self.side.patch(APPS_DAEMONSETS, "ds", image(name))
        await self.rest()
        await self.make_ready()

    async def make_ready(self):
        for pod in self.side.all(PODS):
            await self.side.set_status(pod, "Running", LONG_AGO)
        await self.rest()

    def owned(self):
        """What must stay as it is: Pods and revisions, to the last byte of what somebody could have changed."""
        kept = (*self.side.all(PODS), *self.side.all(CONTROLLERREVISIONS))
        metas = [o["metadata"] for o in kept if o["metadata"]["labels"]["app"] == "ds"]
        return [(meta["uid"], meta["resourceVersion"]) for meta in metas]


@pytest.fixture
async def hands(make_cluster, start_cluster, binaries, tmp_path):
    cluster = make_cluster("apps")
    await asyncio.to_thread(start_cluster, cluster)
    hands = Hands(cluster, binaries["kube-controller-manager"], tmp_path / "kube-controller-manager.log")
    await hands.side.start()
    hands.side.namespace = "apps"
    await hands.side.make_namespace("apps")
    for zone in "ab":
        await hands.side.add_node({"zone": zone}, [])
    yield hands
    await hands.side.stop()


async def test_there_and_back_again(hands):
    side = hands.side
    async with hands.theirs():
        await side.create(APPS_DAEMONSETS, DAEMONSET)
        await hands.rest()
        await hands.make_ready()
        await hands.roll("v2")
        await hands.roll("v3")
        numbers = [r["revision"] for r in side.all(CONTROLLERREVISIONS)]
        assert sorted(numbers) == [1, 2, 3]
        assert len(side.all(PODS)) == 2
    before, status = hands.owned(), side.daemonset()["status"]
    async with hands.ours():
        await hands.rest()
        assert hands.owned() == before
        assert side.daemonset()["status"] == status
        # an older template, which it must find among the revisions of the other, and a new one
        oldest = min(side.all(CONTROLLERREVISIONS), key=lambda r: r["revision"])
        await side.patch(APPS_DAEMONSETS, "ds", oldest["data"], PatchType.STRATEGIC)
        await hands.rest()
        await hands.make_ready()
        assert sorted(r["revision"] for r in side.all(CONTROLLERREVISIONS)) == [2, 3, 4]
        assert {p["metadata"]["labels"][HASH] for p in side.all(PODS)} == {revision_hash(oldest)}
        await hands.roll("v4")
        assert sorted(r["revision"] for r in side.all(CONTROLLERREVISIONS)) == [2, 3, 4, 5]
    before, status = hands.owned(), side.daemonset()["status"]
    async with hands.theirs():
        await hands.rest()
        assert hands.owned() == before
        assert side.daemonset()["status"] == status
        await hands.roll("v3")
        assert sorted(r["revision"] for r in side.all(CONTROLLERREVISIONS)) == [2, 4, 5, 6]
    before = hands.owned()
    async with hands.ours():
        await hands.rest()
        assert hands.owned() == before
    assert not [event for event in side.all(EVENTS) if event["reason"] == "TwoControllers"]


async def test_two_controllers_are_noticed_and_ours_steps_back(hands):
    side = hands.side

    def warnings():
        return [event for event in side.all(EVENTS) if event["reason"] == "TwoControllers"]

    async with hands.ours(AppsDaemonSetController):
        await side.create(APPS_DAEMONSETS, DAEMONSET)
        await hands.rest()
        async with hands.theirs():
            number = 1
            while not warnings():  # which of them writes the status first is a matter of luck
                number += 1
                await hands.roll(f"v{number}")
        (warning,) = warnings()
        assert warning["type"] == "Warning"
        assert warning["source"]["component"] == "daemonset-controller"
        assert "Switch off its daemonset-controller" in warning["message"]
        # the other is gone now, and yet ours leaves the DaemonSet alone for a while
        before = hands.owned()
        await side.patch(APPS_DAEMONSETS, "ds", image("left-alone"))
        # One that the other has never seen is served: so ours has looked at what was changed before it was made.
        await side.create(APPS_DAEMONSETS, FRESH)
        await side.until(lambda: (side.daemonset("fresh") or {}).get("status", {}).get("observedGeneration"), "fresh")
        await side.quiet(0.3)
        assert hands.owned() == before
        assert side.daemonset()["status"]["observedGeneration"] < side.daemonset()["metadata"]["generation"]
    # started anew, it takes what was written before for history, and goes on
    async with hands.ours(AppsDaemonSetController):

        def is_done():
            images = {pod["spec"]["containers"][0]["image"] for pod in side.all(PODS)}
            return images == {"left-alone"} and len(side.all(PODS)) == 2

        await side.until(is_done, "ours has rolled out the last template")
