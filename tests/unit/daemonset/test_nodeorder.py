import msgspec
import pytest

from nodewright.controllers.daemonset.eligibility import Verdict
from nodewright.controllers.daemonset.nodeorder import NodeOrder
from nodewright.controllers.daemonset.owntaints import DRAIN_TAINT, startup_key
from nodewright.controllers.daemonset.placement import Placement
from support.daemonset_objects import RUN, daemonset, node, pod


def named(name, **spec):
    found = daemonset(**spec)
    meta = msgspec.structs.replace(found.metadata, name=name, uid=name)
    return msgspec.structs.replace(found, metadata=meta)


def holding(name, *after):
    return named(name, nodeReadiness={"after": list(after)})


def made(*daemonsets, pods=()):
    cache, found = {ds.key: ds for ds in daemonsets}, {p.key: p for p in pods}
    return NodeOrder(cache, found), cache


def change(order, cache, ds):
    old = cache.get(ds.key)
    cache[ds.key] = ds
    return order.daemonset_changed(old, ds)


DRAINED = node("n1", taints=(f"{DRAIN_TAINT}:NoSchedule",))
LAST = {"nodeDrain": "LeaveLast"}


def test_a_change_of_the_order_reaches_those_whose_verdicts_it_changes():
    order, cache = made(holding("a"), holding("b", "a"), named("plain"))
    assert order.own_taints(cache["ns/b"]).waits_for == {startup_key("ns", "a")}
    assert change(order, cache, holding("a", "b")) == ["ns/b"], "a circle now: b does not wait any more"
    assert order.own_taints(cache["ns/b"]).waits_for == set()
    assert change(order, cache, named("a")) == ["ns/a"], "b waits for nobody, before and after"
    assert change(order, cache, named("plain", minReadySeconds=1)) == []
    assert change(order, cache, holding("c")) == ["ns/c"], "what others tolerate is of no matter to verdicts"
    assert set(order.own_taints(cache["ns/b"]).known) == {startup_key("ns", "b"), startup_key("ns", "c")}


def test_remembered_verdicts_follow_the_order():
    order, cache = made(holding("a"), holding("b", "a"))
    placement, held = Placement(), node("n1", taints=(f"{startup_key('ns', 'a')}:NoSchedule",))
    b = cache["ns/b"]
    assert not placement.verdicts(b, [held], order.own_taints(b))["n1"].should_run
    change(order, cache, named("a"))
    assert placement.verdicts(b, [held], order.own_taints(b))["n1"].should_run


def test_a_drain_reaches_those_that_leave_and_their_turn_is_told_by_the_pods():
    app = pod("app", owner="", labels={})
    mine = pod("mine", owner="last")
    order, cache = made(named("last", **LAST), named("elsewhere", **LAST), named("stays"), pods=[app, mine])
    last = cache["ns/last"]
    assert order.verdicts(last, {"n1": RUN}, [mine]) == {"n1": RUN}
    assert order.node_changed(node("n1"), DRAINED) == ["ns/last", "ns/elsewhere"]
    assert order.node_changed(DRAINED, DRAINED) == []
    assert order.verdicts(last, {"n1": RUN, "n2": RUN}, [mine])["n1"].should_continue
    assert order.verdicts(cache["ns/stays"], {"n1": RUN}, []) == {"n1": RUN}
    assert order.pod_changed(app, pod("app", owner="", labels={}, ready=False)) == ()
    assert order.pod_changed(app, None) == ["ns/last"], "only those with a pod there"
    found = order.verdicts(last, {"n1": RUN, "n2": RUN}, [mine])
    assert found == {"n1": Verdict(False, False, "the node is being drained"), "n2": RUN}
    assert order.pod_changed(None, pod("late", owner="", labels={})) == ["ns/last"]
    assert order.verdicts(last, {"n1": RUN}, [mine])["n1"].should_continue
    assert order.node_changed(DRAINED, node("n1")) == ["ns/last", "ns/elsewhere"]
    assert order.verdicts(last, {"n1": RUN}, [mine]) == {"n1": RUN}


@pytest.mark.parametrize("on_node", ["n2", "n3"])
def test_pods_of_other_nodes_are_of_no_matter(on_node):
    order, _ = made(named("last", **LAST))
    order.node_changed(None, DRAINED)
    assert order.pod_changed(pod("p", on_node), None) == ()


def test_who_begins_to_leave_last_during_a_drain_is_told_to_the_others():
    order, cache = made(named("a", **LAST), named("b"))
    assert change(order, cache, named("b", **LAST)) == [], "no drain"
    order.node_changed(None, DRAINED)
    assert change(order, cache, named("b")) == ["ns/a"]
    assert change(order, cache, named("b", **LAST)) == ["ns/a", "ns/b"]
