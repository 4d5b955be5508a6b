import importlib.resources

import pytest
import yaml

from nodewright import crds
from nodewright.controllers import registry


def test_every_entry_can_be_loaded_under_its_own_name():
    for entry in registry.CONTROLLERS:
        assert entry.load().name == entry.name


def test_what_is_taken_over_is_off_upstream():
    assert registry.replaced(()) == ()
    assert registry.replaced(registry.TAKE_OVERS) == ("daemonset-controller",)


@pytest.mark.parametrize(
    ("wanted", "taken", "names"),
    [
        (["*"], [], ["daemonset", "node-readiness", "configs"]),
        (["*"], ["apps/v1"], ["daemonset", "apps-daemonset", "node-readiness", "configs"]),
        (["*", "-configs"], [], ["daemonset", "node-readiness"]),
        (["*", "-daemonset"], ["apps/v1"], ["apps-daemonset", "node-readiness", "configs"]),
        (["*", "-apps-daemonset"], [], ["daemonset", "node-readiness", "configs"]),
        (["configs"], ["apps/v1"], ["configs"]),
        (["apps-daemonset"], ["apps/v1"], ["apps-daemonset"]),
        ([" daemonset "], [], ["daemonset"]),
    ],
)
def test_selection(wanted, taken, names):
    assert [cls.name for cls in registry.select(wanted, taken)] == names


@pytest.mark.parametrize(
    ("wanted", "taken", "message"),
    [
        (
            ["daemonsets"],
            [],
            "unknown controller 'daemonsets'; known are daemonset, apps-daemonset, node-readiness, configs",
        ),
        (["apps-daemonset"], [], "controller 'apps-daemonset' needs --take-over apps/v1"),
        (["*"], ["apps/v2"], "'apps/v2' cannot be taken over; what can is apps/v1"),
    ],
)
def test_what_is_not_known_is_named_with_what_is(wanted, taken, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        registry.select(wanted, taken)


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


def test_controllers_that_keep_objects_learn_where():
    made = registry.placed(registry.select(["daemonset", "node-readiness"]), "home")
    assert [getattr(factory, "keywords", {}) for factory in made] == [{}, {"namespace": "home"}]
