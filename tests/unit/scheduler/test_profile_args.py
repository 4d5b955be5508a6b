"""Arguments of plugins: which are taken, and that a wrong one names the field."""

import msgspec
import pytest

from nodewright.scheduler.arguments import label_name_fault
from nodewright.scheduler.plugin import Plugin
from nodewright.scheduler.profile import ProfileError, profile_from_object
from nodewright.scheduler.registry import Registry


class Inner(msgspec.Struct):
    size: int = 0


class Options(msgspec.Struct):
    """Not strict by itself: fields that it does not have would be skipped."""

    inner: Inner | None = None
    several: list[Inner] = []
    named: dict[str, Inner] = {}


class Lenient(Plugin):
    name = "Lenient"
    args_type = Options

    def __init__(self, args=None):
        self.args = args


REGISTRY = Registry({"Lenient": Lenient})
ON = {"multiPoint": {"enabled": [{"name": "Lenient"}]}}


def build(name, args, plugins=None):
    return profile_from_object({"plugins": plugins or {}, "pluginConfig": [{"name": name, "args": args}]}, REGISTRY)


def refused(name, args, plugins=None):
    with pytest.raises(ProfileError) as caught:
        build(name, args, plugins)
    return str(caught.value)


def test_arguments_may_carry_type_information_or_be_left_out():
    args = {"apiVersion": "kubescheduler.config.k8s.io/v1", "kind": "NodeResourcesFitArgs", "ignoredResources": ["a/b"]}
    build("NodeResourcesFit", args)
    build("NodeResourcesFit", None)
    profile_from_object({"pluginConfig": [{"name": "NodeResourcesFit"}]})
    build("Lenient", {"inner": {"size": 3}, "several": [{}], "named": {"a": {"size": 1}}}, ON)


@pytest.mark.parametrize(
    ("args", "path"),
    [
        ({"outer": 1}, "outer"),
        ({"inner": {"seize": 1}}, "inner.seize"),
        ({"several": [{}, {"seize": 1}]}, "several[1].seize"),
        ({"named": {"a": {"seize": 1}}}, "named[a].seize"),
    ],
)
def test_a_field_that_the_arguments_do_not_have_is_an_error_at_any_depth(args, path):
    assert refused("Lenient", args, ON) == f"pluginConfig[Lenient].args: {path}: unknown field"


def test_a_wrong_type_names_the_field():
    text = refused("Lenient", {"several": [{"size": "x"}]}, ON)
    assert text == "pluginConfig[Lenient].args: several[0].size: Expected `int`, got `str`"
    assert refused("Lenient", [], ON) == "pluginConfig[Lenient].args: Expected `object`, got `array`"


def test_arguments_need_a_plugin_that_takes_them():
    assert "'Lenient' is not enabled" in refused("Lenient", {})
    assert "'Nope' is not enabled" in refused("Nope", {})
    assert "'NodeName' takes no arguments" in refused("NodeName", {})
    assert "'PrioritySort' takes no arguments" in refused("PrioritySort", {})
    with pytest.raises(ProfileError, match=r'pluginConfig\[1\].name: Duplicate value: "NodeAffinity"'):
        profile_from_object({"pluginConfig": [{"name": "NodeAffinity", "args": {}}] * 2})


def test_arguments_of_a_default_that_is_switched_off_may_stay_but_must_be_right():
    disabled = {"multiPoint": {"disabled": [{"name": "NodeAffinity"}]}}
    assert "NodeAffinity" not in build("NodeAffinity", {}, disabled).plugins
    assert "unknown field" in refused("NodeAffinity", {"x": 1}, disabled)


def constraint(**more):
    return {"maxSkew": 1, "topologyKey": "z", "whenUnsatisfiable": "ScheduleAnyway", **more}


@pytest.mark.parametrize(
    ("plugin", "args", "complaint"),
    [
        (
            "NodeResourcesBalancedAllocation",
            {"resources": [{"name": "cpu", "weight": 2}]},
            "resources[0].weight: Invalid value: 2: must be 1",
        ),
        (
            "NodeResourcesBalancedAllocation",
            {"resources": [{"name": "cpu"}, {"name": "cpu"}]},
            'resources[1].name: Duplicate value: "cpu"',
        ),
        (
            "InterPodAffinity",
            {"hardPodAffinityWeight": 101},
            "hardPodAffinityWeight: Invalid value: 101: not in valid range [0, 100]",
        ),
        ("InterPodAffinity", {"hardPodAffinityWeight": -1}, "hardPodAffinityWeight: Invalid value: -1: not in valid"),
        ("InterPodAffinity", {"hardPodAffinityWeight": "1"}, "hardPodAffinityWeight: Expected `int`, got `str`"),
        (
            "DefaultPreemption",
            {"minCandidateNodesPercentage": 101, "minCandidateNodesAbsolute": -1},
            "minCandidateNodesPercentage: Invalid value: 101: not in valid range [0, 100]; "
            "minCandidateNodesAbsolute: Invalid value: -1: not in valid range [0, inf)",
        ),
        (
            "DefaultPreemption",
            {"minCandidateNodesPercentage": 0, "minCandidateNodesAbsolute": 0},
            "minCandidateNodesPercentage: Invalid value: 0: cannot be zero at the same time as "
            "minCandidateNodesAbsolute",
        ),
        (
            "VolumeBinding",
            {"bindTimeoutSeconds": -1},
            "bindTimeoutSeconds: Invalid value: -1: should not be a negative value",
        ),
        ("VolumeBinding", {"shape": [{"utilization": 0, "score": 0}]}, "unknown field `shape`"),
        (
            "PodTopologySpread",
            {"defaultingType": "Some"},
            'defaultingType: Unsupported value: "Some": supported values: "List", "System"',
        ),
        (
            "PodTopologySpread",
            {"defaultConstraints": [constraint()]},
            'defaultingType: Invalid value: "System": when .defaultConstraints are not empty',
        ),
        (
            "PodTopologySpread",
            {"defaultingType": "List", "defaultConstraints": [constraint(maxSkew=0)]},
            "defaultConstraints[0].maxSkew: Invalid value: 0: not in valid range (0, inf)",
        ),
        (
            "PodTopologySpread",
            {"defaultingType": "List", "defaultConstraints": [constraint(topologyKey="", whenUnsatisfiable="")]},
            "defaultConstraints[0].topologyKey: Required value: can not be empty; "
            "defaultConstraints[0].whenUnsatisfiable: Required value: can not be empty",
        ),
        (
            "PodTopologySpread",
            {"defaultingType": "List", "defaultConstraints": [constraint(topologyKey="a b", whenUnsatisfiable="No")]},
            'topologyKey: Invalid value: "a b": name part must',
        ),
        (
            "PodTopologySpread",
            {"defaultingType": "List", "defaultConstraints": [constraint(whenUnsatisfiable="No")]},
            'whenUnsatisfiable: Unsupported value: "No": supported values: "DoNotSchedule", "ScheduleAnyway"',
        ),
        (
            "PodTopologySpread",
            {"defaultingType": "List", "defaultConstraints": [constraint(labelSelector={})]},
            "defaultConstraints[0].labelSelector: Forbidden: constraint must not define a selector",
        ),
        (
            "PodTopologySpread",
            {"defaultingType": "List", "defaultConstraints": [constraint(), constraint(maxSkew=2)]},
            'defaultConstraints[1]: Duplicate value: "{z, ScheduleAnyway}"',
        ),
        (
            "PodTopologySpread",
            {"defaultingType": "List", "defaultConstraints": [constraint(topologyKeys="z")]},
            "defaultConstraints[0].topologyKeys: unknown field",
        ),
    ],
)
def test_what_upstream_refuses_is_refused(plugin, args, complaint):
    text = refused(plugin, args)
    assert text.startswith(f"pluginConfig[{plugin}].args: ")
    assert complaint in text


def test_arguments_that_upstream_takes():
    build("NodeResourcesBalancedAllocation", {"resources": [{"name": "cpu", "weight": 0}, {"name": "a.b/c"}]})
    build("InterPodAffinity", {"hardPodAffinityWeight": 0, "ignorePreferredTermsOfExistingPods": True})
    build("DefaultPreemption", {"minCandidateNodesPercentage": 0, "minCandidateNodesAbsolute": 1})
    build("VolumeBinding", {"bindTimeoutSeconds": 0})
    several = [constraint(), constraint(whenUnsatisfiable="DoNotSchedule", minDomains=2), constraint(topologyKey="y")]
    several[0].update(nodeAffinityPolicy="Ignore", nodeTaintsPolicy="Honor", matchLabelKeys=["a"])
    build("PodTopologySpread", {"defaultingType": "List", "defaultConstraints": several})
    build("PodTopologySpread", {"defaultingType": "List"})


REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"


def added(expression=None, field=None):
    term = {"matchExpressions": [expression] if expression else [], "matchFields": [field] if field else []}
    return {"addedAffinity": {REQUIRED: {"nodeSelectorTerms": [term]}}}


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        (added({"key": "a", "operator": "In"}), "matchExpressions[0].values: Required value: must be specified when"),
        (added({"key": "a", "operator": "Exists", "values": ["x"]}), "values: Forbidden: may not be specified when"),
        (added({"key": "a", "operator": "Gt", "values": ["x"]}), 'values[0]: Invalid value: "x": for'),
        (
            added({"key": "a", "operator": "Gt", "values": ["1", "2"]}),
            "values: Required value: must be specified",
        ),
        (added({"key": "a", "operator": "Is"}), 'operator: Unsupported value: "Is": supported values: "Does'),
        (added({"key": "a b", "operator": "Exists"}), 'matchExpressions[0].key: Invalid value: "a b"'),
        (
            added(None, {"key": "metadata.name", "operator": "Exists"}),
            'Fields[0].operator: Unsupported value: "Ex',
        ),
        (
            added(None, {"key": "metadata.name", "operator": "In"}),
            "Fields[0].values: Required value: must have one",
        ),
        (
            {"addedAffinity": {PREFERRED: [{"weight": 101, "preference": {}}]}},
            f"addedAffinity.{PREFERRED}[0].weight: Invalid value: 101: not in valid range [0, 100]",
        ),
        ({"addedAffinity": {"required": {}}}, "addedAffinity.required: unknown field"),
    ],
)
def test_an_added_affinity_that_could_match_nothing_is_refused(args, complaint):
    assert complaint in refused("NodeAffinity", args)


def test_an_added_affinity_that_is_right():
    for operator, values in (("In", ["x"]), ("NotIn", ["x"]), ("Exists", []), ("DoesNotExist", []), ("Lt", ["-3"])):
        build("NodeAffinity", added({"key": "example.com/a", "operator": operator, "values": values}))
    build("NodeAffinity", added(None, {"key": "metadata.name", "operator": "In", "values": ["n"]}))


def test_names_of_labels():
    for good in ("a", "a.b_c-D", "example.com/a", "a" * 63):
        assert label_name_fault(good) == ""
    for bad in ("", "-a", "a" * 64, "example.com/", "Example.com/a", "/a", "a/b/c"):
        assert label_name_fault(bad)
