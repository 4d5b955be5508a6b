import copy
import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodewright.controllers.daemonset.canonical import canonical, canonical_bytes
from nodewright.controllers.daemonset.revisions import (
    expired,
    live_hashes,
    new_revision,
    split,
    stored_form,
    template_hash,
    template_of,
)
from nodewright.kube.resources import DAEMONSETS
from support.daemonset_objects import TEMPLATE, daemonset, pod, revision

# What kube-apiserver 1.36 makes of TEMPLATE in apps/v1.
DEFAULTED = {
    "metadata": {"creationTimestamp": None, "labels": {"app": "a"}},
    "spec": {
        "containers": [
            {
                "name": "c",
                "image": "i",
                "imagePullPolicy": "Always",
                "resources": {},
                "terminationMessagePath": "/dev/termination-log",
                "terminationMessagePolicy": "File",
            }
        ],
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": 30,
        "dnsPolicy": "ClusterFirst",
        "securityContext": {},
        "schedulerName": "default-scheduler",
    },
}


def test_nulls_and_defaults_make_no_difference():
    assert canonical_bytes(DEFAULTED) == canonical_bytes(TEMPLATE)


def changed(path, value):
    template = copy.deepcopy(TEMPLATE)
    place = template
    for step in path[:-1]:
        place = place[step] if isinstance(step, int) else place.setdefault(step, {})
    place[path[-1]] = value
    return template


C = ("spec", "containers", 0)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ((*C, "ports"), [{"containerPort": 80, "protocol": "TCP"}]),
        ((*C, "env"), [{"name": "A", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "x"}}}]),
        ((*C, "env"), [{"name": "A", "value": ""}]),
        (
            (*C, "livenessProbe"),
            {
                "httpGet": {"path": "/", "port": 1, "scheme": "HTTP"},
                "timeoutSeconds": 1,
                "periodSeconds": 10,
                "successThreshold": 1,
                "failureThreshold": 3,
            },
        ),
        (("spec", "volumes"), [{"name": "v", "secret": {"secretName": "s", "defaultMode": 420}}]),
        (("spec", "volumes"), [{"name": "v", "hostPath": {"path": "/x", "type": ""}}]),
        (("spec", "serviceAccountName"), "sa"),
        (("spec", "hostNetwork"), False),
        (("spec", "nodeSelector"), {}),
        (("metadata", "annotations"), {}),
    ],
)
def test_each_default_alone_makes_no_difference(path, value):
    """With the default written out, and with it left out."""
    given_ = changed(path, value)
    if path[-1] == "serviceAccountName":
        other = changed(("spec", "serviceAccount"), "sa")
        other["spec"]["serviceAccountName"] = "sa"
        assert canonical_bytes(given_) == canonical_bytes(other)
        return
    plain = {
        "ports": [{"containerPort": 80}],
        "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "x"}}}]
        if "valueFrom" in str(value)
        else [{"name": "A"}],
        "livenessProbe": {"httpGet": {"port": 1}},
        "volumes": [{"name": "v", "secret": {"secretName": "s"}}]
        if "secret" in str(value)
        else [{"name": "v", "hostPath": {"path": "/x"}}],
    }
    other = changed(path, plain[path[-1]]) if path[-1] in plain else TEMPLATE
    assert canonical_bytes(given_) == canonical_bytes(other)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ((*C, "image"), "other"),
        ((*C, "args"), [""]),
        ((*C, "imagePullPolicy"), "IfNotPresent"),
        ((*C, "securityContext"), {}),
        ((*C, "livenessProbe"), {"tcpSocket": {"port": 1}}),
        (("spec", "terminationGracePeriodSeconds"), 0),
        (("spec", "automountServiceAccountToken"), False),
        (("spec", "volumes"), [{"name": "v", "emptyDir": {}}]),
        (("spec", "nodeSelector"), {"a": ""}),
        (("metadata", "labels"), {"app": "a", "b": ""}),
        (("metadata", "annotations"), {"a": "b"}),
        (("spec", "hostNetwork"), True),
    ],
)
def test_what_makes_other_pods_is_a_difference(path, value):
    assert canonical_bytes(changed(path, value)) != canonical_bytes(TEMPLATE)


def test_the_pull_policys_default_depends_on_the_tag():
    def with_policy(image, policy):
        return {"spec": {"containers": [{"name": "c", "image": image, "imagePullPolicy": policy}]}}

    for image, policy in (
        ("a", "Always"),
        ("a:latest", "Always"),
        ("r:5000/a", "Always"),
        ("a:1", "IfNotPresent"),
        ("a@sha256:0", "IfNotPresent"),
        ("a:1@sha256:0", "IfNotPresent"),
        ("a:latest@sha256:0", "Always"),
    ):
        assert canonical(with_policy(image, policy)) == canonical(
            {"spec": {"containers": [{"name": "c", "image": image}]}}
        )


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "x"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["spec", "metadata", "x"]), json_values, max_size=3))
def test_canonical_is_stable_and_changes_nothing_it_was_given(template):
    before = copy.deepcopy(template)
    once = canonical(template)
    assert template == before
    assert canonical(once) == once


def test_the_current_revision_is_found_by_content_whatever_its_name():
    foreign = revision("ds-5f7b8", DEFAULTED, 4)
    other = revision("ds-x", changed((*C, "image"), "v0"), 3)
    history = split(daemonset(), [other, foreign])
    assert [r.metadata.name for r in history.current] == ["ds-5f7b8"]
    assert [r.metadata.name for r in history.old] == ["ds-x"]
    assert history.next_number == 4


def test_doubles_come_newest_first():
    history = split(daemonset(), [revision("a", number=1), revision("b", number=5), revision("c", number=3)])
    assert [r.metadata.name for r in history.current] == ["b", "c", "a"]
    assert history.next_number == 1


@pytest.mark.parametrize("data", [None, {"spec": {}}, {"spec": {"template": 5}}, [], "x"])
def test_a_revision_without_a_template_is_old(data):
    broken = revision("a", data=data if data is not None else {})
    assert template_of(broken) is None
    assert split(daemonset(), [broken]).old == [broken]


def test_hashes_are_label_values_and_depend_on_template_and_collisions():
    one = template_hash(TEMPLATE, 0)
    assert re.fullmatch(r"[bcdfghjklmnpqrstvwxz2456789]{10}", one)
    assert one == template_hash(DEFAULTED, 0)
    assert len({one, template_hash(TEMPLATE, 1), template_hash(changed((*C, "image"), "v2"), 0)}) == 3


def test_a_new_revision_can_be_applied_as_a_patch_and_is_found_again():
    made = new_revision(DAEMONSETS, daemonset(), 7)
    hash_value = made["metadata"]["labels"]["controller-revision-hash"]
    assert made["metadata"]["name"] == f"ds-{hash_value}"
    assert made["metadata"]["labels"]["app"] == "a"
    data = msgspec.json.decode(made["data"])
    assert data == {"spec": {"template": {**TEMPLATE, "$patch": "replace"}}}
    stored = revision(made["metadata"]["name"], number=7, data=data)
    assert split(daemonset(), [stored]).current == [stored]


def test_data_is_written_as_go_writes_it():
    data = {"b": ["x && y > z < é", "\u2028"], "a": {"$patch": "replace", "Z": 1, "$a": None}}
    text = stored_form(data)
    escaped = rb'["x \u0026\u0026 y \u003e z \u003c ' + "é".encode() + rb'","\u2028"]'
    assert text == rb'{"a":{"$a":null,"$patch":"replace","Z":1},"b":' + escaped + b"}"
    assert msgspec.json.decode(text) == data


def test_annotations_are_copied_but_kubectls_copy_of_the_manifest():
    ds = daemonset()
    ds.metadata.annotations = {
        "kubernetes.io/change-cause": "because",
        "kubectl.kubernetes.io/last-applied-configuration": "{}",
    }
    assert new_revision(DAEMONSETS, ds, 1)["metadata"]["annotations"] == {"kubernetes.io/change-cause": "because"}


def test_old_revisions_go_beyond_the_limit_unless_a_pod_needs_them():
    old = [revision(f"r{i}", number=i) for i in (3, 1, 2, 4)]
    names = lambda found: [r.metadata.name for r in found]  # noqa: E731
    assert names(expired(old, 2, set())) == ["r1", "r2"]
    assert names(expired(old, 2, {"r1"})) == ["r2", "r3"]
    assert names(expired(old, 0, {"r1", "r2", "r3", "r4"})) == []
    assert expired(old, None, set()) == []
    assert len(expired([revision(f"r{i}", number=i) for i in range(12)], None, set())) == 2


def test_live_hashes():
    assert live_hashes(p.metadata.labels for p in [pod("a", hash="x"), pod("b", hash="y"), pod("c", labels={})]) == {
        "x",
        "y",
    }


def test_unknown_template_fields_survive_in_the_revision():
    template = {**TEMPLATE, "spec": {**TEMPLATE["spec"], "futureField": {"x": [1]}}}
    made = new_revision(DAEMONSETS, daemonset(template), 1)
    assert msgspec.json.decode(msgspec.json.encode(made))["data"]["spec"]["template"]["spec"]["futureField"] == {
        "x": [1]
    }


def test_the_hosts_ports_are_no_difference_on_the_hosts_network():
    """Earlier API servers wrote them into templates."""
    port = {"containerPort": 80}
    for network, expected in ((True, True), (False, False)):
        plain, written = (
            {"spec": {"hostNetwork": network, "containers": [{"name": "c", "image": "i", "ports": [ports]}]}}
            for ports in (port, {**port, "hostPort": 80})
        )
        assert (canonical_bytes(plain) == canonical_bytes(written)) is expected


def test_equal_amounts_are_no_difference_and_others_are():
    def asks(cpu):
        return changed((*C, "resources"), {"requests": {"cpu": cpu}})

    assert canonical_bytes(asks("500m")) == canonical_bytes(asks(0.5)) == canonical_bytes(asks("0.5"))
    assert canonical_bytes(asks("500m")) != canonical_bytes(asks("501m"))
    assert canonical_bytes(asks("nonsense")) != canonical_bytes(asks("500m"))
