import importlib.resources

import pytest
import yaml

from nodewright import crds
from nodewright.controllers import registry


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
