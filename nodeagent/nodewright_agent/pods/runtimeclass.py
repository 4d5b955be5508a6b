"""RuntimeClasses: which program runs a pod's containers.

A class is read when its pod's sandbox is made; the pod keeps the handler that it got, as sandboxes do, whatever becomes
of the class. Nothing is watched: pods without a class cost nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from nodewright.kube.client import Client
from nodewright.kube.errors import ApiError, NotFound
from nodewright.kube.objects import Pod
from nodewright.kube.resources import Resource
from nodewright_agent.configcheck import BUILT_IN_HANDLERS
from nodewright_agent.pods.records import Records

RUNTIMECLASSES = Resource("node.k8s.io", "v1", "runtimeclasses", "RuntimeClass", False)
FILE = "runtime-handler"


class RuntimeClassError(Exception):
    """The pod's class, or its handler, is not there: its sandbox cannot be made now."""


class _RuntimeClass(msgspec.Struct):
    handler: str


class RuntimeClasses:
    """The handlers of this node."""

    def __init__(self, client: Client, records: Records, programs: Mapping[str, str]) -> None:
        """``programs``: path of the OCI runtime by handler, beside the built-in ones."""
        self._client, self._records = client, records
        self._programs = {**dict.fromkeys(BUILT_IN_HANDLERS, ""), **programs}

    async def choose(self, pod: Pod) -> None:
        """Settle the handler of a pod whose sandbox is being made. Raises RuntimeClassError with upstream's words."""
        name = pod.spec.runtime_class_name
        if not name:
            return
        file = self._file(pod)
        if file.exists():
            return
        handler = await self._lookup(name)
        if not self.known(handler):
            raise RuntimeClassError(f'failed to get sandbox runtime: no runtime for "{handler}" is configured')
        file.parent.mkdir(exist_ok=True, mode=0o750)
        temporary = file.with_name(f".{FILE}")
        temporary.write_text(handler)
        temporary.replace(file)

    def known(self, handler: str) -> bool:
        """Tell whether there is such a handler."""
        return handler in self._programs

    def handler(self, pod: Pod) -> str:
        """Return the handler that was chosen for the pod; empty: the node's own. Raises RuntimeClassError."""
        if not pod.spec.runtime_class_name:
            return ""
        try:
            return self._file(pod).read_text()
        except FileNotFoundError:
            raise RuntimeClassError("the pod's runtime handler is not known") from None

    def program(self, pod: Pod) -> str:
        """Return the program that runs the pod's containers; empty: the node's own. Raises RuntimeClassError."""
        handler = self.handler(pod)
        if not self.known(handler):
            raise RuntimeClassError(f'no runtime for "{handler}" is configured')
        return self._programs[handler]

    async def _lookup(self, name: str) -> str:
        try:
            found = await self._client.get(RUNTIMECLASSES, name, type=_RuntimeClass)
        except NotFound:
            raise RuntimeClassError(f'runtimeclass.node.k8s.io "{name}" not found') from None
        except ApiError as error:
            raise RuntimeClassError(f"failed to lookup RuntimeClass {name}: {error}") from error
        return found.handler

    def _file(self, pod: Pod) -> Path:
        return self._records.directory(pod.metadata.uid) / FILE
