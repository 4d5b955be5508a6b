"""`nodewright operator`: the controllers in the foreground."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from nodewright.cli.output import FAILED, PRECONDITION, USAGE, CliError

DEFAULT_BIND = "127.0.0.1:0"


def command(
    kubeconfig: Annotated[
        Path | None,
        typer.Option(
            "--kubeconfig",
            metavar="FILE",
            help="How to reach the cluster [default: $KUBECONFIG, in-cluster, ~/.kube/config].",
        ),
    ] = None,
    leader_elect: Annotated[
        bool, typer.Option("--leader-elect/--no-leader-elect", help="Work only while holding the Lease.")
    ] = True,
    metrics_bind: Annotated[
        str,
        typer.Option(
            "--metrics-bind", metavar="ADDR:PORT", help="Where to serve probes and metrics; port 0 takes any."
        ),
    ] = DEFAULT_BIND,
    controllers: Annotated[
        str,
        typer.Option("--controllers", metavar="LIST", help="Names by commas; * stands for all, -NAME leaves one out."),
    ] = "*",
    take_over: Annotated[
        str,
        typer.Option(
            "--take-over",
            metavar="LIST",
            help="Serve these kinds of Kubernetes in upstream's place, which must be off there: apps/v1 (DaemonSets).",
        ),
    ] = "",
    leader_elect_namespace: Annotated[
        str,
        typer.Option("--leader-elect-namespace", metavar="NS", help="Namespace of the Lease, and of the operator."),
    ] = "kube-system",
    webhook_bind: Annotated[
        str,
        typer.Option(
            "--webhook-bind",
            metavar="ADDR:PORT",
            help="Serve the admission webhook (HTTPS) here; needs the other --webhook options.",
        ),
    ] = "",
    webhook_service: Annotated[
        str,
        typer.Option("--webhook-service", metavar="NS/NAME", help="The Service under which it is called."),
    ] = "",
    webhook_configuration: Annotated[
        str,
        typer.Option(
            "--webhook-configuration",
            metavar="NAME",
            help="The ValidatingWebhookConfiguration whose caBundle is kept right.",
        ),
    ] = "",
    webhook_secret: Annotated[
        str,
        typer.Option(
            "--webhook-secret",
            metavar="NAME",
            help="The Secret, in the Service's namespace, where the certificates are kept; made when absent.",
        ),
    ] = "",
    verbose: Annotated[int, typer.Option("--verbose", "-v", count=True, help="Say more.")] = 0,
) -> None:
    """Run the controllers: DaemonSets and the configuration kinds."""
    from nodewright.cli import webhook
    from nodewright.controllers import registry
    from nodewright.framework import process
    from nodewright.framework.leader import LeadershipLost
    from nodewright.kube import logs
    from nodewright.kube.errors import ConfigError

    try:
        chosen = registry.select(controllers.split(","), filter(None, map(str.strip, take_over.split(","))))
    except ValueError as error:
        hint = "see --controllers and --take-over in `nodewright operator --help`"
        raise CliError(str(error), hint, USAGE) from None
    host, port = parse_bind(metrics_bind)
    webhook_options = webhook.options(webhook_bind, webhook_service, webhook_configuration, webhook_secret)
    logs.setup(logging.DEBUG if verbose else logging.INFO)
    options = process.Options(
        kubeconfig=kubeconfig,
        leader_elect=leader_elect,
        lease_namespace=leader_elect_namespace,
        metrics_host=host,
        metrics_port=port,
        webhook=webhook_options,
        exit_timeout=30.0,
    )
    try:
        process.run(options, registry.placed(chosen, leader_elect_namespace), webhook.reviewers)
    except ConfigError as error:
        raise CliError(str(error), "give --kubeconfig FILE or set KUBECONFIG", PRECONDITION) from None
    except LeadershipLost as error:
        raise CliError(f"leadership lost: {error}", "another instance goes on; restart this one", FAILED) from None
    except OSError as error:
        where = f"{metrics_bind}, or the webhook at {webhook_bind}" if webhook_bind else metrics_bind
        raise CliError(f"cannot serve probes and metrics at {where}: {error}", exit_code=PRECONDITION) from None


def parse_bind(text: str, option: str = "--metrics-bind") -> tuple[str, int]:
    """`ADDR:PORT`, `:PORT` (all addresses), `[V6]:PORT`. Raises CliError."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise CliError(f"{option} {text!r} is not ADDR:PORT", "for example 127.0.0.1:8080", USAGE)
    return host.strip("[]") or "0.0.0.0", int(port)
