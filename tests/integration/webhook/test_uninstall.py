"""What an operator made under its ServiceAccount goes with it: nobody else would remove it after an uninstall."""

import pytest
import yaml

from nodewright.kube.errors import NotFound
from nodewright.kube.resources import LEASES

from .conftest import free_port, until

pytestmark = pytest.mark.needs_cluster


async def test_secret_and_lease_go_with_the_account(world, controller_manager, kubectl, tmp_path):
    name, namespace = world.name, world.namespace
    kubectl("create", "serviceaccount", name, f"--namespace={namespace}")
    subject = f"--serviceaccount={namespace}:{name}"
    kubectl("create", "clusterrolebinding", name, "--clusterrole=cluster-admin", subject)
    try:
        # with TLS as before, and the account's token in place of the certificate
        data = yaml.safe_load(controller_manager.kubeconfig.read_text())
        (user,) = data["users"]
        user["user"] = {"token": kubectl("create", "token", name, f"--namespace={namespace}").strip()}
        world.kubeconfig = tmp_path / "kubeconfig"
        world.kubeconfig.write_text(yaml.safe_dump(data))
        port = free_port()
        await world.configure(port)
        thread = world.operator(port)
        await thread.wait_started()
        await world.ready(thread)
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "name": name}
        for made in (await world.stored(), await world.client.get(LEASES, name, namespace)):
            (owner,) = made["metadata"]["ownerReferences"]
            assert {key: owner[key] for key in account} == account
        # Helm deletes the Deployment first, but does not wait for its Pods.
        kubectl("delete", "serviceaccount", name, f"--namespace={namespace}")
        await thread.stop()

        async def lease():
            try:
                return await world.client.get(LEASES, name, namespace)
            except NotFound:
                return None

        async def gone():
            return await world.stored() is None and await lease() is None

        await until(gone, 30)
    finally:
        kubectl("delete", "clusterrolebinding", name)
