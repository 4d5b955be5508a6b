import pytest

from nodewright.controllers.daemonset.apps import AppsDaemonSetController
from nodewright.controllers.daemonset.caches import Caches
from nodewright.controllers.daemonset.controller import DaemonSetController
from nodewright.controllers.daemonset.model import DaemonSet, DaemonSetMeta, FieldManager
from nodewright.controllers.daemonset.rivals import PAUSE, Rivals, last_write


def daemonset(*managers, uid="u1"):
    entries = [FieldManager(manager, subresource, time) for manager, subresource, time in managers]
    return DaemonSet(metadata=DaemonSetMeta(name="ds", namespace="ns", uid=uid, managed_fields=entries))


def written(second, manager="kube-controller-manager", subresource="status"):
    return (manager, subresource, f"2026-01-01T00:00:{second:02}Z")


NOTHING = daemonset()
OLD = daemonset(written(1))


def test_history_is_no_rival():
    rivals = Rivals()
    assert rivals.look(OLD, 0) == (0, False)
    assert rivals.look(OLD, 1000) == (0, False)


@pytest.mark.parametrize("before", [NOTHING, OLD], ids=["never wrote", "wrote before"])
@pytest.mark.parametrize("manager", ["kube-controller-manager", "k3s"])
def test_a_later_write_is(before, manager):
    rivals = Rivals()
    rivals.look(before, 0)
    after = daemonset(written(2, manager))
    assert rivals.look(after, 10) == (PAUSE, True)
    assert rivals.look(after, 11) == (PAUSE - 1, False)
    assert rivals.look(after, 10 + PAUSE) == (0, False)


def test_it_is_told_once_while_it_goes_on():
    rivals = Rivals()
    rivals.look(OLD, 0)
    assert rivals.look(daemonset(written(2)), 0) == (PAUSE, True)
    assert rivals.look(daemonset(written(3)), 30) == (PAUSE, False)
    assert rivals.look(daemonset(written(4)), 200) == (PAUSE, True)


@pytest.mark.parametrize(
    "other",
    [
        written(9, "nodewright-operator"),
        written(9, "e2e.test"),
        written(9, subresource=""),  # the garbage collector is a part of kube-controller-manager, too
    ],
)
def test_writes_of_others_do_not_count(other):
    rivals = Rivals()
    rivals.look(OLD, 0)
    assert rivals.look(daemonset(written(1), other), 1) == (0, False)


def test_another_daemonset_under_the_name_starts_over():
    rivals = Rivals()
    rivals.look(OLD, 0)
    assert rivals.look(daemonset(written(5), uid="u2"), 1) == (0, False)
    rivals.forget("ns/ds")
    assert rivals.look(daemonset(written(7), uid="u2"), 1) == (0, False)


def test_the_newest_of_several_writes_counts():
    assert last_write(daemonset(written(3, "k3s"), written(1), ("kube-controller-manager", "status", None))) == (
        "2026-01-01T00:00:03Z"
    )


def test_caches_are_shared_by_client_and_not_kept():
    client = object()
    first = Caches.of(client)
    assert Caches.of(client) is first
    assert Caches.of(object()) is not first
    del first
    assert Caches.of(client).pods is not None


def test_the_controllers_of_both_kinds_share_all_but_their_daemonsets():
    client = object()
    both = [make(client) for make in (AppsDaemonSetController, DaemonSetController)]
    assert both[0].pods is both[1].pods
    assert len({id(cache) for controller in both for cache in controller.caches()}) == 5
    assert both[0].daemonsets is not both[1].daemonsets
