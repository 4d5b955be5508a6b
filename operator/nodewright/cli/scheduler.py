"""`nodewright scheduler`: place Pods on nodes."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from nodewright.cli.component import Component, Option
from nodewright.cli.output import FAILED, PRECONDITION, USAGE, CliError

if TYPE_CHECKING:
    from nodewright.scheduler.profile import PluginRef


@dataclass(frozen=True)
class Options:
    """Place Pods on nodes, by the rules of kube-scheduler.

    Serves the given schedulerNames and those of SchedulerProfile objects, which are followed while it runs.
    """

    kubeconfig: Annotated[
        Path | None,
        Option("--kubeconfig", metavar="FILE", help="How to reach the API server (default: as kubectl)."),
    ] = None
    scheduler_name: Annotated[
        list[str] | None,
        Option(
            "--scheduler-name",
            metavar="NAME",
            help="Serve Pods with this spec.schedulerName; repeatable (default: nodewright).",
        ),
    ] = None
    plugin: Annotated[
        list[str] | None,
        Option(
            "--plugin",
            metavar="NAME[=WEIGHT]",
            help="Enable this plugin on top of the defaults; repeatable. SchedulerProfiles give finer control.",
        ),
    ] = None
    leader_elect: Annotated[
        bool, Option("--leader-elect/--no-leader-elect", help="Wait for the Lease before placing Pods.")
    ] = True
    metrics_bind: Annotated[
        str,
        Option("--metrics-bind", metavar="HOST:PORT", help="Where to serve probes and metrics; empty for nowhere."),
    ] = "127.0.0.1:0"
    leader_elect_namespace: Annotated[
        str,
        Option(
            "--leader-elect-namespace",
            "--leader-elect-resource-namespace",
            metavar="NS",
            help="Namespace of the Lease.",
        ),
    ] = "kube-system"
    leader_elect_resource_name: Annotated[
        str, Option("--leader-elect-resource-name", metavar="NAME", help="Name of the Lease.")
    ] = "nodewright-scheduler"
    leader_elect_lease_duration: Annotated[
        str,
        Option(
            "--leader-elect-lease-duration",
            metavar="DURATION",
            help="How long others wait for a sign of life before they take over.",
        ),
    ] = "15s"
    leader_elect_renew_deadline: Annotated[
        str,
        Option(
            "--leader-elect-renew-deadline",
            metavar="DURATION",
            help="How long the leader tries to renew the Lease before it ends; less than the lease duration.",
        ),
    ] = "10s"
    leader_elect_retry_period: Annotated[
        str, Option("--leader-elect-retry-period", metavar="DURATION", help="Pause between tries.")
    ] = "2s"
    verbose: Annotated[int, Option("-v", "--verbose", count=True, help="Log more.")] = 0


def run(options: Options) -> None:
    """Run it; returns when it is told to end. Raises ``CliError``."""
    from nodewright.cli.durations import seconds
    from nodewright.framework.leader import LeadershipLost
    from nodewright.kube import logs
    from nodewright.scheduler import process
    from nodewright.scheduler.profile import ProfileError

    logs.setup(logging.DEBUG if options.verbose else logging.INFO)
    host, port = _address(options.metrics_bind)
    settings = process.Options(
        kubeconfig=options.kubeconfig,
        scheduler_names=options.scheduler_name or ["nodewright"],
        plugins=[_plugin(text) for text in options.plugin or []],
        leader_elect=options.leader_elect,
        lease_namespace=options.leader_elect_namespace,
        lease_name=options.leader_elect_resource_name,
        lease_duration=seconds(options.leader_elect_lease_duration, "--leader-elect-lease-duration"),
        renew_deadline=seconds(options.leader_elect_renew_deadline, "--leader-elect-renew-deadline"),
        retry_period=seconds(options.leader_elect_retry_period, "--leader-elect-retry-period"),
        metrics_host=host,
        metrics_port=port,
    )
    if not settings.lease_duration > settings.renew_deadline > settings.retry_period:
        raise CliError(
            "the lease duration must be longer than the renew deadline, and that longer than the retry period",
            "see --leader-elect-lease-duration, --leader-elect-renew-deadline and --leader-elect-retry-period",
            USAGE,
        )
    try:
        process.run(settings)
    except ProfileError as error:
        raise CliError(str(error), "correct the plugin or field that the message names") from error
    except LeadershipLost as error:
        raise CliError(f"leadership lost: {error}", "another instance goes on; restart this one", FAILED) from None
    except OSError as error:
        raise CliError(
            f"cannot serve probes and metrics at {options.metrics_bind}: {error}", exit_code=PRECONDITION
        ) from None


def _plugin(text: str) -> PluginRef:
    from nodewright.scheduler.profile import PluginRef

    name, separator, weight = text.partition("=")
    if separator and not (weight.isascii() and weight.isdigit()):
        raise CliError(f"--plugin {text!r}: the weight must be a whole number", "for example --plugin NAME=2", USAGE)
    return PluginRef(name, int(weight) if separator else 0)


def _address(text: str) -> tuple[str, int | None]:
    if not text:
        return "", None
    host, separator, port = text.rpartition(":")
    if not separator or not port.isdigit() or int(port) > 65535:
        raise CliError(f"--metrics-bind {text!r} is not HOST:PORT", "for example 127.0.0.1:10259", USAGE)
    return host.strip("[]") or "0.0.0.0", int(port)


COMPONENT = Component(Options, run)
