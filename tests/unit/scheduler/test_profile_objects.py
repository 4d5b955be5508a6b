"""SchedulerProfile objects: which profiles are served, and what each object is told."""

import msgspec

from nodewright.scheduler.objects import ObjectMeta
from nodewright.scheduler.plugin import Plugin
from nodewright.scheduler.profile import Profile
from nodewright.scheduler.profiles import ProfileSet, SchedulerProfile, Verdict, status_patch
from nodewright.scheduler.registry import Registry


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


class Explosive(Plugin):
    name = "Explosive"

    def __init__(self, args=None):
        raise RuntimeError("boom")


def test_a_plugin_that_cannot_be_made_spoils_its_own_profile_only():
    spec = {"schedulerName": "x", "plugins": {"multiPoint": {"enabled": [{"name": "Explosive"}]}}}
    profiles = ProfileSet({}, Registry({"Explosive": Explosive}))
    served, verdicts = profiles.resolve([item("bad", spec), item("good", {"schedulerName": "fancy"})])
    assert list(served) == ["fancy"]
    assert verdicts["bad"].message == "spec: plugins: plugin 'Explosive' cannot be made: RuntimeError: boom"


def test_a_spec_that_cannot_be_read_names_the_field():
    weight = {"enabled": [{"name": "NodeAffinity", "weight": "much"}]}
    _, verdicts = ProfileSet({}, Registry()).resolve([item("a", {"schedulerName": "x", "plugins": {"score": weight}})])
    assert verdicts["a"].message == "spec: plugins.score.enabled[0].weight: Expected `int`, got `str`"
    _, verdicts = ProfileSet({}, Registry()).resolve([item("a", {"schedulerName": "x", "plugin": {}})])
    assert "plugin" in verdicts["a"].message
    assert "unknown field" in verdicts["a"].message
