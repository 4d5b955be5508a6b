"""Texts of the files that the agent writes for a pod: /etc/hosts, /etc/resolv.conf, the host name. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from nodewright.kube.objects import HostAlias, Pod, PodDNSConfigOption
from nodewright_agent.pods import refs

_HOSTS_HEADER = "# Kubernetes-managed hosts file.\n"
_HOSTS_HEADER_HOST_NETWORK = "# Kubernetes-managed hosts file (host network).\n"
_HOSTS_LOCAL = """127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::0\tip6-localnet
fe00::0\tip6-mcastprefix
fe00::1\tip6-allnodes
fe00::2\tip6-allrouters
"""
MAX_HOSTNAME = 63
MAX_NAMESERVERS, MAX_SEARCHES, MAX_SEARCH_CHARS, MAX_DOMAIN = 3, 32, 2048, 253

Note = tuple[str, str]
"""Reason and message of an event."""


@dataclass(slots=True)
class DNS:
    """The content of a resolv.conf."""

    servers: list[str] = field(default_factory=list)
    searches: list[str] = field(default_factory=list)
    options: list[str] = field(default_factory=list)

    def text(self) -> str:
        """Write it as the container runtimes of Kubernetes do: search, nameservers, options."""
        lines = [f"search {' '.join(self.searches)}"] if self.searches else []
        lines += [f"nameserver {server}" for server in self.servers]
        if self.options:
            lines.append(f"options {' '.join(self.options)}")
        return "".join(line + "\n" for line in lines)


def hostname_and_domain(pod: Pod, cluster_domain: str) -> tuple[str, str]:
    """Return the pod's host name (at most 63 characters) and domain ("" without a subdomain)."""
    spec = pod.spec
    if spec.hostname_override:
        return _truncate(spec.hostname_override), ""
    domain = f"{spec.subdomain}.{pod.metadata.namespace}.svc.{cluster_domain}" if spec.subdomain else ""
    return _truncate(spec.hostname or pod.metadata.name), domain


def kernel_hostname(pod: Pod, cluster_domain: str, node_hostname: str) -> str:
    """Return what ``hostname`` prints in the pod: the node's name with hostNetwork, the FQDN where asked for.

    Raises ``ValueError`` where the FQDN does not fit into the kernel's 64 characters.
    """
    if pod.spec.host_network and not pod.spec.hostname_override:
        return node_hostname
    name, domain = hostname_and_domain(pod, cluster_domain)
    if not (pod.spec.set_hostname_as_fqdn and domain):
        return name
    full = f"{name}.{domain}"
    if len(full) > MAX_HOSTNAME + 1:
        raise ValueError(
            f"failed to construct FQDN from pod hostname and cluster domain, FQDN {full} is too long "
            f"({MAX_HOSTNAME + 1} is the max, {len(full)} characters requested)"
        )
    return full


def hosts_text(ips: Sequence[str], hostname: str, domain: str, aliases: Iterable[HostAlias]) -> str:
    """Return the managed /etc/hosts of a pod with its own network."""
    names = f"{hostname}.{domain}\t{hostname}" if domain else hostname
    own = "".join(f"{ip}\t{names}\n" for ip in ips)
    return _HOSTS_HEADER + _HOSTS_LOCAL + own + _alias_text(aliases)


def host_network_hosts_text(node_hosts: str, aliases: Iterable[HostAlias]) -> str:
    """Return the managed /etc/hosts of a pod on the node's network: the node's file and the pod's aliases."""
    return _HOSTS_HEADER_HOST_NETWORK + node_hosts + _alias_text(aliases)


def parse_resolv_conf(text: str) -> DNS:
    """Read a resolv.conf: nameservers add up, the last search line wins, a repeated option overwrites."""
    dns = DNS()
    for line in text.splitlines():
        words = line.split()
        if not words or words[0].startswith(("#", ";")):
            continue
        if words[0] == "nameserver" and len(words) > 1:
            dns.servers.append(words[1])
        elif words[0] == "search":
            dns.searches = [word if word == "." else word.removesuffix(".") for word in words[1:]]
        elif words[0] == "options":
            dns.options = _merge_options([*dns.options, *words[1:]])
    return dns


def pod_dns(
    pod: Pod, host: DNS, cluster_dns: Sequence[str], cluster_domain: str, warnings: list[Note] | None = None
) -> DNS:
    """Return the pod's resolv.conf by dnsPolicy and dnsConfig; what is not as asked for is told in ``warnings``."""
    notes = warnings if warnings is not None else []
    policy = pod.spec.dns_policy
    if policy == "ClusterFirst" and pod.spec.host_network:
        policy = "Default"
    if policy in ("ClusterFirst", "ClusterFirstWithHostNet") and not cluster_dns:
        text = (
            f'pod: "{refs.display(pod)}". kubelet does not have ClusterDNS IP configured and cannot create Pod using '
            '"ClusterFirst" policy. Falling back to "Default" policy.'
        )
        notes.append(("MissingClusterDNS", text))
        policy = "Default"
    if policy == "None":
        dns = DNS()
    elif policy == "Default":
        dns = DNS(list(host.servers), list(host.searches), list(host.options))
    else:
        dns = DNS(list(cluster_dns), _cluster_searches(pod.metadata.namespace, cluster_domain, host), ["ndots:5"])
    extra = pod.spec.dns_config
    if extra is not None:
        dns.servers = _unique([*dns.servers, *extra.nameservers])
        dns.searches = _unique([*dns.searches, *extra.searches])
        dns.options = _merge_options([*dns.options, *(_option(option) for option in extra.options)])
    return _limit(dns, notes)


def _truncate(hostname: str) -> str:
    return hostname if len(hostname) <= MAX_HOSTNAME else hostname[:MAX_HOSTNAME].rstrip("-.")


def _alias_text(aliases: Iterable[HostAlias]) -> str:
    lines = "".join("\t".join([alias.ip, *alias.hostnames]) + "\n" for alias in aliases)
    return f"\n# Entries added by HostAliases.\n{lines}" if lines else ""


def _cluster_searches(namespace: str, domain: str, host: DNS) -> list[str]:
    if not domain:
        return list(host.searches)
    return _unique([f"{namespace}.svc.{domain}", f"svc.{domain}", domain, *host.searches])


def _option(option: PodDNSConfigOption) -> str:
    return f"{option.name}:{option.value}" if option.value else option.name


def _merge_options(options: Iterable[str]) -> list[str]:
    by_name: dict[str, str] = {}
    for option in options:
        by_name[option.partition(":")[0]] = option
    return list(by_name.values())


def _unique(items: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(items))


def _limit(dns: DNS, notes: list[Note]) -> DNS:
    if len(dns.servers) > MAX_NAMESERVERS:
        dns.servers = dns.servers[:MAX_NAMESERVERS]
        text = "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: "
        notes.append(("DNSConfigForming", text + " ".join(dns.servers)))
    searches = [search for search in dns.searches[:MAX_SEARCHES] if len(search) <= MAX_DOMAIN]
    while len(" ".join(searches)) > MAX_SEARCH_CHARS:
        searches.pop()
    if searches != dns.searches:
        dns.searches = searches
        text = "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: "
        notes.append(("DNSConfigForming", text + " ".join(searches)))
    return dns
