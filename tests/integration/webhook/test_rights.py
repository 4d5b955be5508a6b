"""The operator's own identity with exactly the rights that docs/admission.md names."""

import pytest

from nodewright.kube.errors import Invalid
from nodewright.kube.resources import CLUSTERROLEBINDINGS, CLUSTERROLES, DAEMONSETS, ROLEBINDINGS, ROLES, SECRETS

from .conftest import free_port, until
from .test_webhook import daemonset

pytestmark = pytest.mark.needs_cluster

USER = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "system:nodewright:operator"}


def rule(group, resource, verbs, *names):
    found = {"apiGroups": [group], "resources": [resource], "verbs": verbs}
    return {**found, "resourceNames": list(names)} if names else found


@pytest.fixture
async def rights(world):
    meta = {"name": world.name, "namespace": world.namespace}
    role = [
        rule("", "secrets", ["create"]),
        rule("", "secrets", ["list", "watch", "patch"], world.secret),
        rule("coordination.k8s.io", "leases", ["create"]),
        rule("coordination.k8s.io", "leases", ["get", "update"], world.name),
    ]
    wide = [
        rule(
            "admissionregistration.k8s.io",
            "validatingwebhookconfigurations",
            ["list", "watch", "patch"],
            world.name,
        ),
        rule("nodewright.dev", "schedulerprofiles", ["list"]),
    ]
    ref = {"apiGroup": "rbac.authorization.k8s.io", "name": world.name}
    client = world.client
    await client.create(ROLES, {"metadata": meta, "rules": role})
    await client.create(
        ROLEBINDINGS, {"metadata": meta, "roleRef": {**ref, "kind": "Role"}, "subjects": [USER]}, world.namespace
    )
    await client.create(CLUSTERROLES, {"metadata": {"name": world.name}, "rules": wide})
    await client.create(
        CLUSTERROLEBINDINGS,
        {"metadata": {"name": world.name}, "roleRef": {**ref, "kind": "ClusterRole"}, "subjects": [USER]},
    )
    yield
    await client.delete(CLUSTERROLEBINDINGS, world.name)
    await client.delete(CLUSTERROLES, world.name)


async def test_the_documented_rights_are_enough(world, rights, cluster):
    world.kubeconfig = cluster.kubeconfig.parent / "operator.conf"
    port = free_port()
    await world.configure(port)
    thread = world.operator(port)
    await thread.wait_started()
    await world.ready(thread)
    both = {"name": "v", "emptyDir": {}, "hostPath": {"path": "/x"}}
    with pytest.raises(Invalid, match="may not specify more than 1 volume type"):
        await world.client.create(DAEMONSETS, daemonset(world.namespace, volumes=[both]), world.namespace)
    await world.client.delete(SECRETS, world.secret, world.namespace)
    await until(world.stored, 5)


async def test_missing_rights_are_told_by_readiness(world, cluster):
    world.kubeconfig = cluster.kubeconfig.parent / "operator.conf"
    port = free_port()
    await world.configure(port, failure_policy="Ignore")
    thread = world.operator(port)
    await until(lambda: thread.operator.webhook is not None)
    await until(lambda: "cannot read Secret" in (thread.operator.webhook.trouble() or ""))
    await world.client.create(DAEMONSETS, daemonset(world.namespace), world.namespace)
