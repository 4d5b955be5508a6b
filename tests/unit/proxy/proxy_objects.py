"""Short ways to write Services and EndpointSlices in tests."""

from __future__ import annotations

from typing import Any

import msgspec

from nodewright_agent.proxy.objects import EndpointSlice, Service


def service(
    name: str = "web",
    cluster_ip: str = "10.96.0.10",
    ports: list[dict[str, Any]] | None = None,
    *,
    ingress: list[dict[str, Any]] | None = None,
    **spec: Any,
) -> Service:
    """A Service in namespace default; `spec` takes the API's own field names."""
    document = {
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "clusterIP": cluster_ip,
            "type": "ClusterIP",
            "ports": ports if ports is not None else [{"name": "http", "port": 80, "protocol": "TCP"}],
            **spec,
        },
        "status": {"loadBalancer": {"ingress": ingress or []}},
    }
    return msgspec.convert(document, Service)


def ready(address: str, node: str = "here", **conditions: bool) -> dict[str, Any]:
    """An endpoint; conditions are left out unless given."""
    return {"addresses": [address], "nodeName": node, "conditions": conditions}


def endpoint_slice(
    *endpoints: dict[str, Any],
    service: str = "web",
    name: str = "",
    ports: list[dict[str, Any]] | None = None,
    family: str = "IPv4",
) -> EndpointSlice:
    """A slice of a Service in namespace default."""
    document = {
        "metadata": {
            "name": name or f"{service}-{family.lower()}",
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": family,
        "endpoints": list(endpoints),
        "ports": ports if ports is not None else [{"name": "http", "port": 8080, "protocol": "TCP"}],
    }
    return msgspec.convert(document, EndpointSlice)
