"""crictl and critest: built from their own module, never looked for in a release."""

import pytest

from nodewright.controlplane import download, gobuild, versions
from nodewright.controlplane.assets import Assets


@pytest.mark.parametrize("name", versions.CRI_CLIENTS)
def test_recipes(name, tmp_path):
    made = gobuild.recipe(name)
    assert (made.module, made.version) == ("sigs.k8s.io/cri-tools", versions.CRI_TOOLS)
    assert made.package == f"sigs.k8s.io/cri-tools/cmd/{name}"
    assert made.test is (name == "critest")  # it is a test binary
    assert versions.CRI_TOOLS in made.ldflags
    cache = Assets(root=tmp_path).cache(name)
    assert cache.directory.name.startswith(f"cri-tools-{versions.CRI_TOOLS}-")
    with pytest.raises(download.Unavailable, match="no release has it"):
        download.fetch(name, cache, None, {}, set())
