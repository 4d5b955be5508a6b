"""`nodewright proxy`: the service proxy alone, in the network namespace that it is started in."""

from __future__ import annotations

import asyncio
import errno
import logging
import signal
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from nodewright.cli.component import Component, Option
from nodewright.cli.output import FAILED, PRECONDITION, USAGE, CliError

if TYPE_CHECKING:
    from nodewright_agent.proxy.config import ProxyConfig


@dataclass(frozen=True)
class Options:
    """Program the cluster's Services into this host's kernel, until stopped. Rules stay when it stops."""

    kubeconfig: Annotated[Path | None, Option("--kubeconfig", metavar="FILE", help="How to reach the cluster.")] = None
    node_name: Annotated[
        str, Option("--node-name", metavar="NAME", help="The Node that this is; default: the host name.")
    ] = ""
    proxy_mode: Annotated[str, Option("--proxy-mode", metavar="MODE", help="auto, ipvs, nftables or iptables.")] = (
        "auto"
    )
    cluster_cidr: Annotated[
        str,
        Option("--cluster-cidr", metavar="CIDR,...", help="Pod addresses; others are masqueraded to ClusterIPs."),
    ] = ""
    node_ip: Annotated[
        list[str] | None,
        Option("--node-ip", metavar="IP", help="Where node ports answer; default: the Node's addresses."),
    ] = None
    nodeport_addresses: Annotated[
        str,
        Option(
            "--nodeport-addresses",
            metavar="CIDR,...",
            help="Node ports answer on this host's addresses inside of these; primary: on the Node's.",
        ),
    ] = "primary"
    local_node: Annotated[
        list[str] | None,
        Option("--local-node", metavar="NAME", help="Another Node on this host; its endpoints are local, too."),
    ] = None
    routes: Annotated[bool, Option("--routes", help="Keep routes to the pods of agents' Nodes on other hosts.")] = False
    service_proxy_name: Annotated[
        str | None,
        Option("--service-proxy-name", metavar="NAME", help="Serve only Services labelled service-proxy-name=NAME."),
    ] = None
    masquerade_all: Annotated[bool, Option("--masquerade-all", help="Masquerade every connection to a ClusterIP.")] = (
        False
    )
    ipvs_scheduler: Annotated[str, Option("--ipvs-scheduler", metavar="NAME", help="rr, wrr, lc, wlc, sh, mh, ...")] = (
        "rr"
    )
    healthz_bind_address: Annotated[
        str, Option("--healthz-bind-address", metavar="IP", help="Where health is served.")
    ] = "0.0.0.0"
    healthz_port: Annotated[int, Option("--healthz-port", help="0: no health endpoint.")] = 10256
    metrics_bind_address: Annotated[
        str, Option("--metrics-bind-address", metavar="IP", help="Where metrics are served.")
    ] = "127.0.0.1"
    metrics_port: Annotated[int, Option("--metrics-port", help="0: no metrics endpoint.")] = 10249
    cleanup: Annotated[bool, Option("--cleanup", help="Remove all rules of ours and exit.")] = False
    verbose: Annotated[int, Option("-v", "--verbose", count=True, help="Say more.")] = 0


def run(options: Options) -> None:
    """Run it; returns when it is told to end. Raises ``CliError``."""
    from nodewright.kube.logs import setup
    from nodewright_agent.proxy.config import ProxyConfig, ProxyConfigError

    setup(logging.DEBUG if options.verbose else logging.INFO)
    config = ProxyConfig(
        options.node_name or socket.gethostname().lower(),
        options.proxy_mode,
        options.cluster_cidr,
        tuple(options.node_ip or ()),
        options.service_proxy_name,
        options.masquerade_all,
        options.ipvs_scheduler,
        healthz_address=options.healthz_bind_address,
        healthz_port=options.healthz_port,
        metrics_address=options.metrics_bind_address,
        metrics_port=options.metrics_port,
        local_nodes=tuple(options.local_node or ()),
        routes=options.routes,
        node_port_addresses=tuple(text.strip() for text in options.nodeport_addresses.split(",") if text.strip()),
    )
    try:
        config.check()
    except ProxyConfigError as error:
        raise CliError(str(error), "see nodewright proxy --help", USAGE) from error
    if options.cleanup:
        _cleanup()
    else:
        _serve(config, options.kubeconfig)


def _serve(config: ProxyConfig, kubeconfig: Path | None) -> None:
    from nodewright_agent.proxy.backends.base import BackendError
    from nodewright_agent.proxy.detect import ProxyModeError

    try:
        asyncio.run(_run(config, kubeconfig))
    except ProxyModeError as error:
        raise CliError(str(error), error.hint, PRECONDITION) from error
    except BackendError as error:
        raise CliError(str(error), "run it as root, in the network namespace of the node", FAILED) from error
    except OSError as error:
        if error.errno not in (errno.EADDRINUSE, errno.EADDRNOTAVAIL):
            raise
        hint = "choose --healthz-port and --metrics-port that no other proxy of this host has; 0 switches them off"
        raise CliError(str(error), hint, FAILED) from error


async def _run(config: ProxyConfig, kubeconfig: Path | None) -> None:
    from nodewright.kube.client import Client
    from nodewright.kube.config import load
    from nodewright.kube.events import EventRecorder
    from nodewright_agent.liveconfig.assembly import beside_proxy
    from nodewright_agent.proxy.proxy import Proxy
    from nodewright_agent.proxy.wishes import Wishes

    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    async with Client(load(kubeconfig), user_agent="nodewright-proxy") as client:
        recorder = EventRecorder(client, component="nodewright-proxy", instance=config.node_name)
        posting = asyncio.create_task(recorder.run())
        try:
            wishes = Wishes()
            proxy = Proxy(config, client, recorder=recorder, wishes=wishes)
            await beside_proxy(client, config.node_name, wishes, proxy.run())
        except asyncio.CancelledError:
            logging.getLogger(__name__).info("stopped; rules stay in the kernel")
        finally:
            posting.cancel()
            await asyncio.gather(posting, return_exceptions=True)


def _cleanup() -> None:
    """Remove what any backend of ours may have left in this network namespace."""
    from nodewright_agent.proxy.backends.base import BackendError
    from nodewright_agent.proxy.cleanup import remove_all

    try:
        removed = remove_all()
    except (BackendError, OSError) as error:
        raise CliError(str(error), "run it as root, in the network namespace of the node", FAILED) from error
    for text in removed or ["nothing"]:
        print(f"removed: {text}")


COMPONENT = Component(Options, run)
