"""What the API server writes into an apps/v1 DaemonSet's template by itself must not count as a change of it."""

import pytest

from nodewright.controllers.daemonset.canonical import canonical
from nodewright.kube.resources import APPS_DAEMONSETS
from support.rich_templates import TEMPLATES

pytestmark = pytest.mark.needs_cluster


async def defaulted(client, namespace, template):
    """The template as apps/v1 stores it."""
    labels = template["metadata"]["labels"]
    spec = {"selector": {"matchLabels": labels}, "template": template}
    body = {"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "x"}, "spec": spec}
    answer = await client.create(APPS_DAEMONSETS, body, namespace)
    await client.delete(APPS_DAEMONSETS, "x", namespace)
    return answer["spec"]["template"]


@pytest.mark.parametrize("name", TEMPLATES)
async def test_what_the_server_adds_is_no_change(client, namespace, name):
    written = TEMPLATES[name]
    stored = await defaulted(client, namespace, written)
    assert canonical(stored) == canonical(written)
