import importlib.resources

import pytest
import yaml

from nodewright import crds
from nodewright.controllers import registry
from nodewright.controllers.configs import review


def test_every_entry_can_be_loaded_under_its_own_name():
    for entry in registry.CONTROLLERS:
        assert entry.load().name == entry.name


def test_nothing_of_kube_controller_manager_is_replaced_yet():
    assert registry.REPLACED == ()


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        (["*"], ["daemonset", "configs"]),
        (["*", "-configs"], ["daemonset"]),
        (["configs"], ["configs"]),
        ([" daemonset "], ["daemonset"]),
    ],
)
def test_selection(wanted, names):
    assert [cls.name for cls in registry.select(wanted)] == names


def test_an_unknown_controller_is_named_with_the_known_ones():
    with pytest.raises(ValueError, match="unknown controller 'daemonsets'; known are daemonset, configs"):
        registry.select(["daemonsets"])


def test_that_agents_do_not_apply_a_node_config_yet_is_said():
    (verdict,) = review.node_configs([{"metadata": {"name": "c"}}]).values()
    assert (verdict.accepted, verdict.reason) == (False, "NotApplied")


def test_status_is_written_only_where_it_says_something_new():
    obj = {"metadata": {"name": "p", "generation": 2, "resourceVersion": "5"}, "spec": {}}
    verdict = review.Verdict(True, "Valid", "")
    patch = review.status_patch(obj, verdict, "2026-01-01T00:00:00Z")
    assert patch["metadata"]["resourceVersion"] == "5"
    (condition,) = patch["status"]["conditions"]
    assert (condition["status"], condition["observedGeneration"]) == ("True", 2)
    obj["status"] = patch["status"]
    assert review.status_patch(obj, verdict, "2026-01-02T00:00:00Z") is None
    refused = review.status_patch(obj, review.Verdict(False, "X", "y"), "2026-01-02T00:00:00Z")
    assert refused["status"]["conditions"][0]["lastTransitionTime"] == "2026-01-02T00:00:00Z"


def test_other_conditions_are_kept():
    other = {"type": "Applied", "status": "True"}
    obj = {
        "metadata": {"name": "p", "generation": 1, "resourceVersion": "5"},
        "spec": {},
        "status": {"conditions": [other]},
    }
    patch = review.status_patch(obj, review.Verdict(True, "Valid", ""), "2026-01-01T00:00:00Z")
    assert patch["status"]["conditions"][0] == other


def test_crds_are_package_data_and_small_enough_for_kubectl_apply():
    files = {f.name for f in importlib.resources.files(crds).iterdir() if f.name.endswith(".yaml")}
    assert files == {f"{name}.yaml" for name in crds.NAMES}
    for name in crds.NAMES:
        definition = yaml.safe_load(crds.manifest(name))
        assert definition["metadata"]["name"] == name
        assert len(crds.manifest(name)) < 1_000_000
        (version,) = definition["spec"]["versions"]
        assert version["subresources"] == {"status": {}}
        assert definition["spec"]["names"]["shortNames"]
        assert "conditions" in version["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"]
