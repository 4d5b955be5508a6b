"""Profiles: upstream's merge rules, and errors that name the field."""

import msgspec
import pytest

from nodewright.scheduler.events import Event
from nodewright.scheduler.objects import ObjectMeta
from nodewright.scheduler.plugin import Plugin
from nodewright.scheduler.profile import Profile, ProfileError, profile_from_object
from nodewright.scheduler.profiles import ProfileSet, SchedulerProfile, Verdict, status_patch
from nodewright.scheduler.registry import Registry

FILTERS = [
    "NodeUnschedulable",
    "NodeName",
    "TaintToleration",
    "NodeAffinity",
    "NodePorts",
    "NodeResourcesFit",
]
SCORES = {
    "TaintToleration": 3,
    "NodeAffinity": 2,
    "NodeResourcesFit": 1,
    "NodeResourcesBalancedAllocation": 1,
    "ImageLocality": 1,
}


class Extra(Plugin):
    name = "Extra"
    weight = 7

    def filter(self, ctx):
        return None

    def score(self, ctx):
        return None


def build(**plugins):
    return profile_from_object({"plugins": plugins}, Registry({"Extra": Extra}))


def filters(profile):
    return [p.name for p in profile.filters]


def weights(profile):
    return {s.plugin.name: s.weight for s in profile.scorers}


def test_defaults_are_upstreams():
    profile = Profile()
    assert filters(profile) == FILTERS
    assert weights(profile) == SCORES


def test_a_new_plugin_is_appended_with_its_own_weight_or_the_given_one():
    profile = build(multiPoint={"enabled": [{"name": "Extra"}]})
    assert filters(profile) == [*FILTERS, "Extra"]
    assert weights(profile) == {**SCORES, "Extra": 7}
    assert weights(build(multiPoint={"enabled": [{"name": "Extra", "weight": 2}]}))["Extra"] == 2


def test_a_default_that_is_configured_again_keeps_its_place():
    profile = build(multiPoint={"enabled": [{"name": "TaintToleration", "weight": 9}]})
    assert filters(profile) == FILTERS
    assert weights(profile) == {**SCORES, "TaintToleration": 9}


def test_plugins_can_be_disabled_everywhere_or_at_one_point():
    assert "TaintToleration" not in filters(build(multiPoint={"disabled": [{"name": "TaintToleration"}]}))
    profile = build(score={"disabled": [{"name": "*"}], "enabled": [{"name": "ImageLocality", "weight": 5}]})
    assert filters(profile) == FILTERS
    assert weights(profile) == {"ImageLocality": 5}


def test_star_takes_all_defaults_away_and_enabled_ones_stay():
    profile = build(multiPoint={"disabled": [{"name": "*"}], "enabled": [{"name": "NodeName"}, {"name": "Extra"}]})
    assert filters(profile) == ["NodeName", "Extra"]


def test_names_of_upstream_plugins_that_need_no_class_are_accepted():
    profile = build(multiPoint={"enabled": [{"name": "PrioritySort"}, {"name": "DefaultBinder"}]})
    assert filters(profile) == FILTERS


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        ({"plugins": {"filter": {"enabled": [{"name": "Nope"}]}}}, "no scheduler plugin is named 'Nope'"),
        ({"plugins": {"multiPoint": {"enabled": [{"name": "Extra"}] * 2}}}, r"multiPoint.enabled\[1\].name: 'Extra'"),
        ({"plugins": {"score": {"enabled": [{"name": "Extra", "weight": -1}]}}}, r"score.enabled\[0\].weight"),
        ({"plugins": {"score": {"enabled": [{"name": "Extra", "weight": "x"}]}}}, r"plugins.score.enabled\[0\].weight"),
        ({"pluginConfig": [{"name": "Extra", "args": {}}]}, "'Extra' is not enabled"),
        ({"pluginConfig": [{"name": "NodeName", "args": {}}]}, "'NodeName' takes no arguments"),
        ({"pluginConfig": [{"name": "NodeAffinity", "args": {}}] * 2}, r"pluginConfig\[1\].name"),
        (
            {"pluginConfig": [{"name": "NodeResourcesFit", "args": {"scoringStrategy": {"type": "Best"}}}]},
            r"NodeResourcesFit\].args: .*Best.*scoringStrategy.type",
        ),
        (
            {"pluginConfig": [{"name": "NodeResourcesFit", "args": {"ignored": []}}]},
            r"NodeResourcesFit\].args: .*unknown field `ignored`",
        ),
        (
            {
                "pluginConfig": [
                    {"name": "NodeResourcesBalancedAllocation", "args": {"resources": [{"name": "cpu", "weight": 0}]}}
                ]
            },
            r"resources\[0\].weight: must be from 1 to 100",
        ),
    ],
)
def test_errors_name_the_field(spec, complaint):
    with pytest.raises(ProfileError, match=complaint):
        profile_from_object(spec, Registry({"Extra": Extra}))


def test_arguments_may_carry_type_information():
    args = {"apiVersion": "kubescheduler.config.k8s.io/v1", "kind": "NodeResourcesFitArgs", "ignoredResources": ["a/b"]}
    profile_from_object({"pluginConfig": [{"name": "NodeResourcesFit", "args": args}]})


def test_wakers_are_those_of_the_rejecting_plugins():
    profile = Profile()
    assert profile.wakers({"NodeName"}) == Event.NODE_ADD
    assert profile.wakers({"NodePorts", "NodeName"}) == Event.NODE_ADD | Event.POD_DELETE
    assert profile.wakers(set()) == Event.NONE


# --- SchedulerProfile objects ---------------------------------------------------------------------------------------


def item(name, spec, generation=1, created="2026-01-01T00:00:00Z"):
    meta = ObjectMeta(name=name, uid=f"uid-{name}", generation=generation, creation_timestamp=created)
    return SchedulerProfile(metadata=meta, spec=msgspec.Raw(msgspec.json.encode(spec)))


BAD = {"schedulerName": "x", "plugins": {"multiPoint": {"enabled": [{"name": "Nope"}]}}}


def test_objects_add_to_the_command_lines_profiles_and_replace_them():
    base = {"nodewright": Profile()}
    served, verdicts = ProfileSet(base, Registry()).resolve(
        [item("a", {"schedulerName": "fancy"}), item("b", {"schedulerName": "nodewright"})]
    )
    assert sorted(served) == ["fancy", "nodewright"]
    assert served["nodewright"] is not base["nodewright"]
    assert all(v.accepted for v in verdicts.values())


def test_a_bad_profile_says_why_and_harms_no_other():
    served, verdicts = ProfileSet({}, Registry()).resolve([item("bad", BAD), item("good", {"schedulerName": "fancy"})])
    assert list(served) == ["fancy"]
    assert not verdicts["bad"].accepted
    assert verdicts["bad"].reason == "Invalid"
    assert "no scheduler plugin is named 'Nope'" in verdicts["bad"].message


def test_the_last_good_version_goes_on_being_served():
    profiles = ProfileSet({}, Registry())
    before, _ = profiles.resolve([item("a", {"schedulerName": "x"})])
    after, verdicts = profiles.resolve([item("a", BAD, generation=2)])
    assert after["x"] is before["x"]
    assert "generation 1 goes on being served" in verdicts["a"].message
    fixed, verdicts = profiles.resolve([item("a", {"schedulerName": "x"}, generation=3)])
    assert fixed["x"] is not before["x"]
    assert verdicts["a"].accepted
    assert profiles.resolve([])[0] == {}


def test_the_older_of_two_profiles_for_one_name_is_served():
    items = [
        item("young", {"schedulerName": "x"}, created="2026-02-01T00:00:00Z"),
        item("old", {"schedulerName": "x"}, created="2026-01-01T00:00:00Z"),
    ]
    _, verdicts = ProfileSet({}, Registry()).resolve(items)
    assert verdicts["old"].accepted
    assert verdicts["young"] == Verdict(
        False, "Duplicate", "spec.schedulerName: 'x' is served by the older SchedulerProfile 'old'"
    )


def test_an_unchanged_object_keeps_its_profile():
    profiles = ProfileSet({}, Registry())
    one, _ = profiles.resolve([item("a", {"schedulerName": "x"})])
    two, _ = profiles.resolve([item("a", {"schedulerName": "x"})])
    assert one["x"] is two["x"]


def test_status_is_written_once_and_keeps_the_time_of_the_transition():
    one = item("a", {"schedulerName": "x"}, generation=4)
    first = status_patch(one, Verdict(True, "Served", "m"), "T1")
    condition = first["status"]["conditions"][0]
    assert condition == {
        "type": "Accepted",
        "status": "True",
        "reason": "Served",
        "message": "m",
        "observedGeneration": 4,
        "lastTransitionTime": "T1",
    }
    recorded = msgspec.convert(
        {"metadata": {"name": "a", "generation": 4}, "status": first["status"]}, SchedulerProfile
    )
    assert status_patch(recorded, Verdict(True, "Served", "m"), "T2") is None
    changed = status_patch(recorded, Verdict(True, "Served", "other"), "T2")
    assert changed["status"]["conditions"][0]["lastTransitionTime"] == "T1"
    turned = status_patch(recorded, Verdict(False, "Invalid", "bad"), "T2")
    assert turned["status"]["conditions"][0]["lastTransitionTime"] == "T2"
