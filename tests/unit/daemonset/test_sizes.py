import copy

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodewright.controllers.daemonset.extensions import NodeOverride
from nodewright.controllers.daemonset.rollout import roll
from nodewright.controllers.daemonset.sizes import class_name, class_of, classes, overridden
from nodewright.controllers.daemonset.status import compute
from nodewright.controllers.daemonset.targets import is_current
from nodewright.controllers.daemonset.template import PodFactory
from nodewright.kube.resources import DAEMONSETS
from support.daemonset_objects import daemonset, node, pod, targets, view

TEMPLATE = {
    "metadata": {"labels": {"app": "a"}},
    "spec": {
        "initContainers": [{"name": "first", "image": "i", "env": [{"name": "A", "value": "1"}]}],
        "containers": [
            {
                "name": "c",
                "image": "i",
                "resources": {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"memory": "2Gi"}},
                "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
            },
            {"name": "d", "image": "i"},
        ],
    },
}


def override(name="big", zone="big", **container):
    return {
        "name": name,
        "nodeSelector": {"matchLabels": {"size": zone}},
        "containers": [{"name": "c", "resources": {"requests": {"cpu": "4"}}, **container}],
    }


def struct(raw):
    return msgspec.convert(raw, NodeOverride)


def container(template, name):
    spec = template["spec"]
    return next(c for c in (*spec["containers"], *spec["initContainers"]) if c["name"] == name)


def test_the_first_override_that_matches_counts():
    ds = daemonset(nodeOverrides=[override("one", "x"), override("two", "big"), override("three", "big")])
    assert class_of(ds, {"size": "big"}).startswith("two/")
    assert class_of(ds, {"size": "x"}).startswith("one/")
    assert class_of(ds, {"size": "small"}) == class_of(daemonset(), {"size": "big"}) == ""


def test_classes_of_a_view():
    nodes = {"n1": node("n1", {"size": "big"}), "n2": node("n2")}
    seen = view((), nodes=nodes, nodeOverrides=[override()])
    assert classes(seen) == {"n1": class_name(struct(override()))}
    assert targets(seen).classes == classes(seen)
    assert classes(view((), nodes=nodes)) == {}


def test_the_name_of_a_class_is_for_ever():
    """Pods carry it: if another release computed another one, its start would replace them."""
    given = override(env=[{"name": "A", "value": "x"}])
    assert class_name(struct(given)) == "big/1b7a7f21"


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"resources": {"requests": {"cpu": 4}}}, True),
        ({"resources": {"requests": {"cpu": "4000m"}}}, True),
        ({"resources": {"requests": {"cpu": "4"}}, "env": []}, True),
        ({"resources": {"requests": {"cpu": "4001m"}}}, False),
        ({"resources": {"limits": {"cpu": "4"}}}, False),
        ({"env": [{"name": "A", "value": "x"}]}, False),
    ],
)
def test_what_makes_another_class(change, same):
    assert (class_name(struct(override(**change))) == class_name(struct(override()))) is same


def test_other_nodes_or_another_order_of_containers_make_no_other_class():
    two = override(zone="else")
    assert class_name(struct(two)) == class_name(struct(override()))
    two["containers"].append({"name": "d", "env": [{"name": "A", "value": "x"}]})
    turned = copy.deepcopy(two)
    turned["containers"].reverse()
    assert class_name(struct(two)) == class_name(struct(turned)) != class_name(struct(override()))


def test_maps_of_resources_are_replaced_one_by_one_and_variables_merged_by_name():
    before = copy.deepcopy(TEMPLATE)
    env = [{"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}, {"name": "C", "value": "3"}]
    out = overridden(TEMPLATE, struct(override(env=env)))
    changed = container(out, "c")
    assert changed["resources"] == {"requests": {"cpu": "4"}, "limits": {"memory": "2Gi"}}
    assert changed["env"] == [{"name": "A", "value": "1"}, *env]
    assert container(out, "d") == container(TEMPLATE, "d")
    assert container(out, "first") == container(TEMPLATE, "first")
    assert before == TEMPLATE


def test_init_containers_too_and_limits_can_be_taken_away():
    raw = override(resources={"limits": {}})
    raw["containers"].append({"name": "first", "env": [{"name": "A", "value": "9"}]})
    out = overridden(TEMPLATE, struct(raw))
    assert container(out, "first")["env"] == [{"name": "A", "value": "9"}]
    assert container(out, "c")["resources"] == {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {}}


def test_a_container_that_an_older_template_lacks_is_passed_over():
    raw = override()
    raw["containers"][0]["name"] = "new"
    assert overridden(TEMPLATE, struct(raw))["spec"] == TEMPLATE["spec"]


def test_pods_are_made_for_their_node_class():
    nodes = {"n1": node("n1", {"size": "big"}), "n2": node("n2", {"size": "small"})}
    ds = daemonset(TEMPLATE, nodeOverrides=[override()])
    seen = view((), nodes=nodes, ds=ds)
    factory = PodFactory(DAEMONSETS, seen, targets(seen))
    big, small = factory.pod_for("n1"), factory.pod_for("n2")
    assert container(big, "c")["resources"]["requests"] == {"cpu": "4"}
    assert big["metadata"]["annotations"] == {"nodewright.dev/node-class": classes(seen)["n1"]}
    assert container(small, "c") == container(TEMPLATE, "c")
    assert "annotations" not in small["metadata"]
    assert big["metadata"]["labels"] == small["metadata"]["labels"]


def with_class(found, name):
    annotations = {"nodewright.dev/node-class": name} if name else {}
    wire = msgspec.to_builtins(found)
    wire["metadata"]["annotations"] = annotations
    return msgspec.convert(wire, type(found))


def test_a_pod_of_another_class_is_outdated_and_replaced_within_the_budget():
    nodes = {f"n{i}": node(f"n{i}", {"size": "big" if i < 3 else "small"}) for i in range(5)}
    right = class_name(struct(override()))
    pods = [
        with_class(pod("p0", "n0"), right),
        with_class(pod("p1", "n1"), "big/00000000"),
        pod("p2", "n2"),
        pod("p3", "n3"),
        with_class(pod("p4", "n4"), right),  # its node has another label by now
    ]
    seen = view(pods, nodes=nodes, nodeOverrides=[override()], rolling={"maxUnavailable": 2})
    wanted = targets(seen)
    assert [is_current(seen, wanted, p.target_node, p) for p in pods] == [True, False, False, True, False]
    assert [p.metadata.name for p in roll(seen, wanted).delete] == ["p1", "p2"]
    assert compute(seen, wanted).updated_number_scheduled == 2


@given(st.permutations(range(4)), st.integers(0, 3))
def test_a_change_of_one_override_concerns_its_nodes_alone(order, which):
    names = [f"s{i}" for i in order]
    before = [override(name, name) for name in names]
    after = copy.deepcopy(before)
    after[which]["containers"][0]["resources"]["requests"]["cpu"] = "5"
    nodes = {name: node(name, {"size": name}) for name in names}
    first, second = (classes(view((), nodes=nodes, nodeOverrides=each)) for each in (before, after))
    assert {name for name in names if first[name] != second[name]} == {names[which]}
