"""NodeVolumeLimits: volumes of a driver per node, counted from Pods and attachments, kept up to date."""

from hypothesis import example, given
from hypothesis import strategies as st

from nodewright.scheduler.state.storage import AttachIndex
from support.scheduler_builders import make_node
from support.storage_builders import (
    Verdict,
    claim_pod,
    cluster,
    ephemeral_pod,
    make_attachment,
    make_claim,
    make_class,
    make_csi_node,
    make_volume,
    put,
)

TOO_MANY = "node(s) exceed max volume count"


def bound(name, handle="", driver="csi"):
    """A claim with its volume."""
    return make_claim(name, volume=f"pv-{name}"), make_volume(
        f"pv-{name}", claim=name, phase="Bound", csi=(driver, handle or name)
    )


def test_volumes_of_pods_count_up_to_the_limit():
    state = cluster(make_node("n"), make_node("free"), make_csi_node("n", csi=2), *bound("a"), *bound("b"), *bound("c"))
    put(state, claim_pod("a", node="n"))
    assert Verdict(state, claim_pod("b")).fits == {"n", "free"}
    put(state, claim_pod("b", node="n"))
    verdict = Verdict(state, claim_pod("c"))
    assert (verdict.fits, verdict.reason, verdict.unresolvable) == ({"free"}, f"1 {TOO_MANY}", set())


def test_a_volume_counts_once_however_often_it_is_used():
    state = cluster(make_node("n"), make_csi_node("n", csi=1), *bound("a"), *bound("b"))
    put(state, claim_pod("a", node="n"), claim_pod("a", node="n"))
    assert Verdict(state, claim_pod("a")).fits == {"n"}
    assert Verdict(state, claim_pod("a", "b")).fits == set()
    # Two claims, one volume: what counts is the handle.
    put(state, *bound("twin", handle="a"))
    assert Verdict(state, claim_pod("twin")).fits == {"n"}


def test_one_pod_can_be_too_much_by_itself():
    state = cluster(make_node("n"), make_csi_node("n", csi=1), *bound("a"), *bound("b"))
    assert Verdict(state, claim_pod("a", "b")).fits == set()
    put(state, make_csi_node("n", csi=0))
    assert Verdict(state, claim_pod("a")).fits == set()


def test_drivers_are_counted_apart_and_may_have_no_limit():
    state = cluster(make_node("n"), make_csi_node("n", csi=1, other=None), *bound("a"), *bound("b", driver="other"))
    put(state, claim_pod("a", node="n"), *bound("c", driver="other"))
    assert Verdict(state, claim_pod("b", "c")).fits == {"n"}
    put(state, make_csi_node("n", csi=1, other=1))
    assert Verdict(state, claim_pod("b")).fits == {"n"}
    assert Verdict(state, claim_pod("b", "c")).fits == set()


def test_attached_volumes_count_until_they_are_detached():
    attachment = make_attachment("va", "n", "pv-a")
    state = cluster(make_node("n"), make_csi_node("n", csi=1), *bound("a"), *bound("b"), attachment)
    assert Verdict(state, claim_pod("b")).fits == set()
    # Upstream counts the Pod's own volume against it where it is attached and no Pod uses it.
    assert Verdict(state, claim_pod("a")).fits == set()
    pod = claim_pod("a", node="n")
    put(state, pod)
    assert Verdict(state, claim_pod("a")).fits == {"n"}
    state.remove_pod(pod.metadata.uid)
    state.storage.on_attachment(attachment, None)
    assert Verdict(state, claim_pod("b")).fits == {"n"}


def test_attachments_without_a_csi_volume_do_not_count():
    state = cluster(make_node("n"), make_csi_node("n", csi=1), *bound("b"), make_volume("local"))
    put(state, make_attachment("x", "n", "local"), make_attachment("y", "n", None), make_attachment("z", "n", "gone"))
    put(state, make_attachment("w", "n", "pv-b", attacher=""))
    assert Verdict(state, claim_pod("b")).fits == {"n"}


def test_a_claim_without_a_volume_counts_for_the_provisioner_of_its_class():
    state = cluster(make_node("n"), make_csi_node("n", csi=1), make_class("wait", "csi"))
    put(state, make_claim("a"), make_claim("b"), claim_pod("a", node="n"))
    assert Verdict(state, claim_pod("b")).fits == set()
    put(state, make_claim("b", "hand"), make_class("hand"), make_volume("pv", "hand"))
    assert Verdict(state, claim_pod("b")).fits == {"n"}


def test_a_bound_claim_whose_volume_is_gone_counts_for_its_class():
    state = cluster(make_node("n"), make_csi_node("n", csi=1), make_class("wait", "csi"), *bound("b"))
    put(state, make_claim("a", volume="gone"), claim_pod("a", node="n"))
    assert Verdict(state, claim_pod("b")).fits == set()


def test_ephemeral_volumes_count():
    pod = ephemeral_pod("data", name="p", node="n")
    state = cluster(make_node("n"), make_csi_node("n", csi=1), make_class("wait", "csi"), *bound("b"), pod)
    assert Verdict(state, claim_pod("b")).fits == {"n"}
    put(state, make_claim("p-data", owner=pod.metadata.uid))
    assert Verdict(state, claim_pod("b")).fits == set()


def test_a_row_that_another_node_takes_over_is_computed_anew():
    state = cluster(make_node("n"), make_csi_node("n", csi=0), *bound("a"))
    assert Verdict(state, claim_pod("a")).fits == set()
    state.remove_node("n")
    put(state, make_node("m"))
    assert Verdict(state, claim_pod("a")).fits == {"m"}


def test_many_rows_are_grown_into():
    state = cluster(make_node("n0"), make_csi_node("n0", csi=0), *bound("a"))
    assert Verdict(state, claim_pod("a")).fits == set()
    put(state, *(make_node(f"n{i}") for i in range(1, 40)), make_csi_node("n33", csi=0))
    assert Verdict(state, claim_pod("a")).fits == {f"n{i}" for i in range(1, 40)} - {"n33"}


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["pod", "unpod", "claim", "unclaim", "volume", "unvolume", "csi", "attach", "detach", "node"]),
        st.integers(0, 3),
        st.integers(0, 3),
    ),
    max_size=30,
)


# A node gets the row that a Pod held for it before, and that was free meanwhile.
@example([("pod", 0, 1), ("unpod", 0, 1), ("csi", 0, 1), ("node", 0, 1)])
@given(ACTIONS)
def test_counts_kept_by_difference_equal_counts_taken_anew(actions):
    state = cluster(make_class("wait", "csi"))
    storage, pods, attachments = state.storage, {}, {}
    for action, a, b in actions:
        node, claim = f"n{a}", f"c{b}"
        match action:
            case "pod":
                pods[a, b] = claim_pod(claim, node=node, uid=f"{a}-{b}")
                put(state, pods[a, b])
            case "unpod":
                state.remove_pod(f"{a}-{b}")
            case "claim":
                put(state, make_claim(claim, volume=f"pv-{claim}" if a % 2 else ""))
            case "unclaim" if f"default/{claim}" in storage.claims:
                storage.on_claim(storage.claims[f"default/{claim}"], None)
            case "volume":
                put(state, make_volume(f"pv-{claim}", claim=claim if a else "", csi=("csi", f"h{a}")))
            case "unvolume" if f"pv-{claim}" in storage.volumes:
                storage.on_volume(storage.volumes[f"pv-{claim}"], None)
            case "csi":
                put(state, make_csi_node(node, csi=b or None))
            case "attach":
                before = attachments.get(a)
                attachments[a] = make_attachment(f"va{a}", f"n{b}", f"pv-c{a}")
                storage.on_attachment(before, attachments[a])
            case "detach" if attachments.get(a):
                storage.on_attachment(attachments.pop(a), None)
            case "node" if node in state.rows and b == 0:
                state.remove_node(node)
            case "node":
                put(state, make_node(node))
        storage.attached.refresh(state)
        fresh = AttachIndex(storage)
        fresh.refresh(state)
        kept, anew = storage.attached.column("csi"), fresh.column("csi")
        rows = range(state.height)
        limited = [r for r in rows if anew is not None and anew.limits[r] != anew.limits.max(initial=2**63 - 1)]
        assert [int(kept.limits[r]) for r in limited] == [int(anew.limits[r]) for r in limited]
        assert [int(kept.counts[r]) for r in limited] == [int(anew.counts[r]) for r in limited]
        if kept is not None:
            assert all(kept.limits[r] == 2**63 - 1 for r in rows if r not in limited)
