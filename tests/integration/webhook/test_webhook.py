"""The API server calls the webhook: what users see, and what becomes of certificates."""

import asyncio
import base64
import json
import socket
import ssl

import aiohttp
import pytest

from nodewright.kube.client import PatchType
from nodewright.kube.errors import ApiError, Invalid
from nodewright.kube.resources import DAEMONSETS, NODEAGENTCONFIGS, SCHEDULERPROFILES, SECRETS
from nodewright.kube.resources import VALIDATINGWEBHOOKCONFIGURATIONS as CONFIGURATIONS

from .conftest import free_port, until

pytestmark = pytest.mark.needs_cluster


def daemonset(namespace, name="ds", **pod):
    return {
        "apiVersion": "nodewright.dev/v1alpha1",
        "kind": "DaemonSet",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "c", "image": "i"}], **pod},
            },
        },
    }


@pytest.fixture
async def serving(world):
    port = free_port()
    await world.configure(port)
    thread = world.operator(port)
    await thread.wait_started()
    await world.ready(thread)
    return thread


@pytest.fixture
async def apply(world, serving, kubectl):
    """kubectl apply; gives what a user sees."""

    async def apply(obj):
        try:
            return await asyncio.to_thread(kubectl, "apply", "-f", "-", stdin=json.dumps(obj))
        except RuntimeError as error:
            return str(error)

    return apply


async def test_own_rules_show_as_upstreams_do(world, apply):
    said = await apply(
        daemonset(
            world.namespace,
            containers=[
                {
                    "name": "c",
                    "image": "i",
                    "volumeMounts": [{"name": "absent", "mountPath": "/x"}],
                    "resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}},
                }
            ],
            restartPolicy="Always",
            tolerations=[{"key": "a", "operator": "Exists", "value": "b"}],
        )
    )
    assert 'The DaemonSet "ds" is invalid' in said
    path = "spec.template.spec"
    assert f'* {path}.containers[0].volumeMounts[0].name: Not found: "absent"' in said
    assert (
        f'* {path}.containers[0].resources.requests: Invalid value: "2": must be less than or equal to cpu limit of 1'
        in said
    )
    assert (
        f"* {path}.tolerations[0].operator: Invalid value: \"b\": value must be empty when `operator` is 'Exists'"
        in said
    )


async def test_the_api_servers_own_rules_reach_the_template(world, apply):
    both = {"name": "v", "emptyDir": {}, "hostPath": {"path": "/x"}}
    said = await apply(daemonset(world.namespace, volumes=[both]))
    assert "spec.template.spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type" in said
    said = await apply(daemonset(world.namespace, dnsPolicy="None"))
    assert "spec.template.spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None" in said


async def test_good_ones_pass_with_and_without_warnings(world, apply):
    assert "daemonset.nodewright.dev/ds created" in await apply(daemonset(world.namespace))
    # a change of labels is none of the webhook's business, a change of the template is
    await world.client.patch(DAEMONSETS, "ds", {"metadata": {"labels": {"a": "b"}}}, world.namespace)
    bad = [{"name": "c", "image": "i", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}]
    change = {"spec": {"template": {"spec": {"containers": bad}}}}
    with pytest.raises(Invalid, match="Not found"):
        await world.client.patch(DAEMONSETS, "ds", change, world.namespace)


async def test_what_may_change_is_a_warning(world, serving, kubectl):
    """A Pod that admission refuses today, for its ServiceAccount does not exist."""
    refused = daemonset(world.namespace, "other", serviceAccountName="nobody")
    answer = await serving_answer(serving, refused, world)
    assert answer["allowed"] is True
    (warning,) = answer["warnings"]
    assert warning.startswith("pods would be refused now: ")
    assert 'serviceaccount "nobody" not found' in warning


async def serving_answer(thread, obj, world):
    """What the webhook itself answers, called as the API server does."""
    stored = await world.stored()
    context = ssl.create_default_context(cadata=base64.b64decode(stored["data"]["ca.crt"]).decode())
    review = {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "u",
            "kind": {"group": "nodewright.dev", "version": "v1alpha1", "kind": obj["kind"]},
            "operation": "CREATE",
            "name": obj["metadata"]["name"],
            "namespace": obj["metadata"].get("namespace", ""),
            "object": obj,
        },
    }
    port = thread.operator.webhook.server.port
    url = f"https://127.0.0.1:{port}/validate-nodewright-dev-v1alpha1-{obj['kind'].lower()}?timeout=10s"
    async with aiohttp.ClientSession() as session, session.post(url, json=review, ssl=context) as response:
        assert response.status == 200, await response.text()
        body = await response.json()
    await asyncio.sleep(0)
    assert body["response"]["uid"] == "u"
    return body["response"]


async def test_scheduler_profiles(world, apply):
    def profile(name, scheduler, **spec):
        kind = {"apiVersion": "nodewright.dev/v1alpha1", "kind": "SchedulerProfile", "metadata": {"name": name}}
        return {**kind, "spec": {"schedulerName": scheduler, **spec}}

    one, two = f"{world.name}-a", f"{world.name}-b"
    plugins = {"score": {"enabled": [{"name": "Nonsense"}]}}
    said = await apply(profile(one, one, plugins=plugins))
    assert "no scheduler plugin is named 'Nonsense'" in said
    assert "created" in await apply(profile(one, one))
    try:
        said = await apply(profile(two, one))
        assert f"spec.schedulerName: Duplicate value: \"{one}\": served by SchedulerProfile '{one}'" in said
    finally:
        await world.client.delete(SCHEDULERPROFILES, one)


async def test_node_agent_configs_that_contradict_are_told(world, serving):
    first = f"{world.name}-first"
    spec = {"proxy": {"mode": "ipvs"}, "priority": 77}
    await world.client.create(NODEAGENTCONFIGS, {"metadata": {"name": first}, "spec": spec})
    try:
        second = {
            "kind": "NodeAgentConfig",
            "metadata": {"name": "second"},
            "spec": {"proxy": {"mode": "nftables"}, "priority": 77},
        }
        answer = await serving_answer(serving, second, world)
    finally:
        await world.client.delete(NODEAGENTCONFIGS, first)
    assert answer["allowed"] is True
    assert f"'{first}' has the same priority" in answer["warnings"][0]
    assert "spec.proxy.mode" in answer["warnings"][0]


async def test_an_emptied_ca_bundle_is_written_again(world, serving):
    before = await world.bundles()
    assert before[0]
    assert len(set(before)) == 1
    patch = [{"op": "replace", "path": "/webhooks/1/clientConfig/caBundle", "value": ""}]
    await world.client.patch(CONFIGURATIONS, world.name, patch, kind=PatchType.JSON)

    async def repaired():
        return await world.bundles() == before

    await until(repaired, 5)


async def test_a_deleted_secret_is_made_again_without_a_refused_call(world, serving):
    before = await world.stored()
    calls = asyncio.create_task(keep_calling(world))
    await asyncio.sleep(0.3)
    await world.client.delete(SECRETS, world.secret, world.namespace)

    async def renewed():
        stored = await world.stored()
        return stored is not None and stored["data"]["tls.crt"] != before["data"]["tls.crt"]

    await until(renewed, 5)
    stored = await world.stored()
    assert stored["type"] == "kubernetes.io/tls"

    async def followed():
        return set(await world.bundles()) == {stored["data"]["ca.crt"]}

    await until(followed, 5)
    await until(lambda: serves(serving, stored), 10)  # the new certificate, after the API server had time to trust it
    calls.cancel()
    results = (await asyncio.gather(calls, return_exceptions=True))[0]
    assert isinstance(results, asyncio.CancelledError), results
    assert await world.client.create(DAEMONSETS, daemonset(world.namespace, "after"), world.namespace)


def serves(thread, stored):
    """Whether new connections get the certificate that is stored."""
    port = thread.operator.webhook.server.port
    context = ssl._create_unverified_context()
    with socket.create_connection(("127.0.0.1", port)) as raw, context.wrap_socket(raw) as secure:
        der = secure.getpeercert(binary_form=True)
    return ssl.DER_cert_to_PEM_cert(der).split() == base64.b64decode(stored["data"]["tls.crt"]).decode().split()


async def keep_calling(world):
    """Create DaemonSets all the time, failurePolicy Fail; raises at the first that could not be reviewed."""
    number = 0
    while True:
        number += 1
        await world.client.create(DAEMONSETS, daemonset(world.namespace, f"call-{number}"), world.namespace)
        await asyncio.sleep(0.05)


async def test_two_operators_agree_on_one_secret(world):
    ports = free_port(), free_port()
    await world.configure(ports[0])
    threads = [world.operator(port) for port in ports]
    for thread in threads:
        await world.ready(thread)
    stored = await world.stored()
    assert set(await world.bundles()) == {stored["data"]["ca.crt"]}
    # the standby serves as well
    assert sum(t.operator.elector is not None and t.operator.elector.is_leader for t in threads) <= 1
    for thread in threads:
        await until(lambda t=thread: serves(t, stored), 10)
        assert (await serving_answer(thread, daemonset(world.namespace, "any"), world))["allowed"] is True


async def test_a_secret_of_somebody_else_is_left_alone(world):
    theirs = {"metadata": {"name": world.secret, "namespace": world.namespace}, "stringData": {"a": "b"}}
    await world.client.create(SECRETS, theirs, world.namespace)
    port = free_port()
    await world.configure(port)
    thread = world.operator(port)
    await until(lambda: thread.operator.webhook is not None)
    await until(lambda: "was not made by this operator" in (thread.operator.webhook.trouble() or ""))
    assert set((await world.stored())["data"]) == {"a"}
    assert set(await world.bundles()) == {""}


async def test_failures_follow_the_failure_policy(world, serving):
    """Stopped server: Fail refuses."""
    await serving.stop()
    with pytest.raises(ApiError, match="failed calling webhook"):
        await world.client.create(DAEMONSETS, daemonset(world.namespace, "late"), world.namespace)
