import pytest

from nodewright.cli.webhook import check_profile
from nodewright.controllers.admission import nodeagentconfig, registry, schedulerprofile
from nodewright.controllers.admission.schedulerprofile import SchedulerProfileReviewer
from nodewright.kube.client import ObjectList
from nodewright.kube.errors import ServerUnavailable

from .test_admission_daemonset import request


def profile(name, scheduler, **spec):
    return {"metadata": {"name": name}, "spec": {"schedulerName": scheduler, **spec}}


def config(name, priority=0, selector=None, **spec):
    return {"metadata": {"name": name}, "spec": {"priority": priority, "nodeSelector": selector or {}, **spec}}


def test_paths():
    assert set(registry.reviewers(None, check_profile)) == {
        "/validate-nodewright-dev-v1alpha1-daemonset",
        "/validate-nodewright-dev-v1alpha1-schedulerprofile",
        "/validate-nodewright-dev-v1alpha1-nodeagentconfig",
    }


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ({"schedulerName": "a"}, ""),
        ({"schedulerName": "a", "plugins": {"score": {"enabled": [{"name": "Nope"}]}}}, "is named 'Nope'"),
        (
            {"schedulerName": "a", "pluginConfig": [{"name": "NodeResourcesFit", "args": {"scoringStrategy": 5}}]},
            "pluginConfig[NodeResourcesFit].args",
        ),
        ({"schedulerName": "a", "pluginConfig": [{"name": "NodePorts", "args": {}}]}, "takes no arguments"),
    ],
)
def test_profiles_are_judged_by_the_scheduler_itself(spec, text):
    said = check_profile(spec)
    assert (text in said) if text else said == ""


def test_a_name_belongs_to_one_profile():
    others = [profile("b", "s"), profile("a", "s"), profile("me", "s"), profile("c", "t")]
    (cause,) = schedulerprofile.check_name(profile("me", "s"), others)
    assert str(cause) == "spec.schedulerName: Duplicate value: \"s\": served by SchedulerProfile 'a'"
    assert schedulerprofile.check_name(profile("me", "u"), others) == []


def test_profile_warnings():
    every = {"disabled": [{"name": "*"}]}
    points = {"preScore": every, "score": every, "preEnqueue": {"enabled": [{"name": "SchedulingGates"}]}, "bind": {}}
    points["multiPoint"] = {"disabled": [{"name": "SchedulingGates"}]}
    spec = {"schedulerName": "default-scheduler", "percentageOfNodesToScore": 5, "plugins": points}
    assert [w.partition(":")[0] for w in schedulerprofile.advise(spec)] == [
        "spec.schedulerName",
        "spec.percentageOfNodesToScore",
        "spec.plugins.preScore.disabled",
        "spec.plugins.multiPoint.disabled",
    ]
    assert schedulerprofile.advise({"schedulerName": "nodewright"}) == []


async def test_profile_review_without_the_list_still_judges_the_object():
    class Down:
        async def list(self, *_args, **_more):
            raise ServerUnavailable(0, "", "away")

    answer = await SchedulerProfileReviewer(Down(), lambda _spec: "no good")(request(profile("p", "s")))
    assert [str(c) for c in answer.causes] == ["spec: Invalid value: no good"]
    assert "away" in answer.warnings[0]


async def test_profile_review():
    class Api:
        async def list(self, *_args, **_more):
            return ObjectList([profile("p", "s")], "1")

    reviewer = SchedulerProfileReviewer(Api(), check_profile)
    assert not (await reviewer(request(profile("p", "s"), profile("p", "s")))).causes
    assert (await reviewer(request(profile("q", "s")))).causes


@pytest.mark.parametrize(
    ("one", "other", "overlap"),
    [
        ({}, {}, True),
        ({"matchLabels": {"a": "1"}}, {}, True),
        ({"matchLabels": {"a": "1"}}, {"matchLabels": {"a": "2"}}, False),
        ({"matchLabels": {"a": "1"}}, {"matchLabels": {"b": "2"}}, True),
        (
            {"matchLabels": {"a": "1"}},
            {"matchExpressions": [{"key": "a", "operator": "In", "values": ["2", "3"]}]},
            False,
        ),
        (
            {"matchExpressions": [{"key": "a", "operator": "In", "values": ["1", "2"]}]},
            {"matchExpressions": [{"key": "a", "operator": "In", "values": ["2", "3"]}]},
            True,
        ),
        ({"matchLabels": {"a": "1"}}, {"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}, False),
        ({"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}, {"matchLabels": {"a": "1"}}, False),
        (
            {"matchLabels": {"a": "1"}},
            {"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["1"]}]},
            False,
        ),
    ],
)
def test_selectors_that_may_meet(one, other, overlap):
    assert nodeagentconfig.may_overlap(one, other) is overlap


def test_contradictions_of_equal_priority_are_told():
    mine = config("me", 5, proxy={"mode": "ipvs"}, maxPods=10)
    same_value = config("same", 5, maxPods=10)
    other_priority = config("later", 6, maxPods=11)
    contradicts = config("z", 5, proxy={"mode": "nftables"}, maxPods=11)
    apart = config("apart", 5, {"matchLabels": {"a": "1"}}, maxPods=12)
    mine["spec"]["nodeSelector"] = {"matchLabels": {"a": "2"}}
    (text,) = nodeagentconfig.overlaps(mine, [mine, same_value, other_priority, contradicts, apart])
    assert text.startswith("NodeAgentConfig 'z' has the same priority")
    assert "spec.maxPods, spec.proxy.mode" in text
