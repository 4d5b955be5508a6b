"""Command lines of etcd, kube-apiserver and kube-controller-manager: pure functions, compared with golden files.

They follow the CIS Kubernetes Benchmark where it has an opinion (the numbers in comments). Not set, on purpose:
AlwaysPullImages (1.2.11; it would break local images) and EventRateLimit (1.2.9; our recorders limit themselves,
and the limit would hit the benchmarks' bursts).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from nodewright.controlplane import certificates as certs
from nodewright.controlplane import configs
from nodewright.controlplane.layout import Layout
from nodewright.controlplane.state import LOOPBACK, ClusterState

_CIPHERS = (  # 1.2.29; TLS 1.3's are not configurable and all strong
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,"
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,"
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256"
)
_ISSUER = "https://kubernetes.default.svc.cluster.local"

Flags = Mapping[str, str | int | bool | Path]


def _argv(flags: Flags) -> list[str]:
    def text(value: str | int | bool | Path) -> str:
        return str(value).lower() if isinstance(value, bool) else str(value)

    return [f"--{name}={text(value)}" for name, value in flags.items()]


def _pair(layout: Layout, name: str, cert_flag: str, key_flag: str) -> dict[str, Path]:
    return {cert_flag: layout.pki / f"{name}.crt", key_flag: layout.pki / f"{name}.key"}


def etcd(layout: Layout, state: ClusterState, *, unsafe_no_fsync: bool = False) -> list[str]:
    """etcd on loopback, mutual TLS for clients and peers with its own authority (CIS 2.1 to 2.7)."""
    client = f"https://{LOOPBACK}:{state.ports.etcd_client}"
    peer = f"https://{LOOPBACK}:{state.ports.etcd_peer}"
    ca = layout.pki / f"{certs.ETCD_CA}.crt"
    flags: dict[str, str | int | bool | Path] = {
        "name": state.name,
        "data-dir": layout.etcd,
        "listen-client-urls": client,
        "advertise-client-urls": client,
        "listen-peer-urls": peer,
        "initial-advertise-peer-urls": peer,
        "initial-cluster": f"{state.name}={peer}",
        **_pair(layout, "etcd-server", "cert-file", "key-file"),
        "trusted-ca-file": ca,
        "client-cert-auth": True,
        **_pair(layout, "etcd-peer", "peer-cert-file", "peer-key-file"),
        "peer-trusted-ca-file": ca,
        "peer-client-cert-auth": True,
        "tls-min-version": "TLS1.2",
        # Without writes, kube-apiserver's bookmarks come from these notifications; kubeadm sets the same.
        "watch-progress-notify-interval": "5s",
        "auto-compaction-mode": "periodic",
        "auto-compaction-retention": "5m",
        "quota-backend-bytes": 2 * 1024**3,
        "logger": "zap",
        "log-level": "warn",
    }
    if unsafe_no_fsync:
        flags["unsafe-no-fsync"] = True
    return _argv(flags)


def kube_apiserver(layout: Layout, state: ClusterState) -> list[str]:
    """kube-apiserver: TLS, Node and RBAC authorization, NodeRestriction, encrypted secrets, audit log."""
    ca = layout.pki / f"{certs.CLUSTER_CA}.crt"
    flags: dict[str, str | int | bool | Path] = {
        "etcd-servers": f"https://{LOOPBACK}:{state.ports.etcd_client}",
        "etcd-cafile": layout.pki / f"{certs.ETCD_CA}.crt",
        **_pair(layout, "apiserver-etcd-client", "etcd-certfile", "etcd-keyfile"),
        "bind-address": state.address,
        "advertise-address": state.address,
        "secure-port": state.ports.apiserver,
        **_pair(layout, "apiserver", "tls-cert-file", "tls-private-key-file"),
        "tls-min-version": "VersionTLS12",
        "tls-cipher-suites": _CIPHERS,
        "client-ca-file": ca,
        "authentication-config": configs.authentication_file(layout),
        "authorization-mode": "Node,RBAC",
        "enable-admission-plugins": "NodeRestriction,DenyServiceExternalIPs",
        "enable-bootstrap-token-auth": True,
        "service-account-issuer": _ISSUER,
        "service-account-key-file": layout.pki / "sa.pub",
        "service-account-signing-key-file": layout.pki / "sa.key",
        "service-account-lookup": True,
        "service-account-extend-token-expiration": False,
        "service-cluster-ip-range": state.service_cidr,
        "service-node-port-range": "30000-32767",
        "allow-privileged": True,
        "kubelet-certificate-authority": ca,
        **_pair(layout, "apiserver-kubelet-client", "kubelet-client-certificate", "kubelet-client-key"),
        "kubelet-preferred-address-types": "InternalIP,Hostname",
        "encryption-provider-config": configs.encryption_file(layout),
        "audit-policy-file": configs.audit_policy_file(layout),
        "audit-log-path": layout.audit_log,
        "audit-log-maxage": 30,
        "audit-log-maxbackup": 10,
        "audit-log-maxsize": 100,
        "requestheader-client-ca-file": layout.pki / f"{certs.FRONT_PROXY_CA}.crt",
        "requestheader-allowed-names": certs.FRONT_PROXY_USER,
        "requestheader-username-headers": "X-Remote-User",
        "requestheader-group-headers": "X-Remote-Group",
        "requestheader-extra-headers-prefix": "X-Remote-Extra-",
        **_pair(layout, "front-proxy-client", "proxy-client-cert-file", "proxy-client-key-file"),
        # this host runs no service proxy: webhooks and aggregated APIs are reached at the Pods' own addresses
        "enable-aggregator-routing": True,
        "profiling": False,
    }
    if not state.nodes:
        # loopback may not be an endpoint address, and without node hosts nobody asks for one
        flags["endpoint-reconciler-type"] = "none"
    return _argv(flags)


def kube_controller_manager(layout: Layout, state: ClusterState, replaced: Collection[str] = ()) -> list[str]:
    """kube-controller-manager without the controllers in `replaced`, one identity per controller (CIS 1.3)."""
    kubeconfig = layout.kubeconfig("controller-manager")
    ca = layout.pki / f"{certs.CLUSTER_CA}.crt"
    # the two token controllers are off by default and serve `nodewright agent` joining by bootstrap token
    controllers = ["*", "bootstrap-signer-controller", "token-cleaner-controller", *(f"-{name}" for name in replaced)]
    flags: dict[str, str | int | bool | Path] = {
        "kubeconfig": kubeconfig,
        "authentication-kubeconfig": kubeconfig,
        "authorization-kubeconfig": kubeconfig,
        "bind-address": LOOPBACK,
        "secure-port": state.ports.controller_manager,
        **_pair(layout, "controller-manager-server", "tls-cert-file", "tls-private-key-file"),
        "tls-min-version": "VersionTLS12",
        "client-ca-file": ca,
        "requestheader-client-ca-file": layout.pki / f"{certs.FRONT_PROXY_CA}.crt",
        "controllers": ",".join(controllers),
        "use-service-account-credentials": True,
        "service-account-private-key-file": layout.pki / "sa.key",
        "root-ca-file": ca,
        "cluster-signing-cert-file": ca,
        "cluster-signing-key-file": layout.pki / f"{certs.CLUSTER_CA}.key",
        "cluster-name": state.name,
        "allocate-node-cidrs": True,
        "cluster-cidr": state.pod_cidr,
        "node-cidr-mask-size": 24,
        "service-cluster-ip-range": state.service_cidr,
        "configure-cloud-routes": False,
        "flex-volume-plugin-dir": layout.run / "flexvolume",  # its default is made on the host below /usr
        "terminated-pod-gc-threshold": 1000,
        "kube-api-qps": 100,  # 20 by default, which shows when hundreds of Pods start on one machine
        "kube-api-burst": 200,
        "profiling": False,
        # one instance per local cluster, held by its process record: a Lease would only delay restarts
        "leader-elect": False,
    }
    return _argv(flags)
