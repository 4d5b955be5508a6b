"""apps/v1 DaemonSets, where `--take-over apps/v1` has this controller serve them in place of upstream's."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from typing import ClassVar

from nodewright.controllers.daemonset.actions import reference
from nodewright.controllers.daemonset.controller import DaemonSetController
from nodewright.controllers.daemonset.kinds import APPS, Kind
from nodewright.controllers.daemonset.model import DaemonSet
from nodewright.controllers.daemonset.rivals import Rivals
from nodewright.framework.controller import Result
from nodewright.kube.client import Client
from nodewright.kube.times import now as wall_clock

TWO_CONTROLLERS = (
    "kube-controller-manager serves this DaemonSet too; it is left alone until a minute after the other's last write. "
    "Switch off its daemonset-controller, or start nodewright without --take-over apps/v1."
)


class AppsDaemonSetController(DaemonSetController):
    """The same rules for the other kind, and a truce with upstream's controller where that is still on."""

    name: ClassVar[str] = APPS.controller
    component: ClassVar[str] = "daemonset-controller"  # as upstream's, for those who read events
    kind: ClassVar[Kind] = APPS

    def __init__(self, client: Client, *, identity: str = "", now: Callable[[], datetime] = wall_clock) -> None:
        """As its base."""
        super().__init__(client, identity=identity, now=now)
        self._rivals = Rivals()

    async def reconcile(self, key: str) -> Result | None:
        """Reconcile, unless upstream's controller does."""
        ds = self.daemonsets.get(key)
        if ds is None:
            self._rivals.forget(key)
        elif wait := self._truce(ds):
            return Result(requeue_after=wait)
        return await super().reconcile(key)

    def _truce(self, ds: DaemonSet) -> float:
        wait, is_news = self._rivals.look(ds, time.monotonic())
        if is_news:
            self.events.event(reference(self.kind, ds), "Warning", "TwoControllers", TWO_CONTROLLERS)
            self.log.warning("kube-controller-manager has written the status too: left alone for %.0f s", wait)
        return wait
