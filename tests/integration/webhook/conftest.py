"""The operator with its webhook, called by the real kube-apiserver through a URL on loopback."""

import asyncio
import contextlib
import socket
import uuid

import pytest

from nodewright.cli import webhook as cli_webhook
from nodewright.controllers.configs.controller import ConfigController
from nodewright.framework.process import Options
from nodewright.framework.webhook.options import WebhookOptions
from nodewright.kube.client import Client
from nodewright.kube.config import load
from nodewright.kube.errors import NotFound
from nodewright.kube.resources import DAEMONSETS, SECRETS, VALIDATINGWEBHOOKCONFIGURATIONS
from support.operator_thread import OperatorThread

KINDS = {"daemonsets": "daemonset", "schedulerprofiles": "schedulerprofile", "nodeagentconfigs": "nodeagentconfig"}


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


def configuration(name, port, *, failure_policy="Fail"):
    """As the chart has it, but for the URL."""
    return {
        "metadata": {"name": name},
        "webhooks": [
            {
                "name": f"{plural}.nodewright.dev",
                "admissionReviewVersions": ["v1"],
                "sideEffects": "None",
                "timeoutSeconds": 10,
                "failurePolicy": failure_policy,
                "clientConfig": {"url": f"https://127.0.0.1:{port}/validate-nodewright-dev-v1alpha1-{kind}"},
                "rules": [
                    {
                        "apiGroups": ["nodewright.dev"],
                        "apiVersions": ["v1alpha1"],
                        "operations": ["CREATE", "UPDATE"],
                        "resources": [plural],
                    }
                ],
                "matchConditions": [
                    {"name": "not-being-deleted", "expression": "!has(object.metadata.deletionTimestamp)"},
                    {"name": "spec-changed", "expression": "oldObject == null || object.spec != oldObject.spec"},
                ],
            }
            for plural, kind in KINDS.items()
        ],
    }


class World:
    """Operators with webhooks, and the objects around them."""

    def __init__(self, client, kubeconfig, namespace):
        self.client = client
        self.kubeconfig = kubeconfig
        self.namespace = namespace
        self.name = f"w-{uuid.uuid4().hex[:6]}"
        self.secret = "webhook-tls"
        self.threads = []

    def operator(self, port, **more):
        options = Options(
            kubeconfig=self.kubeconfig,
            lease_namespace=self.namespace,
            lease_name=self.name,
            metrics_host="127.0.0.1",
            metrics_port=0,
            webhook=WebhookOptions(
                host="127.0.0.1",
                port=port,
                service=(self.namespace, "webhook"),
                configuration=self.name,
                secret=self.secret,
                extra_names=("127.0.0.1",),
            ),
            **more,
        )
        thread = OperatorThread(options, [ConfigController], cli_webhook.reviewers)
        self.threads.append(thread)
        return thread

    async def configure(self, port, **more):
        await self.client.create(VALIDATINGWEBHOOKCONFIGURATIONS, configuration(self.name, port, **more))

    async def configured(self):
        return await self.client.get(VALIDATINGWEBHOOKCONFIGURATIONS, self.name)

    async def bundles(self):
        return [w["clientConfig"].get("caBundle", "") for w in (await self.configured())["webhooks"]]

    async def stored(self):
        """The Secret, None while it is absent."""
        try:
            return await self.client.get(SECRETS, self.secret, self.namespace)
        except NotFound:
            return None

    async def ready(self, thread):
        """Until the webhook's check of readiness passes, standby or not."""
        await until(lambda: thread.operator.webhook is not None and thread.operator.webhook.trouble() is None)

    async def close(self):
        # The namespace stays behind, being terminated: a DaemonSet in it would keep later operators busy.
        await self.client.request("DELETE", DAEMONSETS.path(self.namespace))
        with contextlib.suppress(NotFound):
            await self.client.delete(VALIDATINGWEBHOOKCONFIGURATIONS, self.name)
        for thread in self.threads:
            await thread.stop()


async def until(condition, timeout=15.0):
    """Poll a condition, which may be a coroutine function."""
    async with asyncio.timeout(timeout):
        while True:
            value = condition()
            if asyncio.iscoroutine(value):
                value = await value
            if value:
                return value
            await asyncio.sleep(0.05)


@pytest.fixture
async def world(cluster, namespace):
    async with Client(load(cluster.kubeconfig)) as client:
        world = World(client, cluster.kubeconfig, namespace)
        yield world
        await world.close()
