"""A restart of the API server: watches break, its watch cache forgets the past, and nobody misses anything."""

from __future__ import annotations

import asyncio

import pytest

from nodewright.kube.backoff import Backoff
from nodewright.kube.cache import WatchCache
from nodewright.kube.client import Client
from nodewright.kube.config import load
from nodewright.kube.errors import Gone
from nodewright.kube.objects import ConfigMap, ObjectMeta
from nodewright.kube.resources import CONFIGMAPS

pytestmark = [pytest.mark.needs_cluster, pytest.mark.timeout(180)]


async def test_a_cache_lives_through_a_restart(make_cluster, binaries):
    cluster = make_cluster("restart")
    await asyncio.to_thread(cluster.prepare)
    await asyncio.to_thread(cluster.start_etcd, binaries["etcd"], unsafe_no_fsync=True)
    await asyncio.to_thread(cluster.start_apiserver, binaries["kube-apiserver"])
    async with Client(load(cluster.kubeconfig)) as client:
        first = await client.create(CONFIGMAPS, ConfigMap(ObjectMeta(name="a")), "default", type=ConfigMap)
        cache = WatchCache(
            client, CONFIGMAPS, type=ConfigMap, namespace="default", backoff=Backoff(0.05, 0.5), idle_timeout=30
        )
        seen = []
        cache.add_handler(lambda old, new: seen.append((old and old.metadata.name, new and new.metadata.name)))
        task = asyncio.create_task(cache.run())
        try:
            async with asyncio.timeout(30):
                await cache.wait_synced()
            await asyncio.to_thread(cluster.component("kube-apiserver").stop)
            await asyncio.to_thread(cluster.start_apiserver, binaries["kube-apiserver"])
            made = await client.create(CONFIGMAPS, ConfigMap(ObjectMeta(name="b")), "default", type=ConfigMap)
            assert await cache.wait_for(made.metadata.resource_version, 60)
            # the new server has no history: what is older than its start is gone, as a status or as an event
            watch = client.watch(CONFIGMAPS, "default", resource_version="1")
            with pytest.raises(Gone):
                async with asyncio.timeout(30):
                    await anext(watch)
            await watch.aclose()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    assert [change for change in seen if "kube-root-ca.crt" not in change] == [(None, "a"), (None, "b")]
    assert int(made.metadata.resource_version) > int(first.metadata.resource_version)
