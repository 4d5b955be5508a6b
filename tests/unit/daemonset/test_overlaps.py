import msgspec
import pytest

from nodewright.controllers.admission.daemonset import overlaps
from nodewright.controllers.daemonset.apps import AppsDaemonSetController
from nodewright.controllers.daemonset.claims import claim, is_elder, overlap
from nodewright.controllers.daemonset.controller import DaemonSetController
from nodewright.controllers.daemonset.overlaps import juniors
from support.daemonset_lab import Lab
from support.daemonset_objects import daemonset, pod


def made(name, created, *, labels=None, selector=None, uid=None, **more):
    template = {"metadata": {"labels": labels or {"app": "a"}}, "spec": {"containers": []}}
    ds = daemonset(template, selector=selector, uid=uid or f"uid-{name}", **more)
    meta = msgspec.structs.replace(ds.metadata, name=name, creation_timestamp=f"2026-03-01T12:00:0{created}Z")
    return msgspec.structs.replace(ds, metadata=meta)


def test_an_orphan_goes_to_the_oldest_that_selects_it():
    old, young = made("old", 1), made("young", 2)
    orphan = pod("o", owner=None)
    assert claim(old, [orphan], [young]).adopt == [orphan]
    assert claim(young, [orphan], [old]).adopt == []
    assert claim(young, [orphan], [made("leaving", 1, deleting=True)]).adopt == [orphan]
    other = made("elsewhere", 1, labels={"app": "b"}, selector={"matchLabels": {"app": "b"}})
    assert claim(young, [orphan], [other]).adopt == [orphan]
    everything = msgspec.structs.replace(old, spec=daemonset().spec)
    everything.spec.selector.match_labels = {}
    assert claim(young, [orphan], [everything]).adopt == [orphan]  # that one is not served at all


def test_those_made_in_the_same_second_agree_on_who_is_older():
    one, two = made("b", 1, uid="1"), made("a", 1, uid="2")
    assert (is_elder(one, two), is_elder(two, one)) == (True, False)


@pytest.mark.parametrize(
    ("selector", "labels", "expected"),
    [
        ({"matchLabels": {"app": "a"}}, {"app": "a", "x": "y"}, True),
        ({"matchLabels": {"x": "y"}}, {"app": "a", "x": "y"}, True),  # the first one selects the pods of this one
        ({"matchLabels": {"x": "y"}}, {"x": "y"}, False),
        ({"matchExpressions": [{"key": "app", "operator": "Exists"}]}, {"app": "b"}, True),  # and the other way round
    ],
)
def test_two_overlap_when_one_selects_what_the_other_makes(selector, labels, expected):
    one, other = made("one", 1), made("other", 2, labels=labels, selector=selector)
    assert overlap(one, other) is overlap(other, one) is expected


def test_others_look_again_when_one_comes_changes_or_goes():
    one, two = made("one", 1), made("two", 2)
    apart = made("apart", 3, labels={"app": "b"}, selector={"matchLabels": {"app": "b"}})
    there = [one, two, apart]

    def told(old, new):
        return juniors(old, new, lambda _ds: there)

    assert told(None, one) == ["ns/two"]
    assert told(one, msgspec.structs.replace(one)) == []
    assert told(one, None) == ["ns/apart", "ns/two"]


def test_the_warning_at_admission():
    def body(name, app):
        labels = {"app": app}
        spec = {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}}}
        return {"metadata": {"name": name}, "spec": spec}

    others = [body("a", "x"), body("b", "y"), body("c", "x")]
    assert overlaps(body("a", "x"), others, "apps/v1", own=True) == [
        "spec.selector: overlaps that of DaemonSet c (apps/v1): pods of nobody that both select go to the older one"
    ]
    assert len(overlaps(body("a", "x"), others, "apps/v1", own=False)) == 2
    assert overlaps({"metadata": {}, "spec": {}}, [], "apps/v1", own=False) == []


class TwoKinds(Lab):
    """Both kinds in one process; the elder is of apps/v1, and has the same name."""

    def make_controller(self, client):
        self.other = AppsDaemonSetController(client, now=lambda: self.now)
        return DaemonSetController(client, now=lambda: self.now)


def test_the_younger_one_of_another_kind_is_told_once_and_leaves_orphans_alone():
    lab = TwoKinds({"n1": "a"})
    try:
        elder = lab.server.objects["daemonsets"]["ns/ds"]
        old = msgspec.convert({**elder, "spec": {**elder["spec"]}}, dict)
        old["metadata"] = {**old["metadata"], "uid": "elder", "creationTimestamp": "2026-02-01T12:00:00Z"}
        cache = lab.process.controller._shared.daemonsets(AppsDaemonSetController.kind)
        assert cache is lab.other.daemonsets
        cache._store.put(msgspec.json.decode(msgspec.json.encode(old), type=cache._type))
        lab.add_pod("orphan", "n1")
        for _ in range(5):
            lab.calm()
        assert not lab.server.objects["pods"]["ns/orphan"]["metadata"].get("ownerReferences")
        conditions = {c.type: c for c in lab.ds.status.conditions}
        assert (conditions["Degraded"].status, conditions["Degraded"].reason) == ("True", "SelectorOverlap")
        assert "DaemonSet ds (apps/v1), which is older" in conditions["Degraded"].message
        assert conditions["Ready"].status == "True"
        told = [e for lane in lab.process.controller.events._lanes for e in lane.queue if e.reason == "SelectorOverlap"]
        assert len(told) == 1
        lab.restart()
        again = [e for lane in lab.process.controller.events._lanes for e in lane.queue]
        assert not [e for e in again if e.reason == "SelectorOverlap"]
    finally:
        lab.close()
