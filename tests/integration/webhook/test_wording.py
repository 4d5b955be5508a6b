"""Our texts against the original: kube-apiserver refuses an apps/v1 DaemonSet of that template in the same words."""

import pytest

from nodewright.controllers.admission.daemonset import check
from nodewright.kube.client import Client
from nodewright.kube.codec import encode
from nodewright.kube.config import load
from nodewright.kube.errors import Invalid
from nodewright.kube.resources import APPS_DAEMONSETS
from support.bad_templates import BAD

pytestmark = pytest.mark.needs_cluster


@pytest.mark.parametrize(("template", "expected"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
async def test_upstream_says_the_same(cluster, template, expected):
    ds = {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "x"},
        "spec": {"selector": {"matchLabels": {"app": "x"}}, "template": template},
    }
    async with Client(load(cluster.kubeconfig)) as client:
        with pytest.raises(Invalid) as refused:
            await client.request("POST", APPS_DAEMONSETS.path("default"), params={"dryRun": "All"}, body=encode(ds))
    upstream = {f"{field}: {message}" for field, message in refused.value.causes}
    ours = {str(cause) for cause in check(ds, {})}
    assert ours == set(expected)
    assert ours <= upstream
