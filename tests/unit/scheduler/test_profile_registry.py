"""Plugins by entry point: found by name, looked at before they are used, and refused with a reason."""

from pathlib import Path

import pytest

from nodewright.scheduler.registry import ENTRY_POINT_GROUP, Registry, UnknownPluginError

ROOT = Path(__file__).parents[3]
GOOD = "from nodewright.scheduler.plugin import Plugin\n\n\nclass {name}(Plugin):\n    name = '{name}'\n"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Makes installed packages: a module, and a name for a class in it."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def make(module, name, text):
        (tmp_path / f"{module}.py").write_text(text)
        info = tmp_path / f"{module}-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1\n")
        (info / "entry_points.txt").write_text(f"[{ENTRY_POINT_GROUP}]\n{name} = {module}:{name}\n")

    return make


def test_a_plugin_is_found_once_its_package_is_there(package):
    registry = Registry()
    assert not registry.knows("LateComer")
    with pytest.raises(UnknownPluginError, match="no scheduler plugin is named 'LateComer'"):
        registry.find("LateComer")
    package("registry_late", "LateComer", GOOD.format(name="LateComer"))
    assert registry.knows("LateComer")
    assert registry.find("LateComer").name == "LateComer"
    assert registry.find("LateComer") is registry.find("LateComer")


def test_a_name_in_two_packages_is_nobodys(package):
    for module in ("registry_one", "registry_two"):
        package(module, "Twice", GOOD.format(name="Twice"))
    with pytest.raises(UnknownPluginError, match="in several packages: registry_one:Twice, registry_two:Twice"):
        Registry().find("Twice")


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ("    weight = 0\n", "has weight 0, which is not in the range of 1 to 2147483647"),
        ("    weight = '1'\n", "has weight = '1', which is no int"),
        ("    reads = None\n", "has reads = None, which is no PodPart"),
        ("    events = 1\n", "has events = 1, which is no Event"),
        ("    args_type = dict\n", "has args_type = <class 'dict'>, which is no msgspec.Struct"),
        ("    async def score(self, ctx):\n        return None\n", "has an async score; only pre_bind may await"),
        ("    def pre_bind(self, *args):\n        return None\n", "has a pre_bind that is not async"),
    ],
)
def test_a_class_that_could_not_work_is_refused(package, body, fault, request):
    module = f"registry_bad_{abs(hash(request.node.name))}"
    package(module, "Bad", GOOD.format(name="Bad") + body)
    with pytest.raises(UnknownPluginError) as caught:
        Registry().find("Bad")
    assert str(caught.value) == f"scheduler plugin 'Bad' ({module}:Bad) {fault}"


def test_the_documented_example_is_the_packaged_one():
    text = (ROOT / "docs/scheduler.md").read_text()
    source = (ROOT / "examples/scheduler-plugin/quiet_nodes.py").read_text()
    assert f"```python\n{source}```" in text
    assert len([line for line in source.splitlines() if line.strip()]) <= 20


def test_the_group_is_what_packages_write():
    assert f'"{ENTRY_POINT_GROUP}"' in (ROOT / "examples/scheduler-plugin/pyproject.toml").read_text()
