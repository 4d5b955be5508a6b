"""What makes a static Pod impossible to run; an API server would have looked at it. Pure.

The API server, where there is one, still looks at all of the mirror Pod. Rules and words are those of upstream's
pkg/apis/core/validation.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

from nodewright.kube import quantity
from nodewright.kube.objects import Container, Pod, ResourceRequirements
from nodewright_agent.pods.model import all_containers

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_SEARCH = re.compile(r"[_a-z0-9]([-_a-z0-9]*[_a-z0-9])?(\.[_a-z0-9]([-_a-z0-9]*[_a-z0-9])?)*\.?|\.")
_UID = re.compile(r"[A-Za-z0-9][-A-Za-z0-9_.]{0,127}")
_MOST_SECONDS = (1 << 31) - 1


def problems(pod: Pod) -> Iterator[str]:
    """Give each problem with its field."""
    meta, spec = pod.metadata, pod.spec
    if not _NAME.fullmatch(meta.name) or len(meta.name) > 253:
        yield f'metadata.name: Invalid value: "{meta.name}": a lowercase RFC 1123 subdomain is needed'
    if not _LABEL.fullmatch(meta.namespace):
        yield f'metadata.namespace: Invalid value: "{meta.namespace}"'
    if not _UID.fullmatch(meta.uid):
        yield f'metadata.uid: Invalid value: "{meta.uid}"'
    if spec.ephemeral_containers:
        yield "spec.ephemeralContainers: Forbidden: cannot be set on create"
    if spec.restart_policy not in ("Always", "OnFailure", "Never"):
        yield f'spec.restartPolicy: Unsupported value: "{spec.restart_policy}"'
    deadline = spec.active_deadline_seconds
    if deadline is not None and not 1 <= deadline <= _MOST_SECONDS:
        yield f"spec.activeDeadlineSeconds: Invalid value: {deadline}: must be between 1 and {_MOST_SECONDS}, inclusive"
    yield from _names(pod)
    yield from _volumes(pod)
    yield from _containers(pod)
    yield from _amounts("spec.overhead", ResourceRequirements(requests=spec.overhead))
    if spec.resources is not None:
        yield from _amounts("spec.resources", spec.resources)


def _names(pod: Pod) -> Iterator[str]:
    """What goes into /etc/hosts, resolv.conf and the host name: a line break in it would make lines of its own."""
    spec = pod.spec
    for field, value in (("hostname", spec.hostname), ("subdomain", spec.subdomain)):
        if value and not _LABEL.fullmatch(value):
            yield f'spec.{field}: Invalid value: "{value}"'
    for alias in spec.host_aliases:
        if not _is_address(alias.ip):
            yield f'spec.hostAliases.ip: Invalid value: "{alias.ip}": must be a valid IP address'
        for name in alias.hostnames:
            if not _NAME.fullmatch(name):
                yield f'spec.hostAliases.hostnames: Invalid value: "{name}"'
    if spec.dns_policy not in ("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"):
        yield f'spec.dnsPolicy: Unsupported value: "{spec.dns_policy}"'
    config = spec.dns_config
    if spec.dns_policy == "None" and (config is None or not config.nameservers):
        yield "spec.dnsConfig.nameservers: Required value: must provide at least one DNS nameserver"
    if config is None:
        return
    for server in config.nameservers:
        if not _is_address(server):
            yield f'spec.dnsConfig.nameservers: Invalid value: "{server}": must be valid IP address'
    for search in config.searches:
        if not _SEARCH.fullmatch(search):
            yield f'spec.dnsConfig.searches: Invalid value: "{search}"'
    for option in config.options:
        if not option.name or any(char.isspace() for char in f"{option.name}{option.value or ''}"):
            yield f'spec.dnsConfig.options: Invalid value: "{option.name}": one word is needed'


def _volumes(pod: Pod) -> Iterator[str]:
    names = [volume.name for volume in pod.spec.volumes]
    for volume in pod.spec.volumes:
        if not _LABEL.fullmatch(volume.name) or names.count(volume.name) > 1:
            yield f'spec.volumes: Invalid or duplicate value: "{volume.name}"'
        if volume.empty_dir is not None and volume.empty_dir.size_limit:
            yield from _amount("spec.volumes.emptyDir.sizeLimit", volume.empty_dir.size_limit)


def _containers(pod: Pod) -> Iterator[str]:
    if not pod.spec.containers:
        yield "spec.containers: Required value"
    volumes = {volume.name for volume in pod.spec.volumes}
    names = [container.name for container in all_containers(pod)]
    for container in all_containers(pod):
        if not _LABEL.fullmatch(container.name) or names.count(container.name) > 1:
            yield f'spec.containers: Invalid or duplicate value: "{container.name}"'
        yield from _container(container, volumes)


def _container(container: Container, volumes: set[str]) -> Iterator[str]:
    where = f"container {container.name}"
    if not container.image.strip():
        yield f"{where}: image: Required value"
    for mount in container.volume_mounts:
        if mount.name not in volumes:
            yield f'{where}: volumeMounts: Not found: "{mount.name}"'
        if not mount.mount_path:
            yield f"{where}: volumeMounts.mountPath: Required value"
    for port in container.ports:
        if not 0 < port.container_port < 65536 or not 0 <= port.host_port < 65536:
            yield f"{where}: ports: must be between 1 and 65535, inclusive"
    yield from _amounts(f"{where}: resources", container.resources)


def _amounts(where: str, given: ResourceRequirements) -> Iterator[str]:
    for kind, amounts in (("requests", given.requests), ("limits", given.limits)):
        for name, text in amounts.items():
            yield from _amount(f"{where}.{kind}[{name}]", text)
    for name, text in given.requests.items():
        limit = given.limits.get(name)
        if limit is not None and quantity.parse(text) > quantity.parse(limit):
            yield f'{where}.requests: Invalid value: "{text}": must be less than or equal to {name} limit of {limit}'


def _amount(where: str, text: str) -> Iterator[str]:
    try:
        found = quantity.parse(text)
    except quantity.QuantityError as error:
        yield f"{where}: {error}"
        return
    if found < 0:
        yield f'{where}: Invalid value: "{text}": must be greater than or equal to 0'


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return "%" not in text
