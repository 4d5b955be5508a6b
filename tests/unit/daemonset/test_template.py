import msgspec

from nodewright.controllers.daemonset.eligibility import default_tolerations
from nodewright.controllers.daemonset.model import Pod
from nodewright.controllers.daemonset.template import PodFactory, PodMaker
from nodewright.kube.resources import APPS_DAEMONSETS, DAEMONSETS
from support.daemonset_objects import TEMPLATE, daemonset, node, targets, view

PREFERRED = [{"weight": 1, "preference": {"matchExpressions": [{"key": "ssd", "operator": "Exists"}]}}]
REQUIRED = {"nodeSelectorTerms": [{"matchExpressions": [{"key": "zone", "operator": "Exists"}]}]}


def make(template=TEMPLATE, node="n1", resource=DAEMONSETS, generation=None):
    return PodMaker(resource, daemonset(template), template, "h4sh", generation).pod_for(node)


def test_metadata():
    meta = make({**TEMPLATE, "metadata": {"labels": {"app": "a"}, "annotations": {"x": "y"}, "name": "ignored"}})[
        "metadata"
    ]
    assert meta == {
        "generateName": "ds-",
        "namespace": "ns",
        "labels": {"app": "a", "controller-revision-hash": "h4sh"},
        "annotations": {"x": "y"},
        "ownerReferences": [
            {
                "apiVersion": "nodewright.dev/v1alpha1",
                "kind": "DaemonSet",
                "name": "ds",
                "uid": "uid",
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ],
    }


def test_the_other_kind_and_its_template_generation():
    meta = make(resource=APPS_DAEMONSETS, generation="7")["metadata"]
    assert meta["ownerReferences"][0]["apiVersion"] == "apps/v1"
    assert meta["labels"]["pod-template-generation"] == "7"


def test_required_node_affinity_is_replaced_and_everything_else_stays():
    affinity = {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": REQUIRED,
            "preferredDuringSchedulingIgnoredDuringExecution": PREFERRED,
        },
        "podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": []},
    }
    template = {"spec": {**TEMPLATE["spec"], "affinity": affinity, "futureField": {"kept": True}}}
    pod = make(template, "n7")
    node_affinity = pod["spec"]["affinity"]["nodeAffinity"]
    assert node_affinity["preferredDuringSchedulingIgnoredDuringExecution"] == PREFERRED
    assert node_affinity["requiredDuringSchedulingIgnoredDuringExecution"] == {
        "nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n7"]}]}]
    }
    assert "podAntiAffinity" in pod["spec"]["affinity"]
    assert pod["spec"]["futureField"] == {"kept": True}


def test_the_pod_is_pinned_to_its_target_node():
    wire = {**make(node="n9"), "status": {}}
    assert msgspec.convert(wire, Pod).target_node == "n9"


def test_pods_of_one_maker_do_not_share_their_pin():
    maker = PodMaker(DAEMONSETS, daemonset(), TEMPLATE, "h")
    first, second = maker.pod_for("n1"), maker.pod_for("n2")
    assert msgspec.convert({**first, "status": {}}, Pod).target_node == "n1"
    assert msgspec.convert({**second, "status": {}}, Pod).target_node == "n2"


def test_default_tolerations_are_added_once():
    own = [{"key": "dedicated", "operator": "Exists"}]
    template = {"spec": {**TEMPLATE["spec"], "tolerations": own, "hostNetwork": True}}
    first = make(template)["spec"]["tolerations"]
    assert first[0] == own[0]
    assert len(first) == 1 + len(default_tolerations(True))
    again = make({"spec": {**template["spec"], "tolerations": first}})["spec"]["tolerations"]
    assert again == first


def test_a_default_toleration_replaces_a_limited_one():
    limited = {
        "key": "node.kubernetes.io/not-ready",
        "operator": "Exists",
        "effect": "NoExecute",
        "tolerationSeconds": 300,
    }
    tolerations = make({"spec": {**TEMPLATE["spec"], "tolerations": [limited]}})["spec"]["tolerations"]
    assert len(tolerations) == len(default_tolerations(False))
    assert "tolerationSeconds" not in tolerations[0]


def test_marks_copied_from_a_pod_are_left_out():
    """Else the pods of a template that has them would never be current."""
    marks = {"nodewright.dev/node-class": "big/1", "nodewright.dev/in-place-update": '{"c":1}', "x": "y"}
    template = {**TEMPLATE, "metadata": {"labels": {"app": "a"}, "annotations": marks}}
    seen = view((), ds=daemonset(template), nodes={"n1": node("n1")})
    assert PodFactory(DAEMONSETS, seen, targets(seen)).pod_for("n1")["metadata"]["annotations"] == {"x": "y"}
