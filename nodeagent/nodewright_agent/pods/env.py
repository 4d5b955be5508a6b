"""The environment of a container: env, envFrom, the downward API, Services, and $(VAR) references. Pure.

Rules of upstream's makeEnvironmentVariables and third_party/forked/golang/expansion.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from nodewright.kube.objects import (
    ConfigMap,
    Container,
    EnvVar,
    FileKeySelector,
    KeySelector,
    Pod,
    Secret,
    Service,
)
from nodewright_agent.pods.volumes import fields

MASTER_SERVICES = frozenset({"kubernetes"})


class CreateContainerConfigError(Exception):
    """The container's configuration cannot be made now; the text is upstream's."""

    reason = "CreateContainerConfigError"


@dataclass(frozen=True)
class EnvSources:
    """The ConfigMaps and Secrets that a container refers to, by name; those that do not exist are absent.

    ``files``: the values of env files, by volume, path and key.
    """

    config_maps: Mapping[str, ConfigMap] = field(default_factory=dict)
    secrets: Mapping[str, Secret] = field(default_factory=dict)
    files: Mapping[tuple[str, str, str], str] = field(default_factory=dict)


@dataclass(frozen=True)
class EnvContext:
    """What else goes into an environment."""

    pod_ips: Sequence[str] = ()
    host_ips: Sequence[str] = ()
    hostname: str = ""
    allocatable: Mapping[str, str] = field(default_factory=dict)


def expand(text: str, values: Callable[[str], str | None]) -> str:
    """Replace $(NAME) by its value; unknown names stay as written, $$ is a literal $, so $$(NAME) is $(NAME)."""
    parts: list[str] = []
    at = 0
    while (dollar := text.find("$", at)) >= 0 and dollar + 1 < len(text):
        parts.append(text[at:dollar])
        following = text[dollar + 1]
        closing = text.find(")", dollar + 2) if following == "(" else -1
        if following == "$":
            parts.append("$")
            at = dollar + 2
        elif closing >= 0:
            name = text[dollar + 2 : closing]
            value = values(name)
            parts.append(f"$({name})" if value is None else value)
            at = closing + 1
        else:
            parts.append(f"${following}")
            at = dollar + 2
    parts.append(text[at:])
    return "".join(parts)


def references(container: Container) -> tuple[dict[str, bool], dict[str, bool]]:
    """Names of the ConfigMaps and of the Secrets that an environment needs; whether each is optional throughout."""
    config_maps: dict[str, bool] = {}
    secrets: dict[str, bool] = {}

    def note(found: dict[str, bool], name: str, optional: bool | None) -> None:
        found[name] = found.get(name, True) and bool(optional)

    for source in container.env_from:
        if source.config_map_ref is not None:
            note(config_maps, source.config_map_ref.name, source.config_map_ref.optional)
        elif source.secret_ref is not None:
            note(secrets, source.secret_ref.name, source.secret_ref.optional)
    for variable in container.env:
        origin = variable.value_from
        if origin is not None and origin.config_map_key_ref is not None:
            note(config_maps, origin.config_map_key_ref.name, origin.config_map_key_ref.optional)
        elif origin is not None and origin.secret_key_ref is not None:
            note(secrets, origin.secret_key_ref.name, origin.secret_key_ref.optional)
    return config_maps, secrets


def file_references(container: Container) -> list[FileKeySelector]:
    """The env files that a container's variables come from."""
    return [
        variable.value_from.file_key_ref
        for variable in container.env
        if not variable.value and variable.value_from is not None and variable.value_from.file_key_ref is not None
    ]


def container_env(
    pod: Pod, container: Container, sources: EnvSources, services: Iterable[Service], context: EnvContext
) -> list[tuple[str, str]]:
    """The variables of a container, each name once; raises CreateContainerConfigError.

    HOSTNAME first, then Services, envFrom, env: later ones win. The image's own variables rank below all of these;
    see `merge`.
    """
    links = service_env(services, pod.metadata.namespace, links=pod.spec.enable_service_links is not False)
    own = _env_from(container, sources)
    for variable in container.env:
        value = _value(pod, container, variable, sources, context, own, links)
        if value is not None:
            own[variable.name] = value
    result = {"HOSTNAME": context.hostname} if context.hostname else {}
    result |= links
    result |= own
    for name, value in result.items():
        if "\0" in value or "\0" in name or not name or "=" in name:
            raise CreateContainerConfigError(f"environment variable {name!r} has a NUL byte or an impossible name")
    return list(result.items())


def merge(image: Iterable[str], container: Iterable[tuple[str, str]]) -> list[str]:
    """`NAME=value` entries for the runtime: the image's variables below the container's, each name once."""
    result = dict(entry.partition("=")[::2] for entry in image)
    result.update(container)
    return [f"{name}={value}" for name, value in result.items()]


def _env_from(container: Container, sources: EnvSources) -> dict[str, str]:
    result: dict[str, str] = {}
    for source in container.env_from:
        if source.config_map_ref is not None:
            ref = source.config_map_ref
            config_map = sources.config_maps.get(ref.name)
            if config_map is None and not ref.optional:
                raise CreateContainerConfigError(f'configmap "{ref.name}" not found')
            data = config_map.data if config_map is not None else {}
        elif source.secret_ref is not None:
            ref = source.secret_ref
            secret = sources.secrets.get(ref.name)
            if secret is None and not ref.optional:
                raise CreateContainerConfigError(f'secret "{ref.name}" not found')
            data = {key: _text(value) for key, value in secret.data.items()} if secret is not None else {}
        else:
            continue
        result.update((source.prefix + key, value) for key, value in data.items())
    return result


def _text(data: bytes) -> str:
    # The kernel knows no encoding; surrogateescape gives the runtime the same bytes back.
    return data.decode("utf-8", "surrogateescape")


def _value(
    pod: Pod,
    container: Container,
    variable: EnvVar,
    sources: EnvSources,
    context: EnvContext,
    own: Mapping[str, str],
    links: Mapping[str, str],
) -> str | None:
    """The value of one variable; None leaves it out (an optional reference without a target)."""
    origin = variable.value_from
    if variable.value or origin is None:
        return expand(variable.value, lambda name: own.get(name, links.get(name)))
    try:
        if origin.field_ref is not None:
            return pod_field(pod, origin.field_ref.field_path, context)
        if origin.resource_field_ref is not None:
            return fields.resource_field(pod, origin.resource_field_ref, container, context.allocatable)
    except ValueError as error:
        raise CreateContainerConfigError(str(error)) from None
    namespace = pod.metadata.namespace
    if (ref := origin.config_map_key_ref) is not None:
        config_map = sources.config_maps.get(ref.name)
        return _key(ref, config_map.data if config_map is not None else None, "configmap", "ConfigMap", namespace)
    if (ref := origin.secret_key_ref) is not None:
        secret = sources.secrets.get(ref.name)
        data = {key: _text(value) for key, value in secret.data.items()} if secret is not None else None
        return _key(ref, data, "secret", "Secret", namespace)
    if (chosen := origin.file_key_ref) is not None:
        text = sources.files.get((chosen.volume_name, chosen.path, chosen.key), "")
        if not text and not chosen.optional:
            said = f'environment variable key "{chosen.key}" not found in file "{chosen.path}"'
            raise CreateContainerConfigError(said)
        return text or None
    raise CreateContainerConfigError(f"environment variable {variable.name}: its kind of source is not known")


def _key(ref: KeySelector, data: Mapping[str, str] | None, kind: str, title: str, namespace: str) -> str | None:
    if data is None:
        if ref.optional:
            return None
        raise CreateContainerConfigError(f'{kind} "{ref.name}" not found')
    if ref.key in data:
        return data[ref.key]
    if ref.optional:
        return None
    raise CreateContainerConfigError(f"couldn't find key {ref.key} in {title} {namespace}/{ref.name}")


def pod_field(pod: Pod, path: str, context: EnvContext) -> str:
    """A fieldRef of an environment variable; raises fields.FieldError."""
    simple: dict[str, Callable[[], str]] = {
        "spec.nodeName": lambda: pod.spec.node_name,
        "spec.serviceAccountName": lambda: pod.spec.service_account_name,
        "status.hostIP": lambda: next(iter(context.host_ips), ""),
        "status.hostIPs": lambda: ",".join(context.host_ips),
        "status.podIP": lambda: next(iter(context.pod_ips), ""),
        "status.podIPs": lambda: ",".join(context.pod_ips),
    }
    return simple[path]() if path in simple else fields.metadata_field(pod, path)


def service_env(services: Iterable[Service], namespace: str, *, links: bool) -> dict[str, str]:
    """Variables for the Services of the namespace (if `links`) and always for default/kubernetes."""
    chosen: dict[str, Service] = {}
    for service in services:
        meta = service.metadata
        if service.spec.cluster_ip in ("", "None") or not service.spec.ports:
            continue
        if meta.namespace == "default" and meta.name in MASTER_SERVICES:
            chosen.setdefault(meta.name, service)
        elif meta.namespace == namespace and links:
            chosen[meta.name] = service
    result: dict[str, str] = {}
    for name in sorted(chosen):
        result.update(_one_service(name, chosen[name]))
    return result


def _one_service(name: str, service: Service) -> dict[str, str]:
    prefix = name.replace("-", "_").upper()
    address = service.spec.cluster_ip
    shown = f"[{address}]" if ":" in address else address
    ports = service.spec.ports
    result = {f"{prefix}_SERVICE_HOST": address, f"{prefix}_SERVICE_PORT": str(ports[0].port)}
    for port in ports:
        if port.name:
            result[f"{prefix}_SERVICE_PORT_{port.name.replace('-', '_').upper()}"] = str(port.port)
    for i, port in enumerate(ports):
        protocol = (port.protocol or "TCP").lower()
        url = f"{protocol}://{shown}:{port.port}"
        if i == 0:
            result[f"{prefix}_PORT"] = url
        each = f"{prefix}_PORT_{port.port}_{protocol.upper()}"
        result |= {each: url, f"{each}_PROTO": protocol, f"{each}_PORT": str(port.port), f"{each}_ADDR": address}
    return result
