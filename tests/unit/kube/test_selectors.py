"""Label selectors, node selectors, taints and tolerations."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodewright.kube import selectors
from nodewright.kube.objects import (
    LabelSelector,
    LabelSelectorRequirement,
    NodeSelector,
    NodeSelectorRequirement,
    NodeSelectorTerm,
    Taint,
    Toleration,
)
from nodewright.kube.selectors import SelectorError, node_selector_matches, tolerates, untolerated_taint


@pytest.mark.parametrize(
    ("text", "labels", "expected"),
    [
        ("", {}, True), ("  ", {"a": "b"}, True),
        ("a=b", {"a": "b"}, True), ("a==b", {"a": "b"}, True), ("a=b", {"a": "c"}, False), ("a=b", {}, False),
        ("a!=b", {"a": "b"}, False), ("a!=b", {"a": "c"}, True), ("a!=b", {}, True),
        ("a", {"a": ""}, True), ("a", {}, False), ("!a", {}, True), ("! a", {"a": "x"}, False),
        ("a in (b,c)", {"a": "c"}, True), ("a in (b)", {}, False), ("a in (b, )", {"a": ""}, True),
        ("a notin (b,c)", {"a": "b"}, False), ("a notin (b)", {}, True),
        ("a=", {"a": ""}, True), ("a=,b", {"a": "", "b": "1"}, True),
        ("x.io/a=b,!c,d in (e,f)", {"x.io/a": "b", "d": "f"}, True), ("a=b,a=c", {"a": "b"}, False),
        ("in in (in)", {"in": "in"}, True), ("notin", {"notin": "1"}, True),
    ],
)  # fmt: skip
def test_parse_and_match(text, labels, expected):
    parsed = selectors.parse(text)
    assert parsed.matches(labels) is expected
    assert selectors.parse(selectors.format(parsed)).matches(labels) is expected


@pytest.mark.parametrize(
    "text",
    ["=b", "a=b,", ",a", "a in b", "a in (b", "a in", "a in b)", "a=b=c", "a=b c", "!", "!a=b", "a>5", "a<5", "-a=b",
     "a=b/c", "a/b/c", "/a", "A.io/x", "a" * 64, "a=" + "b" * 64, "a=-b", "ü=1", "a=ü", "(a)", "a notin", "a\x00"],
)  # fmt: skip
def test_bad_texts_are_refused(text):
    with pytest.raises(SelectorError, match="selector"):
        selectors.parse(text)


@given(st.text(max_size=30))
def test_no_text_causes_another_error(text):
    try:
        parsed = selectors.parse(text)
    except SelectorError:
        return
    assert isinstance(parsed.matches({"a": "b"}), bool)


NAMES = st.text("abz019", min_size=1, max_size=3)
REQUIREMENTS = st.one_of(
    st.builds(
        LabelSelectorRequirement, NAMES, st.sampled_from(["In", "NotIn"]), st.lists(NAMES, min_size=1, max_size=3)
    ),
    st.builds(LabelSelectorRequirement, NAMES, st.sampled_from(["Exists", "DoesNotExist"])),
)
SELECTORS = st.builds(LabelSelector, st.dictionaries(NAMES, NAMES, max_size=2), st.lists(REQUIREMENTS, max_size=3))
LABELS = st.dictionaries(NAMES, NAMES, max_size=4)


@given(SELECTORS, LABELS)
def test_the_written_form_means_the_same(selector, labels):
    assert selectors.parse(selectors.format(selector)).matches(labels) == selector.matches(labels)


@given(NAMES, st.lists(NAMES, min_size=1, max_size=3), LABELS)
def test_operators_are_opposites(key, values, labels):
    def one(operator, vals):
        return LabelSelector({}, [LabelSelectorRequirement(key, operator, vals)]).matches(labels)

    assert one("In", values) != one("NotIn", values)
    assert one("Exists", []) != one("DoesNotExist", [])


def test_empty_and_absent_selectors():
    assert LabelSelector().matches({})
    assert not LabelSelector({}, [LabelSelectorRequirement("a", "Near", ["b"])]).matches({"a": "b"})
    assert selectors.format(LabelSelector()) == ""
    with pytest.raises(ValueError, match="nothing"):
        selectors.format(None)


def test_format_is_sorted():
    selector = LabelSelector({"z": "1", "a": "2"}, [LabelSelectorRequirement("m", "In", ["c", "b", "b"])])
    assert selectors.format(selector) == "a=2,m in (b,c),z=1"


def term(*expressions, fields=()):
    def build(items):
        return [NodeSelectorRequirement(k, o, list(v)) for k, o, v in items]

    return NodeSelectorTerm(build(expressions), build(fields))


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        (None, True),
        (NodeSelector([]), False),
        (NodeSelector([NodeSelectorTerm()]), False),
        (NodeSelector([term(("zone", "In", ["a"]))]), True),
        (NodeSelector([term(("zone", "In", ["b"])), term(("cpus", "Gt", ["3"]))]), True),
        (NodeSelector([term(("zone", "In", ["a"]), ("cpus", "Gt", ["4"]))]), False),
        (NodeSelector([term(("cpus", "Lt", ["5"]))]), True),
        (NodeSelector([term(("cpus", "Lt", ["five"]))]), False),
        (NodeSelector([term(("cpus", "Lt", ["9", "8"]))]), False),
        (NodeSelector([term(("zone", "Gt", ["0"]))]), False),
        (NodeSelector([term(("cpus", "Lt", [str(2**63)]))]), False),
        (NodeSelector([term(("gone", "DoesNotExist", []))]), True),
        (NodeSelector([term(("gone", "NotIn", ["x"]))]), True),
        (NodeSelector([term(fields=[("metadata.name", "In", ["n1"])])]), True),
        (NodeSelector([term(fields=[("metadata.name", "NotIn", ["n1"])])]), False),
        (NodeSelector([term(fields=[("metadata.uid", "NotIn", ["n1"])])]), False),
        (NodeSelector([term(("zone", "In", ["a"]), fields=[("metadata.name", "In", ["n2"])])]), False),
    ],
)
def test_node_selectors(selector, expected):
    assert node_selector_matches(selector, {"zone": "a", "cpus": "4"}, "n1") is expected


T = Taint("k", "NoSchedule", "v")


@pytest.mark.parametrize(
    ("toleration", "expected"),
    [
        (Toleration("k", "Equal", "v", "NoSchedule"), True),
        (Toleration("k", "", "v"), True),
        (Toleration("k", "Equal", "w"), False),
        (Toleration("k", "Exists", "", "NoSchedule"), True),
        (Toleration("k", "Exists", "", "NoExecute"), False),
        (Toleration("", "Exists"), True),
        (Toleration("other", "Exists"), False),
        (Toleration("k", "Gt", "0"), False),
        (Toleration("k", "Near", "v"), False),
    ],
)
def test_tolerations(toleration, expected):
    assert tolerates([toleration], T) is expected


def test_untolerated_taint_looks_at_the_effects_asked_for():
    taints = [Taint("p", "PreferNoSchedule"), Taint("a", "NoSchedule"), Taint("b", "NoExecute")]
    found = untolerated_taint(taints, [])
    assert found is not None
    assert found.key == "a"
    assert untolerated_taint(taints, [Toleration("a", "Exists")], ("NoSchedule",)) is None
    assert untolerated_taint(taints, [Toleration("", "Exists")]) is None
    assert not tolerates([], T)
