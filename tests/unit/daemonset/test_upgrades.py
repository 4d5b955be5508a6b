"""An upgrade of Nodewright, or a change of who serves a DaemonSet, never restarts a Pod: histories are taken over."""

import copy
import itertools

import pytest

from nodewright.controllers.daemonset.model import HASH_LABEL
from nodewright.controllers.daemonset.revisions import split, template_hash
from nodewright.kube.client import PatchType
from nodewright.kube.resources import CONTROLLERREVISIONS, PODS
from support.daemonset_lab import AppsLab, Lab
from support.daemonset_objects import daemonset, revision
from support.rich_templates import TEMPLATES


def backwards(value):
    """The same JSON with the keys of its objects in another order."""
    if isinstance(value, dict):
        return {key: backwards(value[key]) for key in sorted(value, reverse=True)}
    return [backwards(item) for item in value] if isinstance(value, list) else value


def with_nulls(template):
    """As an older writer may have had it: nulls and empty values where nothing is."""
    out = copy.deepcopy(template)
    out["metadata"] = {"creationTimestamp": None, "annotations": None, **out["metadata"]}
    out["spec"] |= {"tolerations": out["spec"].get("tolerations"), "hostname": out["spec"].get("hostname", "")}
    for container in out["spec"]["containers"]:
        container.setdefault("resources", {})
        container.setdefault("env", [])
        container.setdefault("workingDir", "")
    return out


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_is_found_in_whatever_form_it_was_kept(name):
    template = TEMPLATES[name]
    kept = revision("by-another", backwards(with_nulls(template)), hash="abc", number=3)
    others = [revision(f"old{i}", {"metadata": {}, "spec": {"containers": [{"name": str(i)}]}}) for i in range(2)]
    history = split(daemonset(template), [*others, kept])
    assert [r.metadata.name for r in history.current] == ["by-another"]


def test_no_two_templates_are_taken_for_the_same():
    hashes = {name: template_hash(template, 0) for name, template in TEMPLATES.items()}
    twins = [pair for pair in itertools.combinations(sorted(hashes), 2) if hashes[pair[0]] == hashes[pair[1]]]
    assert twins == EQUAL


# Two ways to write one thing.
EQUAL = [
    ("no volume source", "volume emptyDir"),
]


@pytest.mark.parametrize("kind", [Lab, AppsLab])
def test_another_version_that_takes_over_changes_nothing(kind):
    """The predecessor had other hashes, another order of keys, nulls and defaults."""
    lab = kind({"n1": "a", "n2": "b"})
    try:
        lab.settle()
        (made,) = lab.server.objects["controllerrevisions"].values()
        template = backwards(with_nulls(lab.template()))
        template["spec"]["containers"][0]["imagePullPolicy"] = "Always"  # image v1 has no tag
        body = {
            "metadata": {
                "name": "ds-5d4f8c7b9",
                "labels": {"app": "a", HASH_LABEL: "5d4f8c7b9"},
                "ownerReferences": made["metadata"]["ownerReferences"],
            },
            "data": {"spec": {"template": {**template, "$patch": "replace"}}},
            "revision": 1,
        }
        lab.server.do("POST", CONTROLLERREVISIONS.path("ns"), body)
        lab.server.do("DELETE", CONTROLLERREVISIONS.path("ns", made["metadata"]["name"]))
        for key in list(lab.server.objects["pods"]):
            patch = {"metadata": {"labels": {HASH_LABEL: "5d4f8c7b9"}}}
            lab.server.do("PATCH", PODS.path(*key.split("/")), patch, PatchType.MERGE)
        before = {p["metadata"]["uid"] for p in lab.server.objects["pods"].values()}
        lab.restart()
        lab.settle()
        assert {p["metadata"]["uid"] for p in lab.server.objects["pods"].values()} == before
        assert list(lab.server.objects["controllerrevisions"]) == ["ns/ds-5d4f8c7b9"]
    finally:
        lab.close()
