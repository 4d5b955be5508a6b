"""`nodewright proxy`: the service proxy alone, in the network namespace that it is started in."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nodewright.cli.output import FAILED, PRECONDITION, USAGE, CliError

if TYPE_CHECKING:
    from nodewright_agent.proxy.config import ProxyConfig


def command(
    kubeconfig: Annotated[
        Path | None, typer.Option("--kubeconfig", metavar="FILE", help="How to reach the cluster.")
    ] = None,
    node_name: Annotated[
        str, typer.Option("--node-name", metavar="NAME", help="The Node that this is; default: the host name.")
    ] = "",
    proxy_mode: Annotated[
        str, typer.Option("--proxy-mode", metavar="MODE", help="auto, ipvs, nftables or iptables.")
    ] = "auto",
    cluster_cidr: Annotated[
        str,
        typer.Option("--cluster-cidr", metavar="CIDR,...", help="Pod addresses; others are masqueraded to ClusterIPs."),
    ] = "",
    node_ip: Annotated[
        list[str] | None,
        typer.Option("--node-ip", metavar="IP", help="Where node ports answer; default: the Node's InternalIPs."),
    ] = None,
    service_proxy_name: Annotated[
        str | None,
        typer.Option(
            "--service-proxy-name", metavar="NAME", help="Serve only Services labelled service-proxy-name=NAME."
        ),
    ] = None,
    masquerade_all: Annotated[
        bool, typer.Option("--masquerade-all", help="Masquerade every connection to a ClusterIP.")
    ] = False,
    ipvs_scheduler: Annotated[
        str, typer.Option("--ipvs-scheduler", metavar="NAME", help="rr, wrr, lc, wlc, sh, mh, ...")
    ] = "rr",
    healthz_port: Annotated[int, typer.Option("--healthz-port", help="0: no health endpoint.")] = 10256,
    metrics_port: Annotated[int, typer.Option("--metrics-port", help="0: no metrics endpoint.")] = 10249,
    cleanup: Annotated[bool, typer.Option("--cleanup", help="Remove all rules of ours and exit.")] = False,
    verbose: Annotated[int, typer.Option("-v", "--verbose", count=True, help="Say more.")] = 0,
) -> None:
    """Program the cluster's Services into this host's kernel, until stopped. Rules stay when it stops."""
    from nodewright.kube.logs import setup
    from nodewright_agent.proxy.config import ProxyConfig, ProxyConfigError

    setup(logging.DEBUG if verbose else logging.INFO)
    config = ProxyConfig(
        node_name or socket.gethostname().lower(),
        proxy_mode,
        cluster_cidr,
        tuple(node_ip or ()),
        service_proxy_name,
        masquerade_all,
        ipvs_scheduler,
        healthz_port=healthz_port,
        metrics_port=metrics_port,
    )
    try:
        config.check()
    except ProxyConfigError as error:
        raise CliError(str(error), "see nodewright proxy --help", USAGE) from error
    if cleanup:
        _cleanup()
    else:
        _serve(config, kubeconfig)


def _serve(config: ProxyConfig, kubeconfig: Path | None) -> None:
    from nodewright_agent.proxy.backends.base import BackendError
    from nodewright_agent.proxy.detect import ProxyModeError

    try:
        asyncio.run(_run(config, kubeconfig))
    except ProxyModeError as error:
        raise CliError(str(error), error.hint, PRECONDITION) from error
    except BackendError as error:
        raise CliError(str(error), "run it as root, in the network namespace of the node", FAILED) from error


async def _run(config: ProxyConfig, kubeconfig: Path | None) -> None:
    from nodewright.kube.client import Client
    from nodewright.kube.config import load
    from nodewright.kube.events import EventRecorder
    from nodewright_agent.proxy.proxy import Proxy

    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    async with Client(load(kubeconfig), user_agent="nodewright-proxy") as client:
        recorder = EventRecorder(client, component="nodewright-proxy", instance=config.node_name)
        posting = asyncio.create_task(recorder.run())
        try:
            await Proxy(config, client, recorder=recorder).run()
        except asyncio.CancelledError:
            logging.getLogger(__name__).info("stopped; rules stay in the kernel")
        finally:
            posting.cancel()
            await asyncio.gather(posting, return_exceptions=True)


def _cleanup() -> None:
    """Remove what any backend of ours may have left in this network namespace."""
    from nodewright_agent.proxy.backends import BACKENDS, make_backend
    from nodewright_agent.proxy.backends.base import BackendOptions
    from nodewright_agent.proxy.detect import PROBES

    for name in BACKENDS:
        missing = PROBES[name]()
        if missing is not None:
            typer.echo(f"{name}: nothing to remove ({missing})")
            continue
        backend = make_backend(name, BackendOptions())
        backend.open()
        try:
            backend.cleanup()
        finally:
            backend.close()
        typer.echo(f"{name}: removed")
