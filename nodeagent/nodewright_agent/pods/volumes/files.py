"""configMap, secret, downwardAPI and projected: volumes of files that follow their sources."""

from __future__ import annotations

import asyncio
from datetime import datetime

from nodewright.kube.api.volumes import ServiceAccountTokenProjection, Volume, VolumeProjection
from nodewright.kube.errors import ApiError
from nodewright.kube.objects import ConfigMap, Secret
from nodewright_agent.pods.volumes import atomic, emptydir, ownership, payload
from nodewright_agent.pods.volumes.errors import VolumeError
from nodewright_agent.pods.volumes.objects import Key, Kind, Value
from nodewright_agent.pods.volumes.payload import DEFAULT_MODE, File, Payload
from nodewright_agent.pods.volumes.plugin import Request, SetUp
from nodewright_agent.pods.volumes.tokens import DEFAULT_SECONDS


class _Collector:
    """Gathers the files of one volume; remembers what it looked for."""

    def __init__(self, request: Request) -> None:
        self.pod, self.host, self.context = request.pod, request.host, request.context
        self.used = request.used
        self.renew_at: datetime | None = None

    async def config_map(self, name: str, optional: bool) -> ConfigMap | None:
        found = await self._object("configmap", name, optional)
        assert found is None or isinstance(found, ConfigMap)
        return found

    async def secret(self, name: str, optional: bool) -> Secret | None:
        found = await self._object("secret", name, optional)
        assert found is None or isinstance(found, Secret)
        return found

    async def _object(self, kind: Kind, name: str, optional: bool) -> Value | None:
        key: Key = (kind, self.pod.metadata.namespace, name)
        found = await self.host.objects.read(*key)
        self.used[key] = found
        if found is None and not optional:
            raise VolumeError(f'{kind} "{name}" not found')
        return found

    async def projection(self, source: VolumeProjection, mode: int) -> Payload:
        """The files of one source of a projected volume."""
        if source.config_map is not None:
            optional = bool(source.config_map.optional)
            found = await self.config_map(source.config_map.name, optional)
            return payload.config_map(found, source.config_map.items, mode, optional=optional)
        if source.secret is not None:
            optional = bool(source.secret.optional)
            kept = await self.secret(source.secret.name, optional)
            return payload.secret(kept, source.secret.items, mode, optional=optional)
        if source.downward_api is not None:
            return payload.downward(self.pod, source.downward_api.items, mode, self.context.allocatable)
        if source.service_account_token is not None:
            return await self.token(source.service_account_token, mode)
        kind = "clusterTrustBundle" if source.cluster_trust_bundle is not None else "podCertificate"
        raise VolumeError(f"projected source {kind} is not supported yet")

    async def token(self, source: ServiceAccountTokenProjection, mode: int) -> Payload:
        """A token file: 0600 where an owner or group is known that must read it (upstream's projected.go)."""
        user, group = ownership.fs_user(self.pod), ownership.fs_group(self.pod)
        seconds = source.expiration_seconds or DEFAULT_SECONDS
        try:
            token = await self.host.tokens.get(self.pod, source.audience, seconds)
        except ApiError as error:
            last = self.host.tokens.last(self.pod, source.audience, seconds)
            if last is None:
                raise VolumeError(f"failed to fetch token: {error}") from None
            token = last  # it still serves; renew_at lies in the past, so that the renewal is tried again soon
        self.renew_at = min(filter(None, (self.renew_at, token.renew_at)))
        if user is not None or group is not None:
            mode = 0o600
        return {source.path: File(token.text.encode(), mode, user)}


class Files:
    """The common part: collect, then write atomically, in memory for what may be secret."""

    read_only = True

    def __init__(self, name: str, *, memory: bool) -> None:
        """`name` is the plugin's directory name."""
        self._name = name
        self._memory = memory

    async def set_up(self, request: Request) -> SetUp:
        """Collect the content first: a volume whose sources are missing is not made at all."""
        collector = _Collector(request)
        content = payload.check(await collect(request.volume, collector))
        path = request.paths.volume(self._name, request.volume.name)
        group = ownership.fs_group(request.pod)

        def write() -> None:
            emptydir.make(path, memory=self._memory)
            atomic.write(path, content, group)

        await asyncio.to_thread(write)
        return SetUp(path, request.used, collector.renew_at)


async def collect(volume: Volume, collector: _Collector) -> Payload:
    """All files of a volume, of whichever kind it is."""
    if (config_map := volume.config_map) is not None:
        optional, mode = bool(config_map.optional), _mode(config_map.default_mode)
        found = await collector.config_map(config_map.name, optional)
        return payload.config_map(found, config_map.items, mode, optional=optional)
    if (secret := volume.secret) is not None:
        optional, mode = bool(secret.optional), _mode(secret.default_mode)
        kept = await collector.secret(secret.secret_name, optional)
        return payload.secret(kept, secret.items, mode, optional=optional)
    if (downward := volume.downward_api) is not None:
        mode = _mode(downward.default_mode)
        return payload.downward(collector.pod, downward.items, mode, collector.context.allocatable)
    assert volume.projected is not None
    mode = _mode(volume.projected.default_mode)
    parts = await asyncio.gather(*(collector.projection(source, mode) for source in volume.projected.sources))
    result: Payload = {}
    for part in parts:
        result |= part  # later sources win; the API server refuses most collisions
    return result


def _mode(mode: int | None) -> int:
    return DEFAULT_MODE if mode is None else mode
