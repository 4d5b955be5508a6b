from nodewright.controllers.daemonset.backoff import FailureBackoff
from nodewright.controllers.daemonset.claims import adoption_patch, claim, release_patch
from nodewright.kube.resources import DAEMONSETS
from support.daemonset_objects import daemonset, pod


def names(objects):
    return [o.metadata.name for o in objects]


def test_claims():
    pods = [
        pod("mine"),
        pod("foreign", owner="other"),
        pod("orphan", owner=None),
        pod("orphan-of-another-kind", owner=None, labels={"app": "b"}),
        pod("dying-orphan", owner=None, deleting=True),
        pod("strayed", labels={"app": "b"}),
    ]
    found = claim(daemonset(), pods)
    assert names(found.mine) == ["mine"]
    assert names(found.adopt) == ["orphan"]
    assert names(found.release) == ["strayed"]


def test_a_daemonset_that_is_being_deleted_adopts_and_releases_nothing():
    found = claim(daemonset(deleting=True), [pod("mine"), pod("orphan", owner=None), pod("s", labels={})])
    assert (names(found.mine), found.adopt, found.release) == (["mine"], [], [])


def test_a_successor_with_the_same_name_does_not_inherit():
    assert claim(daemonset(uid="second"), [pod("of-the-first", owner="first")]).mine == []


def test_patches_carry_the_objects_uid():
    ds = daemonset()
    adopt = adoption_patch(DAEMONSETS, ds, "pod-uid")["metadata"]
    assert adopt["uid"] == "pod-uid"
    assert adopt["ownerReferences"][0]["uid"] == "uid"
    assert adopt["ownerReferences"][0]["controller"] is True
    assert release_patch(ds, "pod-uid")["metadata"] == {
        "uid": "pod-uid",
        "ownerReferences": [{"$patch": "delete", "uid": "uid"}],
    }


def test_failures_are_acted_on_with_growing_distance():
    backoff = FailureBackoff(1, 8)
    assert backoff.check("k", 0) == 0
    assert backoff.check("k", 0.25) == 0.75
    assert backoff.check("other", 0.25) == 0
    assert backoff.check("k", 1) == 0
    assert backoff.check("k", 2) == 1
    assert backoff.check("k", 3) == 0
    assert backoff.check("k", 7) == 0
    assert backoff.check("k", 15) == 0  # 8, the limit
    assert backoff.check("k", 16) == 7


def test_backoff_starts_over_after_twice_its_limit_and_is_collected():
    backoff = FailureBackoff(1, 8)
    for moment in (0, 1, 3, 7):
        assert backoff.check("k", moment) == 0
    assert backoff.check("k", 24) == 0
    assert backoff.check("k", 24.5) == 0.5
    backoff.collect(30)
    assert backoff._entries
    backoff.collect(41)
    assert not backoff._entries
