"""`nodewright explain daemonset`: why nodes have or have not a pod, what a rollout waits for, and what comes next."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from nodewright.cli.daemonsettarget import ApiOption, Namespace, Target, Words, choose, parse
from nodewright.cli.options import Output, StateDir
from nodewright.cli.output import CliError, Format, emit
from nodewright.cli.target import All, ClusterName, Kubeconfig, config_of

if TYPE_CHECKING:
    from nodewright.controllers.daemonset.explain import Explanation
    from nodewright.kube.config import Config


def command(
    words: Words,
    namespace: Namespace = None,
    api: ApiOption = None,
    node: Annotated[str | None, typer.Option("--node", metavar="NODE", help="Of this node alone.")] = None,
    kubeconfig: Kubeconfig = None,
    cluster: ClusterName = None,
    state_dir: StateDir = None,
    everything: All = False,
    output: Output = Format.TABLE,
) -> None:
    """Per node: why it has or has not a pod; what a pending rollout waits for; what the controller would do next.

    Reads nodes, pods, revisions and the DaemonSet, and decides on them as the controller does. Changes nothing.
    """
    target = parse(words, namespace, api)
    explanation = asyncio.run(_explain(config_of(kubeconfig, cluster, state_dir), target))
    if node is not None:
        explanation = _only(explanation, node)
    if output is Format.TABLE:
        from nodewright.cli.explaindaemonsettables import print_explanation

        print_explanation(explanation, everything or node is not None)
    else:
        emit(explanation, output)


async def _explain(config: Config, target: Target) -> Explanation:
    from nodewright.controllers.daemonset.explain import explain
    from nodewright.controllers.daemonset.lookup import read
    from nodewright.kube.times import now

    async with choose(config, target) as chosen:
        return explain(await read(chosen.client, chosen.kind, chosen.ds, now()))


def _only(explanation: Explanation, node: str) -> Explanation:
    import msgspec

    nodes = [line for line in explanation.nodes if line.node == node]
    if not nodes:
        raise CliError(f"there is no node {node}", "nodewright kubectl get nodes lists them")
    actions = [action for action in explanation.next if action.node == node]
    return msgspec.structs.replace(explanation, nodes=nodes, next=actions)
