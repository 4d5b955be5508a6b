"""What tests of volumes make in the API, and see on the host."""

import asyncio
import base64
import os
import stat

from nodewright.kube.resources import CONFIGMAPS, SECRETS
from nodewright_agent.pods.volumes.errors import FailedMount
from nodewright_agent.pods.volumes.plugin import VolumeContext
from nodewright_agent.runtime import mountinfo


def mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)


async def eventually(check, what="condition"):
    """Wait for something that an event brings about elsewhere; the poll is the test's, not the product's."""
    async with asyncio.timeout(20):
        while not check():  # noqa: ASYNC110 - what is waited for is a file, written by another task
            await asyncio.sleep(0.02)


def text(path):
    return path.read_text() if path.exists() else None


async def config_map(admin, namespace, name, data, **more):
    await admin.apply(CONFIGMAPS, {"metadata": {"name": name, "namespace": namespace}, "data": data} | more,
                      namespace, field_manager="test")  # fmt: skip


async def secret(admin, namespace, name, data):
    encoded = {key: base64.b64encode(value).decode() for key, value in data.items()}
    document = {"metadata": {"name": name, "namespace": namespace}, "data": encoded}
    await admin.apply(SECRETS, document, namespace, field_manager="test")


async def set_up(manager, pod, **context):
    """Set up, patiently: the authorizer learns of a new Pod a moment later than the Pod is stored."""
    async with asyncio.timeout(20):
        while True:
            try:
                return await manager.setup(pod, VolumeContext(**context))
            except FailedMount as error:
                if "forbidden" not in str(error).lower() and "no relationship" not in str(error):
                    raise
                await asyncio.sleep(0.05)


def mounted(path):
    return [e for e in mountinfo.read() if e.mount_point == str(path)]
