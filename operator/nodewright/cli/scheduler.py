"""`nodewright scheduler`: place Pods on nodes."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nodewright.cli.output import FAILED, PRECONDITION, CliError

if TYPE_CHECKING:
    from nodewright.scheduler.profile import PluginRef


def command(
    kubeconfig: Annotated[
        Path | None,
        typer.Option("--kubeconfig", metavar="FILE", help="How to reach the API server [default: as kubectl]."),
    ] = None,
    scheduler_name: Annotated[
        list[str] | None,
        typer.Option(
            "--scheduler-name",
            metavar="NAME",
            help="Serve Pods with this spec.schedulerName; repeatable [default: nodewright].",
        ),
    ] = None,
    plugin: Annotated[
        list[str] | None,
        typer.Option(
            "--plugin",
            metavar="NAME[=WEIGHT]",
            help="Enable this plugin on top of the defaults; repeatable. SchedulerProfiles give finer control.",
        ),
    ] = None,
    leader_elect: Annotated[
        bool, typer.Option("--leader-elect/--no-leader-elect", help="Wait for the Lease before placing Pods.")
    ] = True,
    metrics_bind: Annotated[
        str,
        typer.Option(
            "--metrics-bind", metavar="HOST:PORT", help="Where to serve probes and metrics; empty for nowhere."
        ),
    ] = "127.0.0.1:0",
    leader_elect_namespace: Annotated[
        str, typer.Option("--leader-elect-namespace", metavar="NS", help="Namespace of the Lease.")
    ] = "kube-system",
    verbose: Annotated[int, typer.Option("-v", "--verbose", count=True, help="Log more.")] = 0,
) -> None:
    """Place Pods on nodes, by the rules of kube-scheduler.

    Serves the given schedulerNames and those of SchedulerProfile objects, which are followed while it runs.
    """
    from nodewright.framework.leader import LeadershipLost
    from nodewright.kube import logs
    from nodewright.scheduler.process import Options, run
    from nodewright.scheduler.profile import ProfileError

    logs.setup(logging.DEBUG if verbose else logging.INFO)
    host, port = _address(metrics_bind)
    options = Options(
        kubeconfig=kubeconfig,
        scheduler_names=scheduler_name or ["nodewright"],
        plugins=[_plugin(text) for text in plugin or []],
        leader_elect=leader_elect,
        lease_namespace=leader_elect_namespace,
        metrics_host=host,
        metrics_port=port,
    )
    try:
        run(options)
    except ProfileError as error:
        raise CliError(str(error), "correct the plugin or field that the message names") from error
    except LeadershipLost as error:
        raise CliError(f"leadership lost: {error}", "another instance goes on; restart this one", FAILED) from None
    except OSError as error:
        raise CliError(f"cannot serve probes and metrics at {metrics_bind}: {error}", exit_code=PRECONDITION) from None


def _plugin(text: str) -> PluginRef:
    from nodewright.scheduler.profile import PluginRef

    name, separator, weight = text.partition("=")
    if separator and not (weight.isascii() and weight.isdigit()):
        raise typer.BadParameter(f"{text!r}: the weight must be a whole number", param_hint="--plugin")
    return PluginRef(name, int(weight) if separator else 0)


def _address(text: str) -> tuple[str, int | None]:
    if not text:
        return "", None
    host, separator, port = text.rpartition(":")
    if not separator or not port.isdigit() or int(port) > 65535:
        raise typer.BadParameter(f"{text!r} is not HOST:PORT", param_hint="--metrics-bind")
    return host.strip("[]") or "0.0.0.0", int(port)
