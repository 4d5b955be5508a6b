"""Where the cluster's DNS is when nobody has set it: the Service that every installer makes. Pure."""

from __future__ import annotations

from nodewright.kube.objects import Service

SERVICE = "kube-system/kube-dns"
"""The name is part of what clusters agree on (KEP "DNS specification"): CoreDNS is deployed behind it, too."""


def addresses(service: Service | None) -> list[str]:
    """Return the Service's IPv4 cluster addresses (pods have no others); empty where there is no such Service."""
    if service is None:
        return []
    found = service.spec.cluster_ips or [service.spec.cluster_ip]
    return [address for address in found if address not in ("", "None") and ":" not in address]
