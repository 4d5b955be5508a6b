"""`nodewright operator`: the controllers in the foreground."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from nodewright.cli.component import Component, Option
from nodewright.cli.output import FAILED, PRECONDITION, USAGE, CliError

DEFAULT_BIND = "127.0.0.1:0"


@dataclass(frozen=True)
class Options:
    """Run the controllers: DaemonSets and the configuration kinds."""

    kubeconfig: Annotated[
        Path | None,
        Option(
            "--kubeconfig",
            metavar="FILE",
            help="How to reach the cluster (default: $KUBECONFIG, in-cluster, ~/.kube/config).",
        ),
    ] = None
    leader_elect: Annotated[
        bool, Option("--leader-elect/--no-leader-elect", help="Work only while holding the Lease.")
    ] = True
    metrics_bind: Annotated[
        str,
        Option("--metrics-bind", metavar="ADDR:PORT", help="Where to serve probes and metrics; port 0 takes any."),
    ] = DEFAULT_BIND
    controllers: Annotated[
        str,
        Option("--controllers", metavar="LIST", help="Names by commas; * stands for all, -NAME leaves one out."),
    ] = "*"
    take_over: Annotated[
        str,
        Option(
            "--take-over",
            metavar="LIST",
            help="Serve these kinds of Kubernetes in upstream's place, which must be off there: apps/v1 (DaemonSets).",
        ),
    ] = ""
    leader_elect_namespace: Annotated[
        str,
        Option("--leader-elect-namespace", metavar="NS", help="Namespace of the Lease, and of the operator."),
    ] = "kube-system"
    webhook_bind: Annotated[
        str,
        Option(
            "--webhook-bind",
            metavar="ADDR:PORT",
            help="Serve the admission webhook (HTTPS) here; needs the other --webhook options.",
        ),
    ] = ""
    webhook_service: Annotated[
        str,
        Option("--webhook-service", metavar="NS/NAME", help="The Service under which it is called."),
    ] = ""
    webhook_configuration: Annotated[
        str,
        Option(
            "--webhook-configuration",
            metavar="NAME",
            help="The ValidatingWebhookConfiguration whose caBundle is kept right.",
        ),
    ] = ""
    webhook_secret: Annotated[
        str,
        Option(
            "--webhook-secret",
            metavar="NAME",
            help="The Secret, in the Service's namespace, where the certificates are kept; made when absent.",
        ),
    ] = ""
    verbose: Annotated[int, Option("--verbose", "-v", count=True, help="Say more.")] = 0


def run(options: Options) -> None:
    """Run it; returns when it is told to end. Raises ``CliError``."""
    from nodewright.cli import webhook
    from nodewright.controllers import registry
    from nodewright.framework import process
    from nodewright.framework.leader import LeadershipLost
    from nodewright.kube import logs
    from nodewright.kube.errors import ConfigError

    try:
        chosen = registry.select(
            options.controllers.split(","), filter(None, map(str.strip, options.take_over.split(",")))
        )
    except ValueError as error:
        hint = "see --controllers and --take-over in `nodewright operator --help`"
        raise CliError(str(error), hint, USAGE) from None
    host, port = parse_bind(options.metrics_bind)
    webhook_options = webhook.options(
        options.webhook_bind, options.webhook_service, options.webhook_configuration, options.webhook_secret
    )
    logs.setup(logging.DEBUG if options.verbose else logging.INFO)
    settings = process.Options(
        kubeconfig=options.kubeconfig,
        leader_elect=options.leader_elect,
        lease_namespace=options.leader_elect_namespace,
        metrics_host=host,
        metrics_port=port,
        webhook=webhook_options,
        exit_timeout=30.0,
    )
    try:
        process.run(settings, registry.placed(chosen, options.leader_elect_namespace), webhook.reviewers)
    except ConfigError as error:
        raise CliError(str(error), "give --kubeconfig FILE or set KUBECONFIG", PRECONDITION) from None
    except LeadershipLost as error:
        raise CliError(f"leadership lost: {error}", "another instance goes on; restart this one", FAILED) from None
    except OSError as error:
        where = (
            f"{options.metrics_bind}, or the webhook at {options.webhook_bind}"
            if options.webhook_bind
            else options.metrics_bind
        )
        raise CliError(f"cannot serve probes and metrics at {where}: {error}", exit_code=PRECONDITION) from None


def parse_bind(text: str, option: str = "--metrics-bind") -> tuple[str, int]:
    """`ADDR:PORT`, `:PORT` (all addresses), `[V6]:PORT`. Raises CliError."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise CliError(f"{option} {text!r} is not ADDR:PORT", "for example 127.0.0.1:8080", USAGE)
    return host.strip("[]") or "0.0.0.0", int(port)


COMPONENT = Component(Options, run)
