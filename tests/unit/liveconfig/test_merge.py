"""Which settings win: by table, and by properties of any set of objects."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodewright.kube.api.nodeconfigs import FIELDS, InvalidConfig, fields, precedence
from nodewright_agent.liveconfig.merge import merge
from unit.liveconfig.config_objects import config

LABELS = {"disk": "ssd", "zone": "a"}


def values(merged):
    return {field: setting.value for field, setting in merged.settings.items()}


def test_nothing_is_nothing():
    merged = merge([], LABELS)
    assert merged == ({}, {}, {})
    assert merged.get("maxPods") is None


def test_field_by_field_the_highest_priority_wins():
    low = config("low", {"priority": 1, "maxPods": 10, "containerLogMaxFiles": 3})
    high = config("high", {"priority": 2, "maxPods": 20, "proxy": {"mode": "ipvs"}})
    merged = merge([low, high], LABELS)
    assert values(merged) == {"maxPods": 20, "containerLogMaxFiles": 3, "proxy.mode": "ipvs"}
    assert merged.settings["containerLogMaxFiles"].source == "low"
    assert merged.selected == {"high": {"maxPods", "proxy.mode"}, "low": {"maxPods", "containerLogMaxFiles"}}


@pytest.mark.parametrize(
    ("first", "second", "winner"),
    [
        ({"priority": 0}, {"priority": -1}, "first"),
        ({}, {"priority": 1}, "second"),
        ({"creationTimestamp": "2026-01-02T00:00:00Z"}, {"creationTimestamp": "2026-01-01T00:00:00Z"}, "second"),
        ({"creationTimestamp": "2026-01-02T00:00:00Z"}, {"creationTimestamp": "2026-01-03T00:00:00Z"}, "first"),
        ({}, {}, "first"),
    ],
)
def test_priority_then_age_then_name(first, second, winner):
    made = []
    for name, what in (("first", first), ("second", second)):
        spec = {"maxPods": 1, **({"priority": what["priority"]} if "priority" in what else {})}
        meta = {key: value for key, value in what.items() if key != "priority"}
        made.append(config(name, spec, **meta))
    for order in (made, made[::-1]):
        assert merge(order, LABELS).settings["maxPods"].source == winner


@pytest.mark.parametrize(
    ("selector", "meant"),
    [
        (None, True),
        ({}, True),
        ({"matchLabels": {"disk": "ssd"}}, True),
        ({"matchLabels": {"disk": "hdd"}}, False),
        ({"matchLabels": {"disk": "ssd", "zone": "b"}}, False),
        ({"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a", "b"]}]}, True),
        ({"matchExpressions": [{"key": "zone", "operator": "NotIn", "values": ["a"]}]}, False),
        ({"matchExpressions": [{"key": "gpu", "operator": "DoesNotExist"}]}, True),
        ({"matchExpressions": [{"key": "gpu", "operator": "Exists"}]}, False),
        ({"matchExpressions": [{"key": "zone", "operator": "Near", "values": ["a"]}]}, False),
        ({"matchExpressions": [{"key": "zone", "operator": "In"}]}, False),
        ({"matchLabels": "disk=ssd"}, False),
    ],
)
def test_selection(selector, meant):
    spec = {"maxPods": 5} if selector is None else {"maxPods": 5, "nodeSelector": selector}
    merged = merge([config("c", spec)], LABELS)
    assert bool(merged.selected) is meant
    assert merged.get("maxPods") == (5 if meant else None)
    assert merged.invalid == {}


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ({"proxy": {"mode": "magic"}}, "proxy.mode: 'magic' is none of auto, ipvs, nftables, iptables"),
        ({"proxy": "ipvs"}, "proxy: must be a mapping"),
        ({"proxy": {"ipvs": {"scheduler": ""}}}, "proxy.ipvs.scheduler: must be a text"),
        ({"maxPods": -1}, "maxPods: -1 is no whole number from 0 on"),
        ({"maxPods": True}, "maxPods: True is no whole number from 0 on"),
        ({"containerLogMaxFiles": 1}, "containerLogMaxFiles: 1 is no whole number from 2 on"),
        ({"containerLogMaxSize": "0"}, "containerLogMaxSize: '0' is not greater than zero"),
        ({"containerLogMaxSize": "ten"}, "containerLogMaxSize: not a quantity: 'ten'"),
        ({"evictionHard": {"memory.available": "x"}}, "evictionHard: memory.available: not a quantity: 'x'"),
        ({"evictionHard": {"memory.available": 5}}, "evictionHard: memory.available: must be a text"),
        ({"evictionSoftGracePeriod": {"memory.available": 5}}, "must be a mapping of signals to durations"),
        ({"priority": "high"}, "priority: must be a whole number"),
        ({"shinyNewField": 1}, "shinyNewField: this version of Nodewright does not know the field"),
    ],
)
def test_an_invalid_object_is_left_out_whole_with_the_reason(spec, text):
    bad = config("bad", {"priority": 9, "maxPods": 1, **spec})
    good = config("good", {"maxPods": 7})
    merged = merge([bad, good], LABELS)
    assert merged.get("maxPods") == 7
    assert text in merged.invalid["bad"]
    assert "bad" not in merged.selected


def test_an_invalid_object_that_means_other_nodes_is_no_concern_of_ours():
    other = config("other", {"maxPods": -1, "nodeSelector": {"matchLabels": {"disk": "hdd"}}})
    assert merge([other], LABELS) == ({}, {}, {})


def test_an_object_that_is_being_deleted_has_no_say():
    leaving = config("leaving", {"maxPods": 1}, deletionTimestamp="2026-01-02T00:00:00Z")
    assert merge([leaving], LABELS) == ({}, {}, {})


def test_thresholds_of_two_objects_are_not_mixed():
    one = config("one", {"priority": 1, "evictionHard": {"memory.available": "5%"}})
    two = config("two", {"evictionHard": {"nodefs.available": "10%"}})
    assert merge([one, two], LABELS).get("evictionHard") == {"memory.available": "5%"}


def test_every_field_of_the_schema_is_known():
    import yaml

    from nodewright import crds

    (version,) = yaml.safe_load(crds.manifest("nodeagentconfigs.nodewright.dev"))["spec"]["versions"]
    spec = set(version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"])
    known = {field.partition(".")[0] for field in FIELDS}
    assert spec == known | {"nodeSelector", "priority"}
    samples = {"evictionHard": {"memory.available": "100Mi"}, "containerLogMaxSize": "1.5Mi", "maxPods": 0}
    assert fields(config("c", samples)) == samples


specs = st.fixed_dictionaries(
    {},
    optional={
        "priority": st.integers(-2, 2),
        "maxPods": st.integers(-1, 3),
        "containerLogMaxFiles": st.integers(2, 4),
        "proxy": st.fixed_dictionaries({}, optional={"mode": st.sampled_from(["auto", "ipvs", "nftables"])}),
        "nodeSelector": st.sampled_from([{}, {"matchLabels": {"disk": "ssd"}}, {"matchLabels": {"disk": "hdd"}}]),
    },
)


@given(st.lists(st.tuples(specs, st.sampled_from(["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"])), max_size=6))
def test_every_setting_is_that_of_the_first_valid_object_that_has_it(drawn):
    made = [config(f"c{n}", spec, creationTimestamp=born) for n, (spec, born) in enumerate(drawn)]
    merged = merge(made, LABELS)
    shuffled = made[:]
    random.Random(1).shuffle(shuffled)
    assert merge(shuffled, LABELS) == merged, "the order in which objects come has no meaning"
    by_name = {one.metadata.name: one for one in made}
    for field, (value, source) in merged.settings.items():
        assert fields(by_name[source])[field] == value
        for name, own in merged.selected.items():
            if field in own:
                assert precedence(by_name[source]) <= precedence(by_name[name])
    assert set().union(*merged.selected.values()) == set(merged.settings)
    assert not merged.invalid.keys() & merged.selected.keys()
    for one in made:
        if one.metadata.name in merged.invalid:
            with pytest.raises(InvalidConfig):
                fields(one)
