"""The table of checks. To add one: write a function that returns a Finding, and name it here."""

from __future__ import annotations

from functools import partial

from nodewright.cli.doctoring import host, kernel, software
from nodewright.cli.doctoring.model import Check
from nodewright.controlplane import versions

_PYTHON, _PLANE, _HOST, _KERNEL, _TOOLS = "python", "control plane", "host", "kernel", "programs"

CHECKS: tuple[Check, ...] = (
    Check(_PYTHON, "Python", software.python_version, for_nodes=False),
    Check(_PYTHON, "packages of the operator", partial(software.packages, software.OPERATOR_PACKAGES), for_nodes=False),
    Check(_PYTHON, "packages of the agent", partial(software.packages, software.AGENT_PACKAGES)),
    *(
        Check(_PLANE, name, partial(software.binary, name), for_nodes=False)
        for name in versions.BINARIES
        if name != "kube-scheduler"  # only benchmarks run it
    ),
    Check(_PLANE, "state directory", host.state_directory, for_nodes=False),
    Check(_PLANE, "disk space", host.disk_space, for_nodes=False),
    Check(_HOST, "user", host.is_root),
    Check(_HOST, "capabilities", host.capabilities),
    Check(_HOST, "CAP_SYS_RESOURCE", host.sys_resource),
    Check(_HOST, "IPv4 forwarding", host.ip_forward),
    Check(_HOST, "address ranges", host.address_ranges),
    Check(_HOST, "inotify limits", host.inotify),
    Check(_KERNEL, "version", kernel.version),
    Check(_KERNEL, "namespaces", kernel.namespaces),
    Check(_KERNEL, "cgroups", kernel.cgroups),
    Check(_KERNEL, "overlay file system", kernel.overlay),
    Check(_KERNEL, "bridge", partial(kernel.link_type, "bridge")),
    Check(_KERNEL, "veth", partial(kernel.link_type, "veth")),
    Check(_KERNEL, "br_netfilter", kernel.br_netfilter),
    Check(_KERNEL, "nf_tables", kernel.nf_tables),
    Check(_KERNEL, "ip_vs", kernel.ip_vs),
    Check(_KERNEL, "seccomp", kernel.seccomp),
    *(Check(_TOOLS, tool.name, partial(software.program, tool)) for tool in software.PROGRAMS),
)
