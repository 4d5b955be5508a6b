"""The verbs of `nodewright`: what there is, and where."""

from __future__ import annotations

import importlib
from typing import Any, NamedTuple


class Verb(NamedTuple):
    """One verb: where it lives and what the overview says about it.

    `attribute` is a function (one command), a typer.Typer (a group of commands) or a Component.
    """

    name: str
    module: str
    attribute: str
    help: str
    panel: str
    passes_arguments: bool = False

    def load(self) -> Any:
        """Its attribute, whose module is imported now."""
        return getattr(importlib.import_module(f"nodewright.cli.{self.module}"), self.attribute)


_CLUSTER, _USE, _INSPECT, _COMPONENTS = "Cluster", "Use it", "Understand it", "Components (run in the foreground)"
_REMOVE = "Take it away (what the Helm chart runs when it is uninstalled)"

VERBS = (
    Verb("up", "up", "command", "Start or resume a cluster on this machine.", _CLUSTER),
    Verb("down", "down", "command", "Stop a cluster; with --purge remove everything it made.", _CLUSTER),
    Verb("status", "status", "command", "Show what runs and whether it is healthy.", _CLUSTER),
    Verb("doctor", "doctor", "command", "Check what this machine has and lacks, with hints.", _CLUSTER),
    Verb("assets", "assets", "command", "Get the control plane's binaries before they are needed.", _CLUSTER),
    Verb("kubeconfig", "kubeconfig", "command", "Print the cluster's kubeconfig or its path.", _USE),
    Verb("kubectl", "kubectl", "command", "Run kubectl against the cluster.", _USE, passes_arguments=True),
    Verb("image", "image", "app", "Load, pull, list and remove images of the local store.", _USE),
    Verb("rollout", "rollout", "app", "Follow, undo, pause, resume, restart rollouts of DaemonSets.", _USE),
    Verb("drain", "drain", "command", "Empty a node in order, before it is taken out of service.", _USE),
    Verb("uncordon", "drain", "uncordon_command", "Take a node back into service.", _USE),
    Verb("explain", "explain", "app", "Say why a Pod is where it is, or a DaemonSet's Pods are.", _INSPECT),
    Verb("simulate", "simulate", "command", "Say where Pods would go that do not exist yet.", _INSPECT),
    Verb("trace", "trace", "command", "Follow an object through the system, step by step with times.", _INSPECT),
    Verb("selftest", "selftest", "command", "Check in a Pod that Pods, DaemonSets and Services work.", _INSPECT),
    Verb("operator", "operator", "COMPONENT", "The controllers.", _COMPONENTS),
    Verb("scheduler", "scheduler", "COMPONENT", "The scheduler.", _COMPONENTS),
    Verb("agent", "agent", "COMPONENT", "The node agent: makes this host a Node.", _COMPONENTS),
    Verb("proxy", "proxy", "COMPONENT", "The service proxy alone.", _COMPONENTS),
    Verb("cri", "cri", "COMPONENT", "The runtime alone, behind a CRI v1 socket.", _COMPONENTS),
    Verb("cleanup", "cleanup", "command", "Remove everything of Nodewright from this host.", _REMOVE),
    Verb("uninstall", "uninstall", "command", "Take Nodewright's nodes out of a cluster.", _REMOVE),
)
